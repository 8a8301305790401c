"""Damaged files of every kind end in one clear error or are read: never a traceback, never a dead process.

Each round flips bits, cuts, empties or splices one sound file; its seed is in the failure. Files are read and checked
here; what runs them does so in a process of its own (`toolchain.comparison`), whose death is an error too.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from toolchain import Calibrate, Quantize, Trace, compare_artifacts, load, samples_from
from toolchain.errors import ToolchainError
from toolchain.formats.onnx import check_onnx, read_onnx, write_onnx
from toolchain.formats.tflite import check_tflite, read_tflite, write_tflite
from toolchain.knowledge import load_toml
from toolchain.profiles import DeviceProfile
from toolchain.samples import CalibrationSpec
from toolchain.targets import Target
from toolchain.zoo.resolve import load_model

ROOT = Path(__file__).parent.parent
FAST_ROUNDS, SLOW_ROUNDS = 60, 1700
"""A kind; there are six kinds, so the long lane has more than 10,000 rounds."""


def damaged(content: bytes, seed: int) -> bytes:
    """One sound file in, another out."""
    rng = random.Random(seed)
    way = rng.random()
    if way < 0.05 or not content:
        return b""
    if way < 0.25:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed))
        if way < 0.7:
            changed[at] ^= 1 << rng.randrange(8)
        elif way < 0.9:
            changed[at] = rng.choice((0, 1, 127, 128, 255))
        else:
            length = rng.randrange(1, 16)
            changed[at : at + length] = changed[(start := rng.randrange(len(changed))) : start + length]
    return bytes(changed)


@dataclass(frozen=True)
class Kind:
    """A sound file and what reads one like it from a path."""

    content: bytes
    suffix: str
    read: Callable[[Path], object]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, Kind]:
    from tests.zoo.networks import build

    folder = tmp_path_factory.mktemp("sound")
    module, inputs = build("mnist", count=20)
    samples = samples_from(inputs, calibration_count=16)
    quantized = Quantize()(Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(module)))
    model = quantized.quantized
    small = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(small.eval(), (torch.zeros(1, 4),)), folder / "small.pt2")
    stage = folder / "stage"
    stage.mkdir()
    quantized.save(stage)

    def read_stage(path: Path) -> object:
        beside = path.with_suffix("")
        beside.mkdir(exist_ok=True)
        shutil.copy(stage / "arrays.safetensors", beside)
        shutil.copy(path, beside / "model.json")
        return load(beside)

    def read_onnx_file(path: Path) -> object:
        return read_onnx(path.read_bytes()), check_onnx(path.read_bytes(), model)

    def read_tflite_file(path: Path) -> object:
        return read_tflite(path.read_bytes()), check_tflite(path.read_bytes(), model)

    def read_tomls(path: Path) -> object:
        # each schema meets each file: what fits none is an error of each
        errors = []
        for schema in (Target, DeviceProfile, CalibrationSpec):
            try:
                return load_toml(path, schema)
            except ToolchainError as error:
                errors.append(error)
        raise errors[0]

    tomls = b"\n".join((ROOT / name).read_bytes() for name in ("device_profiles/ethos-u55-128.toml",))
    return {
        "onnx": Kind(write_onnx(model), ".onnx", read_onnx_file),
        "tflite": Kind(write_tflite(model), ".tflite", read_tflite_file),
        "toml": Kind(tomls, ".toml", read_tomls),
        "target": Kind((ROOT / "targets/arm64.toml").read_bytes(), ".toml", read_tomls),
        "pt2": Kind((folder / "small.pt2").read_bytes(), ".pt2", load_model),
        "stage": Kind((stage / "model.json").read_bytes(), ".json", read_stage),
    }


def fuzz(kind: Kind, folder: Path, seeds: range) -> None:
    for seed in seeds:
        path = folder / f"damaged{kind.suffix}"
        path.write_bytes(damaged(kind.content, seed))
        try:
            kind.read(path)
        except ToolchainError as error:
            assert error.what.strip(), f"seed {seed}: an error without words"
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


KINDS = ("onnx", "tflite", "toml", "target", "pt2", "stage")


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_end_in_one_clear_error(kinds, name, tmp_path):
    fuzz(kinds[name], tmp_path, range(FAST_ROUNDS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_files_end_in_one_clear_error(kinds, name, tmp_path):
    fuzz(kinds[name], tmp_path, range(FAST_ROUNDS, FAST_ROUNDS + SLOW_ROUNDS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_damaged_files_that_are_run_kill_no_process_but_their_own(kinds, name, tmp_path):
    kind = kinds[name]
    sound = tmp_path / f"sound{kind.suffix}"
    sound.write_bytes(kind.content)
    for seed in range(30):
        path = tmp_path / f"damaged{kind.suffix}"
        path.write_bytes(damaged(kind.content, seed))
        try:
            compare_artifacts(sound, path, 1)
        except ToolchainError as error:
            assert error.what.strip()
