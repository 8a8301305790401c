"""A file cut between its ops computes what the whole computes, where it is given what the whole made."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.backends.qnn.htp_networks import small_network, written
from tests.ops.harness import Call, normal
from toolchain.backends.qnn.cut import cut_file
from toolchain.errors import UnsupportedError
from toolchain.formats.onnx.session import load_session, run_session


def run(content, feeds):
    session = load_session(content, 1, unsigned=True)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, run_session(session, names, feeds), strict=True))


def test_each_part_alone_gives_what_the_whole_gives():
    given = written(small_network(), normal(1, 3, 8, 8))
    cut = cut_file(given.content)
    feeds = dict(zip(given.model.graph.input_names, given.inputs[0], strict=True))
    whole = run(cut.whole, feeds)
    parts = run(cut.parts, feeds | {port: whole[name] for port, name in cut.given.items()})
    assert set(cut.tensors) <= set(whole) and set(cut.tensors) <= set(parts)
    assert len(cut.tensors) == sum(
        n.op_type == "QuantizeLinear" for n in onnx.load_from_string(given.content).graph.node
    )
    for name in cut.tensors:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_what_one_op_gets_wrong_reaches_no_other():
    given = written(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), normal(1, 3, 8, 8))
    cut = cut_file(given.content)
    feeds = dict(zip(given.model.graph.input_names, given.inputs[0], strict=True))
    whole = run(cut.whole, feeds)
    fed = {port: whole[name] for port, name in cut.given.items()}
    wrong = run(cut.parts, {key: np.zeros_like(array) for key, array in feeds.items()} | fed)
    last = given.model.graph.outputs[0]
    np.testing.assert_array_equal(wrong[last], whole[last])
    assert any((wrong[name] != whole[name]).any() for name in cut.tensors)


def test_an_output_that_is_read_on_is_given_too():
    def both(x):
        first = torch.nn.functional.max_pool2d(x, 2)
        return first, first.sigmoid()

    given = written(Call(both), normal(1, 3, 4, 4))
    cut = cut_file(given.content)
    first = given.model.graph.outputs[0]
    assert first in cut.tensors and first in cut.given.values()


def test_a_float_group_stays_whole():
    given = written(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Mish(), nn.Conv2d(4, 2, 1)), normal(1, 3, 4, 4))
    cut = cut_file(given.content)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.load_from_string(cut.parts).graph.input}
    assert onnx.TensorProto.FLOAT not in types.values()


def test_a_pointwise_depthwise_kernel_is_widened_with_zeros():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4).eval(), nn.Conv2d(4, 4, 1, groups=4))
    given = written(module, normal(1, 3, 6, 6))
    cut = cut_file(given.content)
    kernels = [
        list(attribute.ints)
        for node in onnx.load_from_string(cut.parts).graph.node
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    ]
    assert kernels == [[3, 3]] * 3
    feeds = dict(zip(given.model.graph.input_names, given.inputs[0], strict=True))
    whole = run(cut.whole, feeds)
    parts = run(cut.parts, feeds | {port: whole[name] for port, name in cut.given.items()})
    for name in cut.tensors:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_a_damaged_file_is_refused():
    with pytest.raises(UnsupportedError):
        cut_file(b"no file")
