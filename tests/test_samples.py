"""Sample sets of Python values: streamed, kept apart, checked, and refused with one clear message."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from toolchain.errors import OptionError, SampleError
from toolchain.samples import InputType, SampleSet, samples_from

FLOAT = np.dtype(np.float32)


def numbered(count: int, *shape: int) -> np.ndarray:
    """(count, *shape) float32 in which every value of a sample is its number, so that it can be told."""
    shape = shape or (3,)
    return np.broadcast_to(np.arange(count, dtype=np.float32).reshape(-1, *[1] * len(shape)), (count, *shape)).copy()


def numbers(batches: Iterator[Any]) -> list[int]:
    return [int(row.flat[0]) for batch in batches for row in batch.inputs[0]]


def types(*inputs: tuple[str, tuple[int, ...], Any]) -> list[InputType]:
    return [InputType(name, shape, np.dtype(dtype)) for name, shape, dtype in inputs]


def refused(call: Any) -> SampleError:
    with pytest.raises(SampleError) as caught:
        call()
    error = caught.value
    assert error.exit_code == 8
    assert error.where and error.hint, "a message says what, where and what to do"
    return error


def drain(samples: SampleSet) -> None:
    for batches in (samples.calibration(), samples.judging()):
        for _ in batches:
            pass


# --- the two parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: numbered(50),
        lambda: torch.from_numpy(numbered(50)),
        lambda: {"x": numbered(50)},
        lambda: list(numbered(50)),
        lambda: [(row,) for row in numbered(50)],
        lambda: [{"x": torch.from_numpy(row)} for row in numbered(50)],
        lambda: (row for row in numbered(50)),
        lambda: iter(list(numbered(50))),
        lambda: DataLoader(TensorDataset(torch.from_numpy(numbered(50))), batch_size=7, shuffle=True),
        lambda: DataLoader(TensorDataset(torch.from_numpy(numbered(50))), batch_size=None),
        lambda: TensorDataset(torch.from_numpy(numbered(50))),
    ],
    ids=[
        "array",
        "tensor",
        "dict",
        "list",
        "tuples",
        "dicts",
        "generator",
        "iterator",
        "loader",
        "unbatched",
        "dataset",
    ],
)
def test_parts_share_no_sample_and_every_call_starts_anew(make: Any) -> None:
    samples = samples_from(make(), batch_size=8)
    calibration, judging = numbers(samples.calibration()), numbers(samples.judging())
    assert (samples.calibration_count, samples.judging_count) == (len(calibration), len(judging)) == (40, 10)
    assert sorted(calibration + judging) == list(range(50))
    assert numbers(samples.calibration()) == calibration
    assert numbers(samples.judging()) == judging
    first, second = samples.calibration(), samples.calibration()  # two readers do not disturb each other
    pairs = zip(first, second, strict=True)
    assert all(np.array_equal(a.inputs[0], b.inputs[0]) for a, b in pairs)


def test_batches_have_the_size_asked_for_but_the_last() -> None:
    samples = samples_from(numbered(50, 2, 3), batch_size=16)
    assert [batch.inputs[0].shape for batch in samples.calibration()] == [(16, 2, 3), (16, 2, 3), (8, 2, 3)]
    assert [len(batch) for batch in samples.with_batch_size(40).calibration()] == [40]
    assert samples.first_inputs()[0].shape == (1, 2, 3)
    with pytest.raises(OptionError, match="batch size 0"):
        samples.with_batch_size(0)


def test_the_seed_decides_which_samples_are_kept_apart() -> None:
    one, again, other = (samples_from(numbered(50), seed=seed) for seed in (1, 1, 2))
    assert numbers(one.judging()) == numbers(again.judging()) != numbers(other.judging())


@pytest.mark.parametrize(
    ("available", "asked", "expected"),
    [
        (5000, (None, None), (200, 1000)),
        (220, (None, None), (176, 44)),
        (1, (None, None), (1, 0)),
        (50, (45, None), (45, 5)),
        (50, (None, 45), (5, 45)),
        (50, (10, 0), (10, 0)),
    ],
)
def test_counts(available: int, asked: tuple[int | None, int | None], expected: tuple[int, int]) -> None:
    samples = samples_from(numbered(available), calibration_count=asked[0], judging_count=asked[1])
    assert (samples.calibration_count, samples.judging_count) == expected


def test_judging_samples_of_ones_own() -> None:
    samples = samples_from(numbered(9), judging=(row + 100 for row in numbered(4)))
    assert numbers(samples.calibration()) == list(range(9))
    assert numbers(samples.judging()) == [100, 101, 102, 103]
    error = refused(lambda: samples_from(numbered(9), judging=numbered(4), judging_count=5))
    assert error.what == "fewer samples than asked for: 4 found, 5 asked for"


def test_a_set_may_be_narrowed() -> None:
    whole = samples_from(numbered(50))
    narrow = samples_from(whole, calibration_count=3, judging_count=2)
    assert numbers(narrow.calibration()) == numbers(whole.calibration())[:3]
    assert refused(lambda: whole.narrowed(41, None)).what.startswith("fewer samples than asked for: 40 found, 41")


def test_an_endless_generator_is_read_as_far_as_the_counts_need() -> None:
    drawn = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal drawn
        while True:
            drawn += 1
            yield np.float32([drawn])

    samples = samples_from(endless(), calibration_count=5, judging_count=4)
    assert sorted(numbers(samples.calibration()) + numbers(samples.judging())) == list(range(1, 10))
    assert drawn == 9


# --- memory ------------------------------------------------------------------------------------------------


def peak_bytes(count: int, streamed: Any) -> int:
    tracemalloc.start()
    try:
        samples = samples_from(streamed(count), calibration_count=count - 10, judging_count=10, batch_size=4)
        drain(samples)
        samples.digest  # noqa: B018  the digest must not gather the samples either
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_thousand_samples_need_no_more_memory_than_a_hundred() -> None:
    def generated(count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            yield np.full((3, 64, 64), number, np.float32)  # 48 KiB each: 47 MiB in all

    few, many = peak_bytes(100, generated), peak_bytes(1000, generated)
    # What grows are the numbers, labels and hashes of the samples: well under 1 KiB each.
    assert many - few < 900 * 1024
    assert many < 2 * 2**20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b") as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full)
        error = refused(lambda: samples_from(iter(numbered(9))))
        full.raw.close()  # what could not be written cannot be flushed either
    assert error.what.startswith("samples could not be written to a temporary file: ")
    assert "No space left" in error.what and "TMPDIR" in str(error.hint)


# --- digests -----------------------------------------------------------------------------------------------


def test_a_digest_tells_whatever_determines_the_samples() -> None:
    base = numbered(20)
    digest = samples_from(base).digest
    assert len(digest) == 64
    assert samples_from(base.copy()).digest == digest
    changed = base.copy()
    changed[7, 1] += 1e-3
    others = {
        "content": samples_from(changed),
        "labels": samples_from((base, np.arange(20))),
        "other labels": samples_from((base, np.arange(20)[::-1])),
        "seed": samples_from(base, seed=1),
        "counts": samples_from(base, calibration_count=10),
        "dtype": samples_from(base.astype(np.float64)),
        "shape": samples_from(base.reshape(20, 3, 1)),
        "names": samples_from({"x": base}),
    }
    digests = {name: samples.digest for name, samples in others.items()}
    assert len({digest, *digests.values()}) == 1 + len(others), digests
    assert samples_from(base, batch_size=3) == samples_from(base)
    assert hash(samples_from(base)) == hash(samples_from(base))
    assert samples_from(base) != others["content"]


def test_a_generator_has_the_digest_of_its_content() -> None:
    one, again = (samples_from(row for row in numbered(20)) for _ in range(2))
    other = samples_from(row + 1 for row in numbered(20))
    assert one.digest == again.digest != other.digest


# --- labels and several inputs -----------------------------------------------------------------------------


def test_labels_follow_their_samples() -> None:
    base, labels = numbered(20), np.arange(20) * 2
    tensors = TensorDataset(torch.from_numpy(base), torch.from_numpy(labels))
    made = [
        (base, labels),
        (torch.from_numpy(base), torch.from_numpy(labels)),
        {"x": base, "labels": labels},
        list(zip(base, labels, strict=True)),
        [(row, int(label)) for row, label in zip(base, labels, strict=True)],
        ((row, int(label)) for row, label in zip(base, labels, strict=True)),
        [{"x": row, "label": label} for row, label in zip(base, labels, strict=True)],
        DataLoader(tensors, batch_size=6),
        tensors,
    ]
    for values in made:
        batches = list(samples_from(values, batch_size=8).calibration())
        assert len(batches) == 2
        for batch in batches:
            assert len(batch.inputs) == 1
            assert batch.labels is not None and batch.labels.dtype == np.int64
            assert np.array_equal(batch.labels, batch.inputs[0][:, 0] * 2)


def test_two_inputs_are_not_taken_for_a_label() -> None:
    pairs = [(np.float32([n, n]), np.float32([n])) for n in range(10)]
    batch = next(samples_from(pairs).calibration())
    assert [value.shape for value in batch.inputs] == [(8, 2), (8, 1)]
    assert batch.labels is None
    counted = [(np.float32([n, n]), n) for n in range(10)]
    batch = next(samples_from(counted, labelled=False).calibration())
    assert len(batch.inputs) == 2 and batch.labels is None


def test_named_inputs_are_put_in_the_models_order() -> None:
    rows = [{"mask": np.float32([n]), "image": np.float32([n, n])} for n in range(10)]
    rows[3] = dict(reversed(rows[3].items()))  # a dict may change its own order
    wanted = types(("image", (1, 2), FLOAT), ("mask", (1, 1), FLOAT))
    for values in (rows, (row for row in rows)):
        for batch in samples_from(values).checked(wanted).calibration():
            assert [value.shape[1:] for value in batch.inputs] == [(2,), (1,)]


# --- checks ------------------------------------------------------------------------------------------------


def test_names_that_fit_only_in_part_are_refused() -> None:
    values = {"a": numbered(10), "c": numbered(10)}
    wanted = types(("a", (1, 3), FLOAT), ("b", (1, 3), FLOAT))
    assert "'a', 'c'" in refused(lambda: drain(samples_from(values).checked(wanted))).what


def test_what_is_nested_is_taken_apart_under_the_names_of_a_graphs_inputs() -> None:
    ids, mask = np.zeros((3, 4), np.int64), np.ones((3, 4), bool)
    values = [{"batch": {"ids": i, "masks": [m, m]}, "label": 1} for i, m in zip(ids, mask, strict=True)]
    found = samples_from(values)
    assert found.input_names == ("batch_ids", "batch_masks_0", "batch_masks_1")
    batch = next(found.calibration())
    assert [array.dtype.name for array in batch.inputs] == ["int64", "bool", "bool"]
    assert batch.labels is not None


def test_masks_of_0_and_1_are_booleans_and_others_are_not() -> None:
    zeros_and_ones = np.array([[0, 1, 1]] * 5)
    batch = next(checked(zeros_and_ones, (1, 3), np.dtype(bool)).calibration())
    assert batch.inputs[0].dtype == bool
    refused(lambda: drain(checked(2 * zeros_and_ones, (1, 3), np.dtype(bool))))


def checked(values: Any, shape: tuple[int, ...], dtype: Any = FLOAT) -> SampleSet:
    return samples_from(values).checked(types(("x", shape, dtype)))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("int64", "int32"),
    ],
)
def test_what_loses_nothing_is_cast(found: str, wanted: str) -> None:
    batch = next(checked(numbered(10).astype(found), (1, 3), wanted).calibration())
    assert batch.inputs[0].dtype == np.dtype(wanted)


def test_a_batch_dimension_of_one_may_be_left_on() -> None:
    batch = next(checked([row[None] for row in numbered(10)], (1, 3)).calibration())
    assert batch.inputs[0].shape == (8, 3)


@pytest.mark.parametrize(
    ("values", "shape", "dtype", "what", "hint"),
    [
        (
            numbered(10, 3, 8, 9),
            (1, 3, 8, 8),
            FLOAT,
            "a sample for input 'x' has shape (3, 8, 9), but (3, 8, 8) is what the model takes",
            "resize or crop",
        ),
        (
            numbered(10, 8, 8, 3),
            (1, 3, 8, 8),
            FLOAT,
            "a sample for input 'x' has shape (8, 8, 3), but (3, 8, 8) is what the model takes",
            "look like (H, W, C): transpose",
        ),
        (
            list(numbered(40).reshape(10, 4, 3)),
            (1, 3),
            FLOAT,
            "a sample for input 'x' has shape (4, 3), but (3,) is what the model takes",
            "batched=True",
        ),
        (
            numbered(10).astype(np.int64),
            (1, 3),
            FLOAT,
            "a sample for input 'x' has dtype int64, but the input takes float32",
            "convert the samples to float32",
        ),
        (
            numbered(10),
            (1, 3),
            np.int64,
            "a sample for input 'x' has dtype float32, but the input takes int64",
            "convert the samples to int64",
        ),
        (
            numbered(10).astype(np.int64) + 2**40,
            (1, 3),
            np.int32,
            "a sample for input 'x' has int64 values that do not fit int32",
            "convert",
        ),
        (
            numbered(10).astype(np.float64) + 1e300,
            (1, 3),
            FLOAT,
            "a sample for input 'x' holds 3 infinite values, the first at index (0,)",
            "leave such samples out",
        ),
    ],
    ids=["shape", "channels last", "batches", "wide integers", "floats", "overflow", "infinite"],
)
def test_a_wrong_sample_is_one_message(values: Any, shape: tuple[int, ...], dtype: Any, what: str, hint: str) -> None:
    error = refused(lambda: drain(checked(values, shape, dtype)))
    assert error.what == what
    assert str(error.where).startswith("sample ") and "sample set 'samples'" in str(error.where)
    assert hint in str(error.hint)


def test_not_a_number_is_told_with_its_sample_and_place() -> None:
    values = numbered(10, 2, 2)
    values[6, 1, 0] = np.nan
    values[6, 1, 1] = np.inf
    error = refused(lambda: drain(samples_from(values)))
    assert error.what == "a sample for input '0' holds 1 NaN and 1 infinite values, the first at index (1, 0)"
    assert error.where == "sample 6, sample set 'samples'"


def test_a_sample_with_too_many_inputs() -> None:
    values = [(row, row) for row in numbered(10)]
    error = refused(lambda: drain(checked(values, (1, 3))))
    assert error.what == "a sample holds 2 arrays, but the model takes 1 (x)"
    assert "labelled=True" in str(error.hint)


@pytest.mark.parametrize("values", [[], np.zeros((0, 3)), iter(()), {"x": np.zeros((0, 2))}, ()])
def test_no_samples(values: Any) -> None:
    assert refused(lambda: samples_from(values)).what == "there are no samples"


@pytest.mark.parametrize("make", [lambda: numbered(50), lambda: iter(numbered(50))])
def test_fewer_samples_than_asked_for(make: Any) -> None:
    error = refused(lambda: samples_from(make(), calibration_count=45, judging_count=10))
    assert error.what == (
        "fewer samples than asked for: 50 found, but 45 to calibrate with and 10 to judge with are needed"
    )
    assert "lower calibration_count" in str(error.hint)


def test_nothing_to_judge_with_is_told_when_asked() -> None:
    samples = samples_from(numbered(1))
    assert len(next(samples.calibration())) == 1
    assert refused(lambda: next(samples.judging())).what == "there is no sample to judge with"


def fails_midway() -> Iterator[np.ndarray]:
    yield np.float32([1])
    raise ValueError("camera unplugged")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: 3, "samples of type int cannot be iterated over"),
        (lambda: ["a", "b"], "a sample is no array of numbers but of type str"),
        (lambda: [np.array(["a"])], "a sample is no array of numbers but of dtype <U1"),
        (lambda: [[[1, 2], [3]]], "a sample is no array: "),
        (lambda: [None, None], "a sample is no array of numbers but of type NoneType"),
        (lambda: [()], "a sample holds no array"),
        (fails_midway, "the samples could not be read: ValueError: camera unplugged"),
        (
            lambda: (np.zeros(n + 1) for n in range(3)),
            "a sample is float64 of shape (2,), but the first is float64 of",
        ),
        (lambda: [np.zeros(3), np.zeros(4)], "a sample for input '0' has shape"),
        (lambda: [{"a": np.zeros(3)}, {"b": np.zeros(3)}], "a sample names its arrays"),
        (
            lambda: {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))},
            "arrays of different numbers of samples: {'a': 3, 'b': 4}",
        ),
        (
            lambda: {"a": np.zeros((3, 2)), "labels": np.zeros(3)},
            "a label has dtype float64, but a class number is whole",
        ),
        (lambda: [(np.zeros(3), 1), np.zeros(3)], "some samples have a label and others have none"),
        (
            lambda: [{"x": np.zeros(3), "label": np.zeros(2, int)}],
            "a label has shape (2,), but is one whole number",
        ),
    ],
)
def test_what_cannot_be_samples(make: Any, what: str) -> None:
    error = refused(lambda: drain(samples_from(make())))
    assert error.what.startswith(what)


def test_batches_that_do_not_agree() -> None:
    batches = iter([(np.zeros((4, 2)), np.zeros((3, 2)))])
    error = refused(lambda: samples_from(batches, batched=True))
    assert error.what == "a batch holds arrays of shapes (4, 2), (3, 2), which do not begin with the same N"
