"""A model that is too large for a device is refused with what is needed, what there is, and the largest tensors."""

from __future__ import annotations

import pytest

from toolchain.errors import BudgetError
from toolchain.graph import fold, parse_graph
from toolchain.job import Request, prepare
from toolchain.profiles import check_flash, check_ram, load_profile
from toolchain.profiles.checks import largest_tensors

MICROCONTROLLERS = ("cortex-m4", "cortex-m7", "cortex-m55")

WIDE = """
input x: float32[1,3,224,224]
constant w: float32[32,3,3,3]
constant v: float32[96,32,1,1]
stem = conv2d(x, w) stride=(2,2) padding=(1,1,1,1)
wide = conv2d(stem, v)
y = relu6(wide)
output y
"""


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_activations_that_do_not_fit_are_named(name):
    profile = load_profile(name)
    with pytest.raises(BudgetError) as caught:
        check_ram(parse_graph(WIDE), profile, name)
    # wide and y meet, 96 x 112 x 112 bytes each
    assert f"needs {2 * 96 * 112 * 112:,} bytes" in caught.value.what
    assert f"{name} has {1024 * profile.memory.ram_kib:,} bytes of RAM" in caught.value.what
    assert "the largest are wide (1,204,224 bytes), y (1,204,224 bytes)" in caught.value.what


def test_weights_that_do_not_fit_are_named():
    profile = load_profile("cortex-m4")
    check_flash("model.tflite", 1024 * profile.memory.flash_kib, profile, "cortex-m4")
    with pytest.raises(BudgetError, match=r"2,097,152 bytes of flash; the largest are b \(7 bytes\), a \(1 bytes\)"):
        check_flash("model.tflite", 1 + 1024 * profile.memory.flash_kib, profile, "cortex-m4", {"a": 1, "b": 7})


def test_five_are_named_and_the_rest_counted():
    text = largest_tensors({str(size): size for size in range(1, 9)})
    assert text.startswith("the largest are 8 (8 bytes), 7") and text.endswith("4 (4 bytes) and 3 more")


@pytest.mark.slow
@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_efficientnet_fits_no_microcontroller(name, tmp_path):
    job = prepare(Request(model="efficientnet_lite0", target=name, out=tmp_path))
    traced = job.pipeline.stages[0](job.model.module)
    with pytest.raises(BudgetError, match=rf"needs 1,505,280 bytes .* {name} has [\d,]+ bytes of RAM; the largest are"):
        check_ram(fold(traced.graph), job.profile, name)
