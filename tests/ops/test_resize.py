"""Upsampling and downsampling by nearest and linear, with both rules for corners."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import FLOAT_ERROR, Call, assert_close, check, eager, normal, operators, quantized, traced
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx import OnnxRunner, write_onnx
from toolchain.formats.tflite import TfliteRunner, write_tflite
from toolchain.graph import Op

IMAGE, SEQUENCE = normal(2, 4, 8, 6), normal(2, 4, 9)

SIZES = [{"scale_factor": 2}, {"scale_factor": (3, 2)}, {"scale_factor": 0.5}, {"size": (3, 11)}, {"size": (1, 1)}]
WRITTEN_OUT = [{"scale_factor": 1.7}, {"scale_factor": 0.6}]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "mode", [{"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}]
)
def test_images(mode, size):
    graph = check(Call(lambda x: F.interpolate(x, **size, **mode)), IMAGE, ops={Op.RESIZE})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize("size", WRITTEN_OUT)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "nearest-exact"])
def test_a_scale_factor_that_gives_no_whole_size_is_used_as_torch_does(mode, size):
    check(Call(lambda x: F.interpolate(x, mode=mode, **size)), IMAGE)
    check(Call(lambda x: F.interpolate(x, mode=mode, recompute_scale_factor=True, **size)), IMAGE)


@pytest.mark.parametrize("size", SIZES)
def test_nearest_exact(size):
    check(Call(lambda x: F.interpolate(x, mode="nearest-exact", **size)), IMAGE)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("size", [{"scale_factor": 2}, {"size": 5}])
def test_sequences(mode, size):
    graph = check(Call(lambda x: F.interpolate(x, mode=mode, **size)), SEQUENCE, ops={Op.RESIZE})
    assert "TRANSPOSE" not in operators(graph)


@pytest.mark.parametrize(
    "module",
    [nn.Upsample(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2), nn.UpsamplingNearest2d(size=(9, 9))],
)
def test_modules(module):
    check(module, IMAGE, ops={Op.RESIZE})


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_every_opset(opset):
    module = nn.Upsample(scale_factor=2, mode="bilinear")
    graph = traced(module, IMAGE)
    found = OnnxRunner(write_onnx(graph, opset=opset), graph).run([IMAGE])
    assert_close(found, eager(module, IMAGE), "onnxruntime", FLOAT_ERROR)


def test_bicubic_is_refused_in_words():
    with pytest.raises(UnsupportedError, match="bicubic"):
        traced(nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE)


@pytest.mark.parametrize("kernels", ["builtin", "reference"])
def test_plain_int8_kernels_are_not_trusted_where_their_step_drifts(kernels):
    """They step in 1/1024 of a pixel: twice as many pixels is exact, three times drifts by whole steps."""
    wide = normal(1, 2, 4, 200)
    for factor, trusted in ((2, True), (3, False)):
        graph = traced(nn.Upsample(scale_factor=factor, mode="bilinear"), wide)
        content = write_tflite(quantized(graph, wide))
        TfliteRunner(content)
        if trusted:
            TfliteRunner(content, kernels=kernels)
        else:
            with pytest.raises(UnsupportedError, match="RESIZE_BILINEAR"):
                TfliteRunner(content, kernels=kernels)
