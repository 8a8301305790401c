"""Targets and device profiles that extend another: tables are joined, the rest replaced, errors name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.errors import ProfileError
from toolchain.profiles import load_profile
from toolchain.targets import load_target

CPUS = ("raspberry-pi-4", "raspberry-pi-5", "android-arm64", "x86-64")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_target_takes_over_what_it_does_not_say(tmp_path):
    base, _ = load_target("arm64")
    text = """
description = "mine"
extends = "arm64"
formats = ["tflite"]
[gates]
sqnr_db = 25.0
[recipes]
float32 = []
[[recipes.quick]]
stage = "trace"
[[recipes.quick]]
stage = "export"
"""
    target, profile = load_target(written(tmp_path, "mine", text))
    assert target.description == "mine" and target.formats == ("tflite",) and profile == load_profile("cortex-a76")
    assert target.gates == base.gates.model_copy(update={"sqnr_db": 25.0})
    assert set(target.recipes) == set(base.recipes) - {"float32"} | {"quick"}
    assert target.recipes["default"] == base.recipes["default"] and target.left_out == base.left_out


def test_files_extend_files_beside_them_and_keep_their_devices(tmp_path):
    folder = tmp_path / "below"
    folder.mkdir()
    written(folder, "board", 'description = "b"\nextends = "cortex-a53"\n[memory]\nram_kib = 4\n')
    written(folder, "base", 'description = "base"\nextends = "arm64"\ndevice = "board.toml"\n')
    written(folder, "next", 'description = "next"\nextends = "base.toml"\nin_out = "float"\n')
    path = written(tmp_path, "mine", 'description = "mine"\nextends = "below/next.toml"\n')
    target, profile = load_target(path)
    assert target.in_out == "float" and profile.memory.ram_kib == 4 and profile.compute.clock_mhz == 1400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "arm64"\n', "mine.toml: description: this key is missing"),
        ('description = "d"\nextends = "arm46"\n', "mine.toml: extends: no target is called 'arm46'"),
        ('description = "d"\nextends = "none.toml"\n', "mine.toml: extends: target none.toml does not exist"),
        ('description = "d"\nextends = 3\ndevice = "cortex-a76"\n[recipes]\n', "mine.toml: extends: should be a text"),
        ('description = "d"\nextends = "mine.toml"\n', "extends this file in turn"),
        ('description = "d"\nextends = "arm64"\nformat = ["onnx"]\n', "mine.toml: format: unknown key, did you mean"),
        ('description = "d"\nextends = "arm64"\n[gates]\nsqnr = 3\n', "mine.toml: gates.sqnr: unknown key"),
        ('description = "d"\nextends = "arm64"\n[onnx]\nopset = 99\n', "mine.toml: onnx.opset"),
        ('description = "d"\nextends = "broken.toml"\n', "broken.toml: oops: unknown key"),
    ],
)
def test_what_does_not_hold_is_one_error_that_names_the_file(tmp_path, text, words):
    written(tmp_path, "broken", 'description = "d"\nextends = "arm64"\noops = 1\n')
    with pytest.raises(ProfileError) as caught:
        load_target(written(tmp_path, "mine", text))
    assert words in caught.value.what and "\n" not in caught.value.what


def test_a_circle_of_files_is_one_error(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        written(tmp_path, name, f'description = "d"\nextends = "{other}.toml"\n')
    with pytest.raises(ProfileError, match=r"c\.toml: extends: .*a\.toml extends this file in turn"):
        load_target(tmp_path / "a.toml")


@pytest.mark.parametrize("name", CPUS)
def test_targets_of_processors_offer_what_arm64_offers(name):
    base, target = load_target("arm64")[0], load_target(name)[0]
    assert (target.recipes, target.gates, target.formats) == (base.recipes, base.gates, base.formats)


def test_facts_of_processors():
    found = {name: load_profile(load_target(name)[0].device) for name in CPUS}
    dot_products = {name: profile.compute.int8_dot_product for name, profile in found.items()}
    assert dot_products == {name: name != "raspberry-pi-4" for name in CPUS}
    assert all("float16" in profile.quantization.formats for profile in found.values())
    rates = {name: profile.compute.int8_macs_per_cycle for name, profile in found.items()}
    assert rates == {"raspberry-pi-4": 8, "raspberry-pi-5": 32, "android-arm64": 16, "x86-64": 64}
