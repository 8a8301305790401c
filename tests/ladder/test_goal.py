"""What a goal asks for, and how far a figure misses it."""

from __future__ import annotations

import pytest

from toolchain.ladder.goal import Fidelity, Goal


def test_both_sqnrs_must_reach_it():
    goal = Goal(sqnr_db=20.0)
    assert goal.is_met(Fidelity(20.0, 20.0))
    assert not goal.is_met(Fidelity(40.0, 19.9))
    assert goal.shortfall(Fidelity(15.0, 40.0)) == pytest.approx(0.5)


def test_without_a_metric_changed_classes_bound_the_score():
    goal = Goal(same_class=0.9, score_drop=1.0)
    assert goal.is_met(Fidelity(0.0, 0.0, same_class=0.99))
    assert not goal.is_met(Fidelity(0.0, 0.0, same_class=0.98))


def test_a_metric_decides_where_there_is_one():
    goal = Goal(score_drop=1.0)
    assert goal.is_met(Fidelity(0.0, 0.0, same_class=0.5, score_drop=1.0))
    assert goal.shortfall(Fidelity(0.0, 0.0, same_class=1.0, score_drop=3.0)) == pytest.approx(2.0)


def test_nothing_asked_is_always_met():
    assert Goal().is_met(Fidelity(-300.0, -300.0, 0.0))
    assert str(Goal()) == "none"
    assert str(Goal(sqnr_db=15, same_class=0.9, score_drop=1)) == (
        "SQNR >= 15 dB, same class >= 99.0%, score falls <= 1 points"
    )
