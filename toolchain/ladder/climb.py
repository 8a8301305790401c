"""Climb the ladder: rung after rung, each on top of what the rungs before have won, until the goal is met.

A rung that brings nothing is stepped over: what it changed is not kept. Rungs that cost no time are always climbed.
Every rung is judged on its files, in their runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

from toolchain.ladder.goal import Fidelity, Goal
from toolchain.ladder.judge import Judge, Judgement
from toolchain.ladder.settings import Settings
from toolchain.progress import SILENT, Progress
from toolchain.quantization import QuantizedGraph


@dataclass(frozen=True)
class Footing:
    """Where the climb stands: the choices so far, and what they make."""

    settings: Settings
    model: QuantizedGraph


@dataclass(frozen=True)
class Step:
    """What a rung gives: where it leads, and what it has to tell. `footing` is None where it does not apply."""

    footing: Footing | None
    notes: Mapping[str, Any] = field(default_factory=dict)


Take: TypeAlias = Callable[[Footing, Judgement | None], Step]
"""From where the climb stands, and how that was judged, to where a rung leads."""


@dataclass(frozen=True)
class Rung:
    """One way to round better. `is_free`: it takes no time to speak of, so that it is climbed even where the goal is
    met already. `is_needed`: it is asked for, whatever it costs, and kept."""

    name: str
    take: Take
    is_free: bool = False
    is_needed: bool = False


@dataclass(frozen=True)
class Climbed:
    """One rung as it was climbed: its seconds, what its files reach (None where it does not apply), the gain in dB of
    the worst file over what stood before, and whether it was kept."""

    name: str
    seconds: float
    judged: Judgement | None
    worst: Fidelity | None
    gain_db: float | None
    is_kept: bool
    meets_goal: bool
    notes: Mapping[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values. Seconds are not among them: they differ from run to run, and the result's digest must
        not."""
        return {
            "rung": self.name,
            "judged": None if self.judged is None else self.judged.to_plain(),
            "worst": None if self.worst is None else self.worst.to_plain(),
            "gain_db": self.gain_db,
            "kept": self.is_kept,
            "meets_goal": self.meets_goal,
            "notes": dict(self.notes),
        }


@dataclass(frozen=True)
class Climb:
    """A finished climb: what it ended with, and every rung on the way."""

    model: QuantizedGraph
    rungs: tuple[Climbed, ...]
    meets_goal: bool


def climb(
    start: Footing,
    rungs: Sequence[Rung],
    judge: Judge,
    goal: Goal,
    *,
    progress: Progress = SILENT,
) -> Climb:
    """Climb `rungs` in order from `start`, which is judged first."""
    climbed: list[Climbed] = []
    best, known = start, None
    ladder = (Rung("min-max", lambda footing, known: Step(footing)), *rungs)
    for rung in progress.track(ladder, description="quantize", total=len(ladder)):
        if known is not None and goal.is_met(known.worst(goal)) and not rung.is_free | rung.is_needed:
            break
        started = perf_counter()
        step = rung.take(best, known)
        judged = None if step.footing is None else judge.measure(step.footing.model)
        is_kept = judged is not None and (known is None or rung.is_needed or _is_better(judged, known, goal))
        climbed.append(_climbed(rung, step, perf_counter() - started, judged, known, goal, is_kept))
        if is_kept and step.footing is not None:
            best, known = step.footing, judged
    assert known is not None  # the start is always judged
    return Climb(best.model, tuple(climbed), goal.is_met(known.worst(goal)))


def _is_better(judged: Judgement, known: Judgement, goal: Goal) -> bool:
    found, before = judged.worst(goal), known.worst(goal)
    shortfall, before_it = goal.shortfall(found), goal.shortfall(before)
    return shortfall < before_it or (shortfall == before_it and found.worse_db > before.worse_db)


def _climbed(
    rung: Rung,
    step: Step,
    seconds: float,
    judged: Judgement | None,
    known: Judgement | None,
    goal: Goal,
    is_kept: bool,
) -> Climbed:
    worst = None if judged is None else judged.worst(goal)
    gain = None if worst is None or known is None else worst.worse_db - known.worst(goal).worse_db
    meets = worst is not None and goal.is_met(worst)
    return Climbed(rung.name, seconds, judged, worst, gain, is_kept, meets, step.notes)
