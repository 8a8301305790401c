"""Latency of a loaded file on this machine: the median of repeated single inferences on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from toolchain.formats.artifact import Runner

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
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (len(times) < MOST_RUNS and time.perf_counter() - started < BUDGET_S):
        before = time.perf_counter()
        runner.run(inputs)
        times.append(time.perf_counter() - before)
    return 1e3 * statistics.median(times)
