"""The C headers of a model: a host compiler takes them as C99, C11 and C++11, and finds the very bytes in them."""

import shutil
import subprocess

import numpy as np
import pytest

from toolchain.devices.c_headers import GOLDEN_BYTES, HeaderSource, c_headers, identifier

FLAGS = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-unused-macros")
STANDARDS = {"c99": "gcc", "c11": "gcc", "c++11": "g++"}

# writes the model and every golden array to standard output, and fails where something is not aligned
MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "net_1.h"
#include "net_1_golden.h"

int main(void) {
  if ((uintptr_t)net_1_tflite % 16 != 0 || sizeof(net_1_tflite) != NET_1_BYTES) return 1;
  if (NET_1_ARENA_BYTES != 5120 || NET_1_OPERATORS != 2 || NET_1_GOLDEN_STEPS != 3) return 2;
  if (sizeof(net_1_input_0) != NET_1_GOLDEN_SAMPLES * NET_1_INPUT_0_SIZE) return 3;
  fwrite(net_1_tflite, 1, sizeof(net_1_tflite), stdout);
  fwrite(net_1_input_0, 1, sizeof(net_1_input_0), stdout);
  fwrite(net_1_output_0, 1, sizeof(net_1_output_0), stdout);
  fwrite(net_1_output_1, 1, sizeof(net_1_output_1), stdout);
  fwrite(net_1_output_2, 1, sizeof(net_1_output_2), stdout);
  return 0;
}
"""

RESOLVER = """
#include "net_1.h"
struct Resolver {
  int added = 0;
  void AddConv2D() { ++added; }
  void AddFullyConnected() { ++added; }
};
int main() {
  Resolver resolver;
  NET_1_ADD_OPERATORS(resolver);
  return resolver.added != NET_1_OPERATORS || net_1_tflite[0] != 7;
}
"""


def port(name: str, scale: float | None = None, zero_point: int = 0):
    return {"name": name, "scale": scale, "zero_point": zero_point}


def source(**changes) -> HeaderSource:
    random = np.random.default_rng(0)
    lowest = np.array([[-(2**31), 2**31 - 1, 0]] * 3, np.int32)
    reals = np.array([[0.1, 1.0, -3e-30], [np.inf, -np.inf, np.nan], [1e9, 16777216.0, -0.0]], np.float32)
    given = {
        "stem": "net-1",
        "content": bytes([7]) + random.bytes(1000),
        "operators": ["CONV_2D", "FULLY_CONNECTED", "CONV_2D"],
        "inputs": [random.integers(-128, 128, (3, 1, 5, 4)).astype(np.int8)],
        "outputs": [lowest, reals, np.array([[True], [False], [True]])],
        "input_ports": [port("image */ x", 0.25, -128)],
        "output_ports": [port("indices"), port("höhe"), port("is it?")],
        "steps": 3,
        "runtime": "tflite-micro 1",
        "arena_bytes": 5120,
    }
    return HeaderSource(**(given | changes))


def compiled(folder, standard: str, text: str, made: HeaderSource) -> subprocess.CompletedProcess[bytes]:
    compiler = shutil.which(STANDARDS[standard])
    if compiler is None:
        pytest.skip(f"no {STANDARDS[standard]} here")
    for name, content in c_headers(made).items():
        (folder / name).write_bytes(content)
    program = folder / ("main.cc" if standard.startswith("c++") else "main.c")
    program.write_text(text)
    flags = [f"-std={standard}", *FLAGS]
    subprocess.run([compiler, *flags, str(program), "-o", str(folder / "main")], check=True, capture_output=True)
    return subprocess.run([str(folder / "main")], check=False, capture_output=True)


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_host_compiler_finds_the_very_bytes(tmp_path, standard):
    made = source()
    ran = compiled(tmp_path, standard, MAIN, made)
    assert ran.returncode == 0
    arrays = [*made.inputs, *made.outputs]
    expected = [np.nan_to_num(array, nan=0) if array.dtype.kind == "f" else array for array in arrays]
    found = ran.stdout[len(made.content) :]
    assert ran.stdout[: len(made.content)] == made.content
    for array in expected:
        part, found = found[: array.nbytes], found[array.nbytes :]
        values = np.frombuffer(part, array.dtype).reshape(array.shape)
        # which NaN it is may differ
        values = np.nan_to_num(values, nan=0) if array.dtype.kind == "f" else values
        assert values.tobytes() == array.tobytes()
    assert found == b""


def test_a_resolver_is_given_the_operators_of_the_model_and_no_others(tmp_path):
    assert compiled(tmp_path, "c++11", RESOLVER, source()).returncode == 0


def test_an_operator_without_a_kernel_gives_no_macro():
    text = c_headers(source(operators=["CONV_2D", "GELU"]))["net_1.h"].decode()
    assert "ADD_OPERATORS" not in text and "/* operators: CONV_2D, GELU */" in text


def test_an_arena_that_is_not_known_is_not_named():
    assert "ARENA" not in c_headers(source(arena_bytes=None))["net_1.h"].decode()


def test_golden_samples_are_as_many_as_a_flash_has_room_for():
    large = np.zeros((8, 20_000), np.int8)
    made = source(
        inputs=[large], outputs=[np.zeros((8, 1), np.int8)], output_ports=[port("y")], input_ports=[port("x")]
    )
    text = c_headers(made)["net_1_golden.h"].decode()
    assert f"GOLDEN_SAMPLES {GOLDEN_BYTES // 20_001}\n" in text
    one = source(inputs=[np.zeros((2, 2**17), np.int8)], input_ports=[port("x")])
    assert "GOLDEN_SAMPLES 1\n" in c_headers(one)["net_1_golden.h"].decode()


def test_names_are_identifiers_and_comments_stay_closed():
    assert identifier("model") == "model" and identifier("a-b.c") == "a_b_c" and identifier("8bit") == "model_8bit"
    text = c_headers(source())["net_1_golden.h"].decode("ascii")
    assert "image * / x: int8[1,5,4], real = 0.25 * (q + 128)" in text
    assert "\\xf6" in text
