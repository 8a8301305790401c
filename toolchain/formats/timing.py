"""How long a loaded file takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from toolchain.formats.artifact import Runner

LEAST_RUNS = 3


def run_times_ms(
    runner: Runner, inputs: Sequence[np.ndarray], *, seconds: float, most: int | None = None
) -> list[float]:
    """Milliseconds of single runs, one after the other, until `seconds` are spent or `most` are made; at least
    `LEAST_RUNS`."""
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < LEAST_RUNS or ((most is None or len(times) < most) and time.perf_counter() - started < seconds):
        before = time.perf_counter()
        runner.run(inputs)
        times.append(1e3 * (time.perf_counter() - before))
    return times
