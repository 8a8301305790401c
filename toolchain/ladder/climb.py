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
    met already. `is_needed`: it is asked for, whatever it costs, and kept. `learns`: from samples, so that it, and what
    stands on it, is judged by samples kept apart."""

    name: str
    take: Take
    is_free: bool = False
    is_needed: bool = False
    learns: bool = False


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
    best, known, apart = start, None, False
    ladder = (Rung("min-max", lambda footing, known: Step(footing)), *rungs)
    for rung in progress.track(ladder, description="quantize", total=len(ladder)):
        if known is not None and _meets(known, goal, apart) and not rung.is_free | rung.is_needed:
            break
        started = perf_counter()
        step = rung.take(best, known)
        judged = None if step.footing is None else judge.measure(step.footing.model)
        found = _Comparison(judged, known, goal, apart or rung.learns)
        is_kept = found.is_better or (rung.is_needed and judged is not None)
        climbed.append(_climbed(rung, step, perf_counter() - started, found, is_kept))
        if is_kept and step.footing is not None:
            best, known, apart = step.footing, judged, apart or rung.learns
    assert known is not None  # the start is always judged
    return Climb(best.model, tuple(climbed), _meets(known, goal, apart))


def _meets(judged: Judgement, goal: Goal, apart: bool) -> bool:
    return goal.is_met(judged.worst(goal, kept_apart=apart))


@dataclass(frozen=True)
class _Comparison:
    """A rung beside what stood before, on all samples or on those kept apart."""

    judged: Judgement | None
    known: Judgement | None
    goal: Goal
    apart: bool

    @property
    def worst(self) -> Fidelity | None:
        return None if self.judged is None else self.judged.worst(self.goal, kept_apart=self.apart)

    @property
    def before(self) -> Fidelity | None:
        return None if self.known is None else self.known.worst(self.goal, kept_apart=self.apart)

    @property
    def is_better(self) -> bool:
        if self.worst is None or self.before is None:
            return self.worst is not None
        return self.goal.is_nearer(self.worst, self.before)

    @property
    def gain_db(self) -> float | None:
        return None if self.worst is None or self.before is None else self.worst.worse_db - self.before.worse_db


def _climbed(rung: Rung, step: Step, seconds: float, found: _Comparison, is_kept: bool) -> Climbed:
    meets = found.worst is not None and found.goal.is_met(found.worst)
    return Climbed(rung.name, seconds, found.judged, found.worst, found.gain_db, is_kept, meets, step.notes)
