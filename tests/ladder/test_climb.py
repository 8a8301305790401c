"""The climb: where it stops, what it keeps, what it steps over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from toolchain.graph import Structure, parse_graph
from toolchain.ladder.climb import Footing, Rung, Step, climb
from toolchain.ladder.goal import Fidelity, Goal
from toolchain.ladder.judge import Judgement
from toolchain.ladder.settings import Settings, with_learned
from toolchain.quantization import QuantizedGraph, Scheme

GRAPH = parse_graph("input x: float32[1,2]\nconstant w: float32[2,2]\ny = linear(x, w)\noutput y").with_constants(
    {"w": np.asarray([[1.0, 0.3], [0.2, -1.0]], np.float32)}
)
RANGES = {"x": (-1.0, 1.0), "y": (-2.0, 2.0)}


def settings() -> Settings:
    return Settings(graph=GRAPH, structure=Structure(), statistics={}, scheme=Scheme(), ranges=RANGES)


@dataclass
class Tables:
    """Judges a model by the end of its output's range, which stands for what a rung did."""

    decibels: dict[float, float]
    apart: dict[float, float]

    def measure(self, model: QuantizedGraph) -> Judgement:
        db = self.decibels[round(model.params["y"].bounds[1])]
        files = {"onnx": Fidelity(db, db), "tflite": Fidelity(db + 1, db + 1)}
        apart = self.apart.get(round(model.params["y"].bounds[1]), db)
        return Judgement(files, {"onnx": Fidelity(apart, apart)}, db, {"onnx": db})


def rung(name: str, end: int, *, free: bool = False) -> Rung:
    def take(footing: Footing, known: Judgement | None) -> Step:
        changed = replace(footing.settings, ranges={**RANGES, "y": (-end, end)})
        return Step(Footing(changed, changed.quantized()))

    return Rung(name, take, free)


def climbed(decibels: dict[float, float], *rungs: Rung, goal: float = 20.0, apart: dict[float, float] | None = None):
    start = settings()
    return climb(Footing(start, start.quantized()), rungs, Tables(decibels, apart or {}), Goal(sqnr_db=goal))


def test_it_stops_where_the_goal_is_met():
    found = climbed({2: 10, 3: 21, 4: 30}, rung("a", 3), rung("b", 4))
    assert [step.name for step in found.rungs] == ["min-max", "a"]
    assert found.meets_goal and round(found.model.params["y"].bounds[1]) == 3
    assert found.rungs[1].gain_db == pytest.approx(11)


def test_what_brings_nothing_is_stepped_over():
    found = climbed({2: 10, 3: 9, 4: 12}, rung("a", 3), rung("b", 4))
    assert [step.is_kept for step in found.rungs] == [True, False, True]
    assert not found.meets_goal and round(found.model.params["y"].bounds[1]) == 4
    assert found.rungs[2].gain_db == pytest.approx(2)  # over min-max, on which it stands


def test_the_worse_file_counts():
    assert not climbed({2: 19.5}).meets_goal
    assert climbed({2: 20.0}).meets_goal


def test_free_rungs_are_climbed_all_the_same():
    found = climbed({2: 25, 3: 30, 4: 40}, rung("free", 3, free=True), rung("dear", 4))
    assert [step.name for step in found.rungs] == ["min-max", "free"]
    assert round(found.model.params["y"].bounds[1]) == 3


def test_a_rung_that_does_not_apply_is_told():
    found = climbed({2: 10}, Rung("none", lambda footing, known: Step(None)))
    assert found.rungs[1].judged is None and not found.rungs[1].is_kept
    assert found.rungs[1].to_plain()["worst"] is None


def test_what_learns_is_judged_by_samples_kept_apart():
    learns = replace(rung("learned", 3), learns=True)
    found = climbed({2: 10, 3: 30, 4: 31}, learns, rung("next", 4), apart={2: 10, 3: 15, 4: 19})
    assert [step.is_kept for step in found.rungs] == [True, True, True]
    assert not found.meets_goal and found.rungs[1].gain_db == pytest.approx(5)
    worse = climbed({2: 10, 3: 30}, learns, apart={2: 10, 3: 9})
    assert [step.is_kept for step in worse.rungs] == [True, False]


def test_learned_roundings_stay_only_on_the_same_grid():
    model = settings().quantized()
    learned = replace(model, corrections={"w": np.full((2, 2), 0.001, np.float32)})
    assert "w" in with_learned(model, learned).corrections
    finer = replace(settings(), weight_bounds={"w": np.asarray([0.5, 0.5])}).quantized()
    assert "w" not in with_learned(finer, learned).corrections
