"""Operators of a file: attributes, feature maps, and multiply-accumulates that are those of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.ops.harness import normal, quantized, traced
from toolchain.backends.vela.dtypes import check_dtypes
from toolchain.backends.vela.operators import VALID, FileOperator, read_operators
from toolchain.errors import UnsupportedError
from toolchain.formats.tflite import write_tflite
from toolchain.graph import WEIGHTED, Op
from toolchain.graph.cost import node_costs
from toolchain.quantization import NumberFormat, Scheme

X = normal(1, 8, 9, 9)
LAYERS = {
    "conv": nn.Conv2d(8, 6, 3, 2, 1),
    "groups": nn.Conv2d(8, 6, 3, groups=2),
    "depthwise": nn.Conv2d(8, 16, 3, groups=8, dilation=2),
    "transposed": nn.ConvTranspose2d(8, 4, 2, 2),
    "linear": nn.Linear(9, 5),
    "matmul": lambda x: x @ x,
    "transposed matmul": lambda x: x.transpose(2, 3) @ x,
}


def operators_of(made, *inputs: np.ndarray, scheme: Scheme | None = None) -> tuple[FileOperator, ...]:
    graph = traced(made, *(inputs or (X,)))
    return read_operators(write_tflite(quantized(graph, *(inputs or (X,)), scheme=scheme)))


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_accumulates_are_those_of_the_graph(name: str) -> None:
    graph = traced(LAYERS[name], X)
    found = sum(operator.macs for operator in operators_of(LAYERS[name]))
    assert found == sum(cost.macs for cost in node_costs(graph) if cost.op in WEIGHTED | {Op.MATMUL}) > 0


def test_attributes_and_feature_maps() -> None:
    conv = next(operator for operator in operators_of(nn.Conv2d(8, 6, (3, 2), (2, 1))) if operator.op == "CONV_2D")
    assert conv.attributes == {"padding": VALID, "stride_h": 2, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}
    assert [facts.shape for facts in conv.feature_maps] == [(1, 9, 9, 8)]
    assert conv.weight is not None and conv.weight.shape == (6, 3, 2, 8) and conv.name == "conv2d"
    (add,) = operators_of(lambda x: x + x.tanh())[-1:]
    assert add.op == "ADD" and len(add.feature_maps) == 2 and add.weight is None and add.macs == 0


def test_4_bit_weights_are_refused_before_vela_dies_of_them() -> None:
    found = operators_of(nn.Conv2d(8, 6, 3), scheme=Scheme().with_numbers(NumberFormat.W4A8))
    with pytest.raises(UnsupportedError, match=r"4 bits.*\n.*CONV_2D conv2d: weight is int4") as caught:
        check_dtypes("model.tflite", found)
    assert caught.value.hint and "w8a8" in caught.value.hint


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (NumberFormat.FLOAT32, "computes in float: nothing of it would run on the NPU"),
        (NumberFormat.DYNAMIC_INT8, r"integer weights but float activations \(dynamic range\)"),
        (NumberFormat.FLOAT16_WEIGHTS, "computes in float"),
    ],
)
def test_float_activations_are_refused_before_vela_makes_nothing_of_them(numbers: NumberFormat, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        check_dtypes("model.tflite", operators_of(nn.Conv2d(8, 6, 3), scheme=Scheme().with_numbers(numbers)))


def test_parts_in_float_are_no_reason_to_refuse_a_file() -> None:
    check_dtypes("model.tflite", operators_of(lambda x: (x + 1).sin()))
    check_dtypes("model.tflite", operators_of(torch.relu))


def test_sparse_weights_are_refused_as_vela_would_read_them_wrongly() -> None:
    layer = nn.Conv2d(3, 8, 3, 2, 1)
    with torch.no_grad():
        layer.weight *= (torch.arange(216).reshape(8, 3, 3, 3) % 20 == 0).float()
    x = normal(1, 3, 16, 16)
    from toolchain.formats.artifact import SparseWeights

    content = write_tflite(quantized(traced(layer, x), x), sparse=SparseWeights.SMALLER)
    with pytest.raises(UnsupportedError, match="stores weights without their zeros"):
        check_dtypes("model.tflite", read_operators(content))
