"""The figures of a comparison, against their formulas by hand."""

from __future__ import annotations

from math import log10, sqrt

import numpy as np
import pytest

from toolchain.fidelity import Comparison, accuracy, is_classes, sqnr_db

T = np.array([[1.0, 2.0, -2.0], [0.0, 4.0, 1.0]], np.float32)
Y = np.array([[1.0, 2.5, -2.0], [0.0, 4.0, 4.5]], np.float32)


def compared(*pieces):
    comparison = Comparison(steps=[0.5])
    for output, target in pieces:
        comparison.add([output], [target])
    return comparison


def test_figures_by_hand():
    found = compared((Y, T))
    signal, noise = 1 + 4 + 4 + 16 + 1, 0.25 + 12.25
    assert found.sqnr_db == pytest.approx(10 * log10(signal / noise))
    product = 1 + 5 + 4 + 16 + 4.5
    assert found.cosine == pytest.approx(product / sqrt(signal * (1 + 6.25 + 4 + 16 + 20.25)))
    assert found.max_error_steps == pytest.approx(7.0)
    assert found.relative_error == pytest.approx(3.5 / 4.0)
    assert found.same_class == 0.5, "the second sample's largest value moved"


def test_sample_by_sample_is_all_at_once():
    whole, parts = compared((Y, T)), compared((Y[:1], T[:1]), (Y[1:], T[1:]))
    assert (whole.sqnr_db, whole.cosine, whole.same, whole.samples) == (
        parts.sqnr_db,
        parts.cosine,
        parts.same,
        parts.samples,
    )


def test_equal_outputs_have_a_finite_sqnr_and_a_cosine_of_one():
    found = compared((T, T))
    assert found.sqnr_db == 300.0 and found.cosine == pytest.approx(1.0) and found.max_error_steps == 0
    assert sqnr_db(T, T) == 300.0


def test_only_rows_of_scores_have_classes():
    assert is_classes(T) and not is_classes(T[:, :1]) and not is_classes(T[None])
    picture = np.zeros((1, 2, 4, 4), np.float32)
    assert compared((picture, picture)).same_class is None


def test_integer_outputs_are_the_same_or_not():
    target, output = np.array([[3, 4], [5, 6]]), np.array([[3, 4], [5, 600]])
    found = compared((output, target))
    assert found.same_class == 0.75
    assert (found.sqnr_db, found.cosine, found.relative_error) == (300.0, 1.0, 0.0)


def test_integer_outputs_behind_scores_have_no_part_in_the_figures():
    scores = np.array([[0.25, 0.5]], np.float32)
    found = Comparison()
    found.add([scores, np.array([1])], [scores, np.array([9])])
    assert (found.sqnr_db, found.same_class) == (300.0, 1.0)


def test_accuracy_of_class_numbers():
    assert accuracy(np.array([0, 2, 1]), np.array([0, 2, 2])) == pytest.approx(2 / 3)


def test_accuracy():
    assert accuracy(T, np.array([1, 0])) == 0.5
