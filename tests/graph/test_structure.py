"""Masks and codebooks, and how weights that no longer obey them are found."""

from __future__ import annotations

import numpy as np
import pytest

from toolchain.graph import Codebook, Structure, fold, fold_structure, parse_graph
from toolchain.graph.archive import structure_from_arrays, structure_to_arrays

MASK = np.array([[True, False], [True, True]])
BOOK = Codebook(np.array([-1, 0, 0.5], np.float32), np.array([[0, 1], [2, 2]], np.uint8))


def test_decode_gives_the_value_of_each_index():
    np.testing.assert_array_equal(BOOK.decode(), np.float32([[-1, 0], [0.5, 0.5]]))


def test_what_obeys_has_no_violations():
    structure = Structure({"w": MASK}, {"w": BOOK})
    assert structure.violations({"w": BOOK.decode()}) == []
    assert structure.violations({"w": np.array([[-127, 0], [64, 64]], np.int8)}) == []
    assert structure.violations({"other": np.ones(3)}) == []


def test_each_broken_mask_and_codebook_is_named():
    structure = Structure({"m": MASK}, {"c": BOOK})
    found = structure.violations({"m": np.ones((2, 2)), "c": np.arange(4).reshape(2, 2)})
    assert found == [
        "m: 1 masked weights are not zero",
        "c: 4 distinct weights, but its codebook has 3",
    ]


def test_additions_leave_the_original_as_it_was():
    empty = Structure()
    fuller = empty.with_masks({"m": MASK}).with_codebooks({"c": BOOK})
    assert (len(empty.masks), len(empty.codebooks)) == (0, 0)
    assert (list(fuller.masks), list(fuller.codebooks)) == (["m"], ["c"])
    assert not fuller.without_codebook("c").codebooks


def test_folding_keeps_masks_and_drops_only_codebooks_whose_weights_were_rescaled():
    graph = parse_graph(
        "input x: float32[1,4]\nconstant v: float32[3,4]\nconstant w: float32[2,3]\n"
        "constant g: float32[2]\nconstant b: float32[2]\nconstant m: float32[2]\nconstant s: float32[2]\n"
        "a = linear(x, v)\nc = linear(a, w)\ny = batch_norm(c, g, b, m, s)\noutput y",
        {"s": np.ones(2, np.float32)},
    )
    masks = {"w": np.array([[True, False, True], [False, True, True]])}
    masked = graph.with_constants({"w": np.where(masks["w"], graph.constants["w"], np.float32(0))})
    folded = fold(masked)
    structure = fold_structure(Structure(masks, {"v": BOOK, "w": BOOK}), masked, folded)
    assert list(structure.codebooks) == ["v"]
    assert structure.without_codebook("v").violations(folded.constants) == []


SEVERAL = Codebook(np.float32([-1, 1, 0, 2, 4]), np.array([[0, 1], [1, 0], [2, 4]], np.uint8), (2, 3))


def test_each_codebook_of_a_tensor_is_judged_alone():
    structure = Structure(codebooks={"w": SEVERAL})
    np.testing.assert_array_equal(SEVERAL.owners, [[0, 0], [0, 0], [1, 1]])
    assert structure.violations({"w": SEVERAL.decode()}) == []
    assert structure.violations({"w": np.array([[1, 2], [2, 1], [7, 8]])}) == []  # four values, two a codebook
    assert structure.violations({"w": np.array([[1, 2], [3, 1], [7, 7]])}) == [
        "w: 3 distinct weights, but codebook 0 has 2"
    ]


def test_codebooks_of_one_channel_each_are_told_apart():
    assert not SEVERAL.is_per_channel  # the first two channels share one
    assert not BOOK.is_per_channel
    assert Codebook(np.float32([0, 1, 2, 3]), np.array([[0, 1], [2, 3]], np.uint8), (2, 2)).is_per_channel
    with pytest.raises(ValueError, match="3 values"):
        Codebook(np.zeros(3, np.float32), np.zeros(3, np.uint8), (1, 1))


def test_several_codebooks_are_saved_and_loaded():
    structure = Structure({"m": MASK}, {"w": SEVERAL, "c": BOOK})
    found = structure_from_arrays(structure_to_arrays(structure))
    assert {name: book.sizes for name, book in found.codebooks.items()} == {"w": (2, 3), "c": (3,)}
    np.testing.assert_array_equal(found.codebooks["w"].decode(), SEVERAL.decode())
