"""CALIBRATION=: shipped sets, TOMLs, .npz files, folders of pictures, functions; and what each refuses."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolchain.errors import OptionError, ProfileError, SampleError
from toolchain.knowledge import find_shipped, load_toml, shipped_names
from toolchain.samples import CalibrationSpec, InputType, SampleSet, load_samples
from toolchain.samples.digits import load_digits
from toolchain.samples.spec import PhotographsSource

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


@pytest.mark.parametrize("name", shipped_names("calibration"))
def test_every_shipped_sample_set_loads_and_streams(name: str) -> None:
    samples = load_samples(name, calibration_count=5, judging_count=4, batch_size=3)
    assert samples.name == name
    assert [len(batch) for batch in samples.calibration()] == [3, 2]
    assert [len(batch) for batch in samples.judging()] == [3, 1]
    assert load_toml(find_shipped("calibration", name), CalibrationSpec).summary


def test_mnist_judges_on_digits_that_were_never_trained_on() -> None:
    samples = load_samples("mnist")
    assert (samples.calibration_count, samples.judging_count) == (200, 1000)
    digits = load_digits()
    assert set(samples.for_calibration.numbers) <= set(digits.training.tolist())
    assert set(samples.for_judging.numbers) == set(digits.judging.tolist())
    assert not set(digits.training) & set(digits.judging)
    batch = next(samples.judging())
    assert batch.inputs[0].shape == (32, 1, 28, 28) and batch.inputs[0].dtype == FLOAT
    assert batch.inputs[0].min() == 0 and batch.inputs[0].max() == 1
    assert batch.labels is not None and batch.labels.tolist() == digits.labels[digits.judging[:32]].tolist()
    error = refused(lambda: load_samples("mnist", judging_count=1001))
    assert error.what.startswith("fewer digits to judge with than asked for: 1000 found")


def test_photos_are_cropped_alike_each_time_and_judged_on_others() -> None:
    samples = load_samples("photos", calibration_count=12, judging_count=6)
    first, again = (np.concatenate([b.inputs[0] for b in samples.calibration()]) for _ in range(2))
    assert first.shape == (12, 3, 224, 224) and first.dtype == FLOAT
    assert np.array_equal(first, again)
    assert len({row.tobytes() for row in first}) == 12
    assert first.min() >= -127 / 128 and first.max() <= 1
    source = load_toml(find_shipped("calibration", "photos"), CalibrationSpec).source
    assert isinstance(source, PhotographsSource)
    assert not set(source.calibration_files) & set(source.judging_files)
    # The two pictures of the motorcycle are one scene: they may not be on both sides.
    assert sum("motorcycle" in file for file in source.judging_files) in (0, 2)
    other = load_samples("photos", calibration_count=12, judging_count=6, seed=1)
    assert other.digest != samples.digest
    assert not np.array_equal(next(other.calibration()).inputs[0], next(samples.calibration()).inputs[0])


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"samples_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def some():\n    for n in range(20):\n        yield np.float32([n])\n"
        "def nothing():\n    pass\n"
        "def fails():\n    raise KeyError('folder')\n"
    )
    monkeypatch.chdir(tmp_path)
    samples = load_samples(f"{name}:some", calibration_count=12)
    assert sorted(numbers(samples.calibration()) + numbers(samples.judging())) == list(range(20))
    assert samples.digest == load_samples(f"{name}:some", calibration_count=12).digest
    assert "type NoneType" in refused(lambda: load_samples(f"{name}:nothing")).what
    with pytest.raises(OptionError, match=f"sample set: {name}:fails raised KeyError: 'folder'") as caught:
        load_samples(f"{name}:fails")
    assert str(caught.value.where).endswith(f"{name}.py:8")


def test_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    base, labels = numbered(20, 2), np.arange(20, dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(path, image=base, mask=base[:, :1] * 3, labels=labels)
        samples = load_samples(path, batch_size=5)
        assert samples.name == "x"
        for batch in samples.judging():
            assert [value.shape[1:] for value in batch.inputs] == [(2,), (1,)]
            assert np.array_equal(batch.labels, batch.inputs[0][:, 0])
            assert np.array_equal(batch.inputs[0][:, :1] * 3, batch.inputs[1])
        assert sorted(numbers(samples.calibration()) + numbers(samples.judging())) == list(range(20))
        ordered = samples.checked(types(("mask", (1, 1), FLOAT), ("image", (1, 2), FLOAT)))
        assert [value.shape[1:] for value in next(ordered.calibration()).inputs] == [(1,), (2,)]
    digest = samples.digest
    np.savez(path, image=base + 1, mask=base[:, :1] * 3, labels=labels)
    assert load_samples(path).digest != digest
    np.savez(path, base)
    assert load_samples(path).for_calibration.rows.input_names == ()


def test_an_npz_is_streamed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.random.default_rng(0).random((400, 3, 64, 64), np.float32))
    tracemalloc.start()
    samples = load_samples(str(tmp_path / "x.npz"), batch_size=4)
    drain(samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20  # the array has 18.75 MiB


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": np.array([{}, {}])}, "the .npz holds 'x' of dtype object, no array of numbers"),
        (
            {"x": np.zeros((3, 2)), "y": np.zeros((4, 2))},
            "the .npz holds arrays of different numbers of samples",
        ),
        ({"x": np.float32(3)}, "the .npz holds 'x' without dimensions"),
        ({"x": np.asfortranarray(np.zeros((3, 2)))}, "the .npz holds 'x' in Fortran order"),
        ({"x": np.zeros((3, 2)), "labels": np.zeros(3)}, "the .npz holds labels that are no whole numbers"),
        ({"labels": np.zeros(3, int)}, "the .npz holds no array of samples"),
        ({"x": np.zeros((0, 2))}, "there are no samples"),
    ],
)
def test_an_npz_that_does_not_do(tmp_path: Path, arrays: dict[str, np.ndarray], what: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    assert refused(lambda: load_samples(tmp_path / "x.npz")).what.startswith(what)


def test_an_npz_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"no zip")
    assert "is no readable .npz" in refused(lambda: load_samples(path)).what
    np.savez(path, x=np.random.default_rng(0).random((50, 64)))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    assert "the .npz is damaged" in refused(lambda: drain(load_samples(path))).what
    with zipfile.ZipFile(path, "w") as archive:  # a header that promises more than there is
        header = np.lib.format.magic(1, 0) + b"\x76\x00"
        header += b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 3), }".ljust(117) + b"\n"
        archive.writestr("x.npy", header + bytes(24))
    assert "ends before its header says" in refused(lambda: drain(load_samples(path))).what


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two sub-folders, each of one colour, of several forms and modes."""
    for number in range(10):
        folder = tmp_path / "pictures" / ("bee" if number % 2 else "ant")
        folder.mkdir(parents=True, exist_ok=True)
        mode, colour = ("L", number * 20) if number < 2 else ("RGB", (number * 20, 0, 255))
        suffix = "jpg" if number == 3 else "PNG"
        Image.new(mode, (300 + number, 280), colour).save(folder / f"{number}.{suffix}", quality=100)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_of_pictures(pictures: Path) -> None:
    samples = load_samples(f"{pictures}/")
    assert samples.name == "pictures"
    assert (samples.calibration_count, samples.judging_count) == (8, 2)
    for batch in samples.calibration():
        assert batch.inputs[0].shape == (8, 3, 224, 224) and batch.labels is None
    blues = {float(row[2, 0, 0]) for batch in samples.judging() for row in batch.inputs[0]}
    assert blues <= {1.0, -127 / 128, (20 - 127) / 128}
    digest = samples.digest
    assert load_samples(pictures).digest == digest
    moved = pictures.rename(pictures.parent / "moved")
    assert load_samples(moved).digest == digest  # where the folder lies does not matter, what it holds does
    Image.new("RGB", (300, 280)).save(moved / "ant" / "4.PNG")
    assert load_samples(moved).digest != digest


def test_a_toml_for_pictures(pictures: Path) -> None:
    toml = pictures.parent / "mine.toml"
    toml.write_text(
        "calibration_count = 6\njudging_count = 4\n"
        '[source]\nkind = "images"\nfolder = "pictures"\nlabels = "folders"\n'
        "[preprocess]\nresize = 40\ncrop = [32, 24]\nmean = [0, 0, 0]\nstd = [255, 255, 255]\n"
    )
    samples = load_samples(toml)
    assert samples.name == "mine"
    seen = [
        (row, label) for batch in samples.judging() for row, label in zip(batch.inputs[0], batch.labels, strict=True)
    ]
    assert len(seen) == 4
    for row, label in seen:
        assert row.shape == (3, 32, 24)
        if row[2, 0, 0] > 0.99:  # one of the coloured ones: its red tells its number
            assert round(float(row[0, 0, 0]) * 255 / 20) % 2 == label
    gray = toml.read_text().replace("mean = [0, 0, 0]\nstd = [255, 255, 255]", 'channels = "gray"')
    toml.write_text(gray)
    assert next(load_samples(toml).calibration()).inputs[0].shape[1:] == (1, 32, 24)


def test_sub_folders_named_by_numbers_are_their_own_labels(tmp_path: Path) -> None:
    for name in ("2", "10"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "p" / name / "a.png")
    toml = tmp_path / "x.toml"
    toml.write_text('[source]\nkind = "images"\nfolder = "p"\nlabels = "folders"\n[preprocess]\nresize = 8\ncrop = 8\n')
    samples = load_samples(toml)
    labels = [*next(samples.calibration()).labels, *next(samples.calibration()).labels]  # type: ignore[misc]
    assert set(labels) <= {2, 10}


def test_pictures_that_do_not_do(pictures: Path, tmp_path: Path) -> None:
    (pictures / "ant" / "4.PNG").write_bytes(b"\x89PNG no more")
    error = refused(lambda: drain(load_samples(pictures)))
    assert error.what.startswith("a picture cannot be read") and str(error.where).endswith("4.PNG")
    (tmp_path / "empty").mkdir()
    assert refused(lambda: load_samples(tmp_path / "empty")).what == "there are no pictures"
    error = refused(lambda: load_samples(pictures, calibration_count=20))
    assert error.what.startswith("fewer samples than asked for: 10 found, but 20 to calibrate with")
    toml = tmp_path / "x.toml"
    toml.write_text('[source]\nkind = "images"\nfolder = "pictures"\nlabels = "folders"\n')
    Image.new("RGB", (9, 9)).save(pictures / "loose.png")
    assert "1 pictures lie in none, the first is loose.png" in refused(lambda: load_samples(toml)).what
    toml.write_text('[source]\nkind = "images"\nfolder = "no such folder"\n')
    with pytest.raises(OptionError, match="is no folder of pictures"):
        load_samples(toml)


def test_separate_judging_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", numbered(20))
    np.savez(tmp_path / "b.npz", numbered(6) + 100)
    toml = tmp_path / "x.toml"
    toml.write_text('judging_count = 5\n[source]\nkind = "npz"\nfile = "a.npz"\njudging_file = "b.npz"\n')
    samples = load_samples(toml)
    assert sorted(numbers(samples.calibration())) == list(range(20))
    assert len(numbers(samples.judging())) == 5 and min(numbers(samples.judging())) >= 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[source]\nkind = "npz"\nfile = "x.npz"\n[preprocess]\ncrop = 3\n',
            "preprocess: only for pictures; 'npz'",
        ),
        (
            '[source]\nkind = "images"\nfolder = "p"\n[preprocess]\ncorp = 3\n',
            "preprocess.corp: unknown key, did you mean 'crop'?",
        ),
        (
            '[source]\nkind = "images"\nfolder = "p"\n[preprocess]\nresize = 8\n',
            "preprocess: resize 8 is smaller than crop 224",
        ),
        ('[source]\nkind = "digits"\n[sauce]\n', "sauce: unknown key, did you mean 'source'?"),
        (
            'calibration_count = 0\n[source]\nkind = "digits"\n',
            "calibration_count: should be greater than 0, found 0",
        ),
        (
            '[source]\nkind = "photographs"\ncalibration_files = ["a/b.png"]\njudging_files = ["a/b.png"]\n',
            "source: photographs to judge with must not calibrate: a/b.png",
        ),
    ],
)
def test_a_toml_that_does_not_hold(tmp_path: Path, text: str, expected: str) -> None:
    toml = tmp_path / "x.toml"
    toml.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_samples(toml)
    assert caught.value.what.startswith(f"{toml}: {expected}")


def test_what_calibration_does_not_know() -> None:
    with pytest.raises(OptionError) as caught:
        load_samples("photo")
    assert caught.value.what == "no sample set is called 'photo'"
    assert "did you mean 'photos'?" in str(caught.value.hint)
    assert "an .npz, a folder of pictures or package.module:function" in str(caught.value.hint)
    with pytest.raises(OptionError, match=r"no\.npz does not exist"):
        load_samples("no.npz")
    with pytest.raises(OptionError, match="calibration_count is 0"):
        load_samples("mnist", calibration_count=0)


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    toml = tmp_path / "x.toml"
    toml.write_text(
        '[source]\nkind = "photographs"\n'
        'calibration_files = ["not_there/a.png"]\njudging_files = ["skimage/none.png"]\n'
    )
    with pytest.raises(OptionError) as caught:
        load_samples(toml)
    assert caught.value.what == "not_there/a.png needs the package 'not_there', which is not installed"
    assert caught.value.hint == 'pip install "edge-toolchain[zoo]"'
    toml.write_text(toml.read_text().replace("not_there/a.png", "skimage/data/cofee.png"))
    with pytest.raises(OptionError, match=r"the installed package 'skimage' holds no data/cofee\.png"):
        load_samples(toml)


def test_photographs_may_lie_beside_the_toml(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name, level in (("a", 10), ("b", 200)):
        Image.new("RGB", (64, 64), (level, level, level)).save(tmp_path / "own" / f"{name}.png")
    toml = tmp_path / "x.toml"
    toml.write_text(
        'calibration_count = 3\njudging_count = 2\n[source]\nkind = "photographs"\n'
        'calibration_files = ["own/a.png"]\njudging_files = ["own/b.png"]\n[preprocess]\ncrop = 32\nmean = 0\nstd = 1\n'
    )
    samples = load_samples(toml)
    assert [np.unique(next(part).inputs[0]).tolist() for part in (samples.calibration(), samples.judging())] == [
        [10.0],
        [200.0],
    ]


def test_samples_need_no_torch() -> None:
    code = (
        "import sys, numpy; from toolchain.samples import load_samples, samples_from; "
        "next(load_samples('mnist').calibration()); next(samples_from(numpy.zeros((9, 2))).judging()); "
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_the_schema_of_a_sample_set_can_be_printed() -> None:
    schema = CalibrationSpec.model_json_schema()
    assert set(schema["properties"]) >= {"source", "preprocess", "calibration_count", "judging_count"}
