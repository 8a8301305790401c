"""What the plugin counts as what, and what is made of its lines."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess

import pytest

from toolchain.devices.emulator.build import SOURCE
from toolchain.devices.emulator.counting import CLASSES, read_counts
from toolchain.errors import DeviceError

# as GNU as and Capstone have them
ENCODINGS = {
    "dot": {
        "sdot v0.4s, v1.16b, v2.16b": 0x4E829420,
        "udot v0.2s, v1.8b, v2.8b": 0x2E829420,
        "sdot v0.4s, v1.16b, v2.4b[0]": 0x4F82E020,
        "usdot v0.4s, v1.16b, v2.16b": 0x4E829C20,
        "sudot v14.4s, v15.16b, v9.4b[1]": 0x4F29F1EE,
        "bfdot v10.2s, v5.4h, v2.4h": 0x2E42FCAA,
    },
    "matrix_multiply": {
        "smmla v0.4s, v1.16b, v2.16b": 0x4E82A420,
        "ummla v6.4s, v18.16b, v31.16b": 0x6E9FA646,
        "usmmla v29.4s, v0.16b, v2.16b": 0x4E82AC1D,
        "bfmmla v4.4s, v10.8h, v8.8h": 0x6E48ED44,
    },
    "multiply_add": {
        "fmla v0.4s, v1.4s, v2.4s": 0x4E22CC20,
        "fmls v15.2s, v12.2s, v16.s[2]": 0x0F90598F,
        "fmla v0.8h, v1.8h, v2.8h": 0x4E420C20,
        "smlal v0.8h, v1.8b, v2.8b": 0x0E228020,
        "mla v4.4h, v22.4h, v7.h[0]": 0x2F4702C4,
        "mls v5.2s, v10.2s, v15.2s": 0x2EAF9545,
        "fmadd s0, s1, s2, s3": 0x1F020C20,
        "sqdmlal v10.2d, v23.2s, v7.s[3]": 0x0FA73AEA,
        "sqdmlal d2, s5, s26": 0x5EBA90A2,
        "sqrdmlah h19, h21, h10": 0x7E4A86B3,
        "bfmlalb v18.4s, v17.8h, v1.h[6]": 0x0FE1FA32,
        "fcmla v12.4h, v9.4h, v8.h[1], #270": 0x2F68712C,
    },
    "load_store": {"ldr x0, [x1]": 0xF9400020, "stp x29, x30, [sp, #-16]!": 0xA9BF7BFD, "ldr w6, [x22]": 0xB94002C6},
    "load_store_simd": {"ldr q0, [x0]": 0x3DC00000, "ld1 {v0.16b}, [x0]": 0x4C407000, "stp q0, q1, [x0]": 0xAD000400},
    "branch": {
        "b .": 0x14000000,
        "b.eq .": 0x54000000,
        "cbz x0, .": 0xB4000000,
        "ret": 0xD65F03C0,
        "svc #0": 0xD4000001,
    },
    "integer": {"add x0, x0, #1": 0x91000400, "madd x0, x1, x2, x3": 0x9B020C20, "mov x0, #1": 0xD2800020},
    "simd": {
        "smull v0.4s, v18.4h, v7.h[7]": 0x0F77AA40,
        "fmul v0.4s, v1.4s, v2.4s": 0x6E22DC20,
        "mul v1.4s, v6.4s, v15.s[0]": 0x4F8F80C1,
        "add v25.16b, v28.16b, v25.16b": 0x4E39879F,
        "fmov s0, #1.0": 0x1E2E1000,
        "movi v0.4s, #0": 0x4F000400,
        "sqrdmulh v0.4s, v1.4s, v2.4s": 0x6EA2B420,
        "an SVE instruction": 0x0418903B,
    },
}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """Compiled for this machine; what qemu has of it is not called."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: apt-get install gcc libc6-dev")
    path = tmp_path_factory.mktemp("plugin") / "plugin.so"
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-O2", "-fPIC", "-shared"]
    subprocess.run([compiler, *strict, "-o", str(path), str(SOURCE)], check=True)
    return ctypes.CDLL(str(path), mode=os.RTLD_LAZY)


@pytest.mark.parametrize("kind", ENCODINGS)
def test_instructions_are_of_their_class(plugin, kind):
    found = {text: CLASSES[plugin.classify(word)] for text, word in ENCODINGS[kind].items()}
    assert found == dict.fromkeys(ENCODINGS[kind], kind)


def test_every_class_is_tried():
    assert tuple(ENCODINGS) == CLASSES


def lines(**last: int) -> str:
    first = {name: 10 * at for at, name in enumerate(CLASSES)}
    second = {name: count + 1 for name, count in first.items()} | last
    return "".join(json.dumps({"mark": mark, **counts}) + "\n" for mark, counts in enumerate((first, second)))


ALONE = 'a notice\n{"own_ns": 1000000, "others_ns": 100}\n'


def test_counts_are_what_lies_between_the_markers():
    counts = read_counts(lines(dot=500), ALONE)
    assert counts.by_class == {"dot": 500} | dict.fromkeys(CLASSES[1:], 1)
    assert counts.total == 507


def test_a_kernel_that_tells_no_times_is_believed():
    assert read_counts(lines(), '{"own_ns": 0, "others_ns": 0}').total == 8


@pytest.mark.parametrize(
    ("written", "printed", "words"),
    [
        (lines().splitlines()[0], ALONE, "no whole counts"),
        ("", ALONE, "no whole counts"),
        (lines()[:-5], ALONE, "no whole counts"),
        (lines().replace("dot", "spot"), ALONE, "no whole counts"),
        (lines(), "", "no whole counts"),
        (lines(), "[]", "no whole counts"),
        (lines(), '{"own_ns": 1000, "others_ns": 500}', "other threads ran 50% as long"),
    ],
)
def test_other_lines_are_refused(written, printed, words):
    with pytest.raises(DeviceError, match=words):
        read_counts(written, printed)


def test_the_least_inference_behind_the_first_counts():
    one = lines().splitlines(keepends=True)
    dearer = lines(dot=500)
    assert read_counts(lines() + dearer + lines(dot=300), ALONE).by_class["dot"] == 300
    assert read_counts(dearer, ALONE).by_class["dot"] == 500
    with pytest.raises(DeviceError, match="markers are missing"):
        read_counts(lines() + one[0], ALONE)
