"""Latency of a loaded file on this machine: the median of repeated single inferences on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from toolchain.formats.artifact import Runner
from toolchain.formats.timing import run_times_ms

WARM_UP = 3
MOST_RUNS = 50
BUDGET_S = 0.5


def median_latency_ms(runner: Runner, inputs: Sequence[np.ndarray]) -> float:
    """Median of up to `MOST_RUNS` runs after `WARM_UP`, at least three, stopping when `BUDGET_S` is spent."""
    started = time.perf_counter()
    for _ in range(WARM_UP):
        runner.run(inputs)
        if time.perf_counter() - started > BUDGET_S:
            break
    return statistics.median(run_times_ms(runner, inputs, seconds=BUDGET_S, most=MOST_RUNS))
