"""Files whose every op on integers stands between DequantizeLinear and QuantizeLinear, as compilers of NPUs read
them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.ops.harness import Call, normal, quantized, traced
from toolchain.engine.simulate import Simulator
from toolchain.formats.onnx import OnnxRunner, check_onnx, write_onnx
from toolchain.formats.onnx.reader import affine_uses
from toolchain.graph import DType
from toolchain.quantization import Scheme, quantize_inputs
from toolchain.validation.tensors import compare_tensors

IMAGE = normal(2, 4, 6, 8)
VECTOR = normal(3, 12)
KERNEL = torch.from_numpy(normal(4, 4, 3, 3))
ZEROS = torch.zeros(4, 1, 1)
INT16 = Scheme(activation_dtype=DType.INT16, activation_symmetric=True)

CASES = {
    "sub": (Call(lambda x, y: x - y), IMAGE, normal(2, 4, 6, 8, seed=1)),
    "sub relu": (Call(lambda x, y: functional.relu(x - y)), IMAGE, normal(2, 4, 6, 8, seed=1)),
    "relu": (Call(functional.relu), IMAGE),
    "relu6": (nn.ReLU6(), 4 * IMAGE),
    "clamp": (Call(lambda x: x.clamp(-1.0, 0.5)), IMAGE),
    "clamp from below": (Call(lambda x: x.clamp(min=-0.4)), IMAGE),
    "tanh": (nn.Tanh(), IMAGE),
    "sigmoid": (nn.Sigmoid(), IMAGE),
    "pad": (Call(lambda x: functional.pad(x, (1, 2, 0, 1), value=0.75)), IMAGE),
    "pad reflect": (Call(lambda x: functional.pad(x, (1, 2, 0, 1), mode="reflect")), IMAGE),
    "gather": (Call(lambda x: x[:, [2, 0, 1, 3]]), IMAGE),
    "expand": (Call(lambda x: x.expand(5, 3, 12)), VECTOR[None]),
    "slice": (Call(lambda x: x[:, 1:3, ::2]), IMAGE),
    "mean of rows": (Call(lambda x: x.mean(1)), IMAGE),
    "global mean": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "argmax": (Call(lambda x: x.argmax(1)), IMAGE),
    "pixel unshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "layer norm over two axes": (nn.LayerNorm((6, 8)), IMAGE),
    "add zeros": (Call(lambda x: functional.relu(functional.conv2d(x, KERNEL) * x[:, :, 1:5, 1:7] + ZEROS)), IMAGE),
    "linear of rank 3": (nn.Linear(8, 5), IMAGE[0]),
    "conv that relu6 clamps behind a concat": (
        Call(lambda x: torch.cat([functional.relu6(functional.conv2d(x, KERNEL, padding=1)), x], 1)),
        IMAGE,
    ),
}


def activations_outside_qdq(content: bytes) -> list[str]:
    """Nodes that read or make integers and are no conversion."""
    graph = onnx.load_from_string(content).graph
    conversions = {"QuantizeLinear", "DequantizeLinear"}
    integers = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    integers |= {value.name for value in graph.input if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT}
    return [node.name for node in graph.node if node.op_type not in conversions and integers & set(node.input)]


@pytest.mark.parametrize(("module", "inputs"), [(c[0], c[1:]) for c in CASES.values()], ids=CASES.keys())
def test_every_op_is_in_qdq_form_and_within_a_step(module, inputs):
    graph = traced(module, *inputs)
    model = quantized(graph, *inputs)
    content = write_onnx(model, qdq_only=True)
    assert check_onnx(content, model) == []
    assert activations_outside_qdq(content) == []
    for tensor in compare_tensors(model, [OnnxRunner(content, model)], [inputs]):
        assert all(steps <= 1 for steps in tensor.op_steps.values()), tensor


@pytest.mark.parametrize("name", ["sub", "tanh", "pad", "gather", "argmax", "mean of rows"])
def test_by_default_onnxruntime_has_its_integer_kernels(name):
    module, *inputs = CASES[name]
    model = quantized(traced(module, *inputs), *inputs)
    found, asked = write_onnx(model), write_onnx(model, qdq_only=True)
    assert found != asked
    assert OnnxRunner(found, model).executed_float_ops() == {}


@pytest.mark.parametrize("name", ["sub relu", "clamp", "pad", "gather", "linear of rank 3", "sigmoid"])
def test_int16_activations_are_uint16_and_mean_the_same(name):
    module, *inputs = CASES[name]
    model = quantized(traced(module, *inputs), *inputs, scheme=INT16)
    content = write_onnx(model, qdq_only=True)
    assert check_onnx(content, model) == []
    assert {value.type.tensor_type.elem_type for value in onnx.load_from_string(content).graph.input} == {
        onnx.TensorProto.UINT16
    }
    integers = quantize_inputs(model, inputs)
    (found,), exact = OnnxRunner(content, model).run(integers), Simulator(model).run(integers)[model.graph.outputs[0]]
    assert found.dtype == np.int16
    # float32 sums of a few products stray by less than two of 65,535 integers; a sigmoid is rounded twice
    assert np.abs(found.astype(int) - exact.astype(int)).max() <= 2


def test_a_sigmoid_of_16_bits_has_the_scale_that_qnn_gives_it_whatever_it_is_told():
    model = quantized(traced(nn.Sigmoid(), IMAGE), IMAGE, scheme=INT16)
    proto = onnx.load_from_string(write_onnx(model, qdq_only=True))
    (sigmoid,) = (node for node in proto.graph.node if node.op_type == "Sigmoid")
    (made,) = (node for node in proto.graph.node if node.input[0] == sigmoid.output[0])
    scales, zeros, *_ = affine_uses(proto)[made.output[0]][0]
    assert scales == (2.0**-16,) and zeros == (0,)


def test_nothing_of_a_reordered_space_to_depth_has_more_than_4_axes():
    model = quantized(traced(nn.PixelUnshuffle(2), IMAGE), IMAGE)
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(write_onnx(model, qdq_only=True)))
    assert max(len(value.type.tensor_type.shape.dim) for value in proto.graph.value_info) == 4


def test_a_sum_with_zeros_is_the_change_of_scale_alone():
    module, *inputs = CASES["add zeros"]
    proto = onnx.load_from_string(write_onnx(quantized(traced(module, *inputs), *inputs), qdq_only=True))
    assert "Add" not in {node.op_type for node in proto.graph.node}


def test_a_layer_norm_over_several_axes_is_one_over_the_last():
    module, *inputs = CASES["layer norm over two axes"]
    proto = onnx.load_from_string(write_onnx(quantized(traced(module, *inputs), *inputs), qdq_only=True))
    (norm,) = (node for node in proto.graph.node if node.op_type == "LayerNormalization")
    shapes = {v.name: v.type.tensor_type.shape.dim for v in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    (axis,) = (attribute.i for attribute in norm.attribute if attribute.name == "axis")
    assert axis == len(shapes[norm.input[0]]) - 1
