"""What a goal asks for, and how far a figure misses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from toolchain.ladder.goal import Fidelity, Goal
from toolchain.ladder.judge import _Fall


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


def test_shares_that_few_samples_cannot_tell_apart_leave_the_choice_to_sqnr():
    goal = Goal(same_class=0.95)
    before = Fidelity(8.0, 8.0, same_class=0.80, samples=100)
    # sqrt(0.8 * 0.2 / 100) is 4 points
    assert goal.is_nearer(Fidelity(12.0, 12.0, same_class=0.77, samples=100), before)
    assert not goal.is_nearer(Fidelity(7.0, 7.0, same_class=0.83, samples=100), before)
    assert not goal.is_nearer(Fidelity(12.0, 12.0, same_class=0.75, samples=100), before)
    # of ten thousand samples 3 points are many, and without their number every difference counts
    assert not goal.is_nearer(Fidelity(12.0, 12.0, same_class=0.77, samples=10_000), replace(before, samples=10_000))
    assert not goal.is_nearer(Fidelity(12.0, 12.0, same_class=0.79), replace(before, samples=0))


def test_what_meets_the_goal_is_nearer_than_what_does_not():
    goal = Goal(same_class=0.99)
    met, missed = Fidelity(20.0, 20.0, same_class=0.99, samples=100), Fidelity(30.0, 30.0, same_class=0.98, samples=100)
    assert goal.is_nearer(met, missed) and not goal.is_nearer(missed, met)


def test_a_score_is_judged_with_its_error():
    goal = Goal(score_drop=1.0)
    assert goal.is_met(Fidelity(20.0, 20.0, score_drop=0.5, score_error=0.5))
    assert not goal.is_met(Fidelity(20.0, 20.0, score_drop=0.6, score_error=0.5))
    # where the samples cannot tell the allowed fall, half of it is kept for the error
    assert goal.is_met(Fidelity(20.0, 20.0, score_drop=0.5, score_error=9.0))
    assert not goal.is_met(Fidelity(20.0, 20.0, score_drop=0.6, score_error=9.0))
    # two falls within an error of each other: the nearer outputs win
    before = Fidelity(20.0, 20.0, score_drop=3.0, score_error=1.0)
    assert goal.is_nearer(Fidelity(25.0, 25.0, score_drop=3.8, score_error=1.0), before)
    assert not goal.is_nearer(Fidelity(25.0, 25.0, score_drop=4.1, score_error=1.0), before)


def test_the_error_of_an_accuracy_is_that_of_a_share():
    labels = np.zeros(800, np.int64)
    right = np.eye(2, dtype=np.float32)[labels]
    wrong = right.copy()
    wrong[np.random.default_rng(0).permutation(800)[:80]] = (0.0, 1.0)

    def accuracy(outputs, known):
        return float((outputs[0].argmax(1) == known).mean())

    fall = _Fall(accuracy, [right], [wrong], labels, False)
    assert fall.points(slice(None)) == pytest.approx(10.0)
    # sqrt(0.1 * 0.9 / 800) is 1.06 points; eight parts know an error to about a quarter of itself
    assert fall.error() == pytest.approx(1.06, rel=0.5)
    assert _Fall(accuracy, [right], [right], labels, False).error() == 0.0


def test_a_metric_that_fails_on_a_part_has_no_error():
    def needs_all(outputs, labels):
        if len(outputs[0]) < 16:
            raise ValueError("too few")
        return 1.0

    rows = [np.zeros((16, 2), np.float32)]
    assert _Fall(needs_all, rows, rows, None, False).error() == 0.0
