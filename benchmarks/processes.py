"""Whole processes by one yardstick: wall time as the caller sees it, CPU time and peak memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SPAWN = Path(__file__).with_name("spawn.py")
_LINES_SHOWN = 15


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    wall_s: float
    cpu_s: float
    peak_mib: float


class CommandFailed(Exception):
    """A measured process ended badly; the message ends with the last it printed."""


def measure(command: Sequence[str | Path]) -> Cost:
    """Run `command` from the project's folder and wait for it. Raises CommandFailed."""
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "cost.json"), Path(folder, "log")
        parent = [sys.executable, "-I", "-S", str(_SPAWN), str(result), str(log)]
        done = subprocess.run([*parent, *words], cwd=ROOT, check=False)
        printed = log.read_text(errors="replace").splitlines() if log.exists() else []
        cost = json.loads(result.read_text()) if done.returncode == 0 else {"status": done.returncode}
    if cost.pop("status") != 0:
        raise CommandFailed("\n".join([f"failed: {' '.join(words)}", *printed[-_LINES_SHOWN:]]))
    return Cost(**cost)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(
        wall_s=statistics.median(cost.wall_s for cost in costs),
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        peak_mib=statistics.median(cost.peak_mib for cost in costs),
    )
