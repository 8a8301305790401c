"""Every ATen op that the tracer knows, through a small module: what is traced computes what torch does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from toolchain.engine.run import run, to_tensors
from toolchain.engine.tracing.aten import ATEN_RULES, IDENTITIES, RESHAPES
from toolchain.engine.tracing.tracer import export, trace
from toolchain.errors import UnsupportedError
from toolchain.graph import Op

aten = torch.ops.aten


class Fn(nn.Module):
    """A function of the input; `layers` are what it may call."""

    def __init__(self, function: Callable, *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def norm(kind=nn.BatchNorm2d, **options) -> nn.Module:
    layer = kind(4, **options)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return layer


IMAGE, ODD, ROW, ROWS = (2, 4, 8, 6), (2, 4, 7, 5), (3, 8), (2, 5, 8)

# (ATen op, module, input shape); the op must be in the program, or the case tests nothing
CASES: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("conv2d", nn.Conv2d(4, 6, 3), IMAGE),
    ("conv2d", nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(2, 1), bias=False), IMAGE),
    ("conv2d", nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, groups=4), IMAGE),
    ("conv2d", nn.Conv2d(4, 12, 3, groups=4, padding=1), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 2, padding="same"), IMAGE),
    ("conv2d", nn.Conv2d(4, 4, 3, padding="valid"), IMAGE),
    ("linear", nn.Linear(8, 5), ROW),
    ("linear", nn.Linear(8, 5, bias=False), ROWS),
    ("linear", nn.Linear(6, 5), IMAGE),
    ("batch_norm", norm(), IMAGE),
    ("batch_norm", norm(affine=False), IMAGE),
    ("batch_norm", norm(eps=0.1), IMAGE),
    ("batch_norm", norm(nn.BatchNorm1d), (3, 4)),
    ("relu", Fn(lambda x: x.relu()), IMAGE),
    ("relu6", Fn(aten.relu6), IMAGE),
    ("hardtanh", Fn(lambda x: F.hardtanh(x, 0, 6)), IMAGE),
    ("clamp", Fn(lambda x: x.clamp(0, 6)), IMAGE),
    ("clamp", Fn(lambda x: x.clamp(min=0)), IMAGE),
    ("clamp_min", Fn(lambda x: x.clamp_min(0.0)), IMAGE),
    ("leaky_relu", Fn(F.leaky_relu), IMAGE),
    ("leaky_relu", nn.LeakyReLU(0.3), IMAGE),
    ("sigmoid", nn.Sigmoid(), IMAGE),
    ("tanh", nn.Tanh(), IMAGE),
    ("hardswish", nn.Hardswish(), IMAGE),
    ("hardsigmoid", nn.Hardsigmoid(), IMAGE),
    ("silu", nn.SiLU(), IMAGE),
    ("softmax", nn.Softmax(dim=-1), ROW),
    ("softmax", Fn(lambda x: F.softmax(x, dim=1)), IMAGE),
    ("add", Fn(lambda x: x + 1.5), IMAGE),
    ("add", Fn(lambda x: torch.add(x, x.relu(), alpha=0.5)), IMAGE),
    ("sub", Fn(lambda x: x.relu() - x), IMAGE),
    ("sub", Fn(lambda x: torch.sub(x, x.relu(), alpha=3)), IMAGE),
    ("rsub", Fn(lambda x: 2 - x), IMAGE),
    ("rsub", Fn(lambda x: torch.rsub(x, x.relu(), alpha=2)), IMAGE),
    ("mul", Fn(lambda x: 3 * x * x.relu()), IMAGE),
    ("div", Fn(lambda x: x / 4), IMAGE),
    ("max_pool2d", nn.MaxPool2d(2), IMAGE),
    ("max_pool2d", nn.MaxPool2d(3, stride=2, padding=1), ODD),
    ("max_pool2d", nn.MaxPool2d(2, ceil_mode=True), ODD),
    ("max_pool2d", nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    ("max_pool2d", nn.MaxPool2d((3, 2), stride=(3, 1), padding=(1, 0), ceil_mode=True), ODD),
    ("avg_pool2d", nn.AvgPool2d(2), IMAGE),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1), ODD),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), ODD),
    ("avg_pool2d", nn.AvgPool2d(2, ceil_mode=True), ODD),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d(1), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((None, 1)), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d(1), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d((2, 3)), IMAGE),
    ("mean", Fn(lambda x: x.mean()), IMAGE),
    ("mean", Fn(lambda x: x.mean(dim=(-1, 1), keepdim=True)), IMAGE),
    ("mean", Fn(lambda x: x.mean(2)), IMAGE),
    ("permute", Fn(lambda x: x.permute(0, -1, 1, 2)), IMAGE),
    ("transpose", Fn(lambda x: x.transpose(-1, 1)), IMAGE),
    ("t", Fn(lambda x: x.t()), ROW),
    ("cat", Fn(lambda x: torch.cat([x, x.relu(), x], -1)), IMAGE),
    ("cat", Fn(lambda x: torch.cat([x])), IMAGE),
    ("concat", Fn(lambda x: aten.concat([x, x.relu()], 1)), IMAGE),
    ("stack", Fn(lambda x: torch.stack([x, x.relu()], dim=-1)), IMAGE),
    ("stack", Fn(lambda x: torch.stack([x, x.relu(), x], dim=1)), ROW),
    ("pad", Fn(lambda x: F.pad(x, (1, 0, 2, 3))), IMAGE),
    ("pad", Fn(lambda x: F.pad(x, (0, 1), value=-2.0)), IMAGE),
    ("pad", Fn(lambda x: F.pad(x, (0, 0, 1, 1, 0, 2, 0, 0))), IMAGE),
    ("pad", nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    ("constant_pad_nd", Fn(lambda x: aten.constant_pad_nd(x, [1, 2], 0.5)), IMAGE),
    ("slice", Fn(lambda x: x[:, 1:-1, ::2, 3:]), IMAGE),
    ("slice", Fn(lambda x: x[:, -2:]), IMAGE),
    ("select", Fn(lambda x: x[:, -1]), IMAGE),
    ("select", Fn(lambda x: x[..., 2]), IMAGE),
    ("narrow", Fn(lambda x: aten.narrow(x, 2, 1, 4)), IMAGE),
    ("narrow", Fn(lambda x: aten.narrow(x, -1, -3, 2)), IMAGE),
    ("split", Fn(lambda x: torch.mul(*x.split(4, dim=2))), IMAGE),
    ("split", Fn(lambda x: x.split(3, dim=-2)[2]), IMAGE),
    ("split_with_sizes", Fn(lambda x: torch.cat(x.split([1, 3], dim=1)[::-1], 1)), IMAGE),
    ("chunk", Fn(lambda x: torch.cat(x.chunk(3, dim=2)[::-1], 2)), IMAGE),
    ("chunk", Fn(lambda x: torch.sub(*x.chunk(2, dim=-1))), ROW),
    ("view", Fn(lambda x: x.view(2, -1)), IMAGE),
    ("reshape", Fn(lambda x: x.permute(0, 2, 3, 1).reshape(2, 48, 4)), IMAGE),
    ("flatten", nn.Flatten(), IMAGE),
    ("unflatten", nn.Unflatten(1, (2, 4)), ROW),
    ("squeeze", Fn(lambda x: x.mean(2, keepdim=True).squeeze(2)), IMAGE),
    ("squeeze", Fn(lambda x: x[:, :1].squeeze()), IMAGE),
    ("unsqueeze", Fn(lambda x: x.unsqueeze(-2)), ROW),
    ("_unsafe_view", Fn(lambda x: aten._unsafe_view(x, [4, 2, 48])), IMAGE),
    ("dropout", nn.Dropout(0.9), IMAGE),
    ("feature_dropout", nn.Dropout2d(0.9), IMAGE),
    ("clone", Fn(lambda x: x.clone() + 1), IMAGE),
    ("contiguous", Fn(lambda x: x.transpose(1, 2).contiguous()), IMAGE),
    ("detach", Fn(lambda x: x.relu().detach() + 1), IMAGE),
    ("alias", Fn(lambda x: aten.alias(x) + 1), IMAGE),
    ("to", Fn(lambda x: x.to(torch.float32, copy=True) + 1), IMAGE),
    ("_to_copy", Fn(lambda x: aten._to_copy(x) + 1), IMAGE),
    ("lift_fresh_copy", Fn(lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), IMAGE),
]

# torch's own front doors lead elsewhere; no module of eval mode comes to these
NEVER_MET: set[str] = set()


def ids(case) -> str:
    return case if isinstance(case, str) else ""


def example(shape) -> np.ndarray:
    return (3 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def op_names(module: nn.Module, x: np.ndarray) -> set[str]:
    return {getattr(node.target, "_opname", "") for node in export(module, (x,)).graph.nodes}


@pytest.mark.parametrize(("op", "module", "shape"), CASES, ids=ids)
def test_traced_equals_eager(op, module, shape):
    x = example(shape)
    assert op in op_names(module, x)
    graph = trace(module, (x,))
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x.copy())).numpy()
    (found,) = run(graph, to_tensors([x]))
    assert graph.types[graph.outputs[0]].shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_every_rule_has_a_case():
    known = ATEN_RULES.keys() | RESHAPES | IDENTITIES
    assert known - {op for op, _, _ in CASES} - NEVER_MET == set()


def test_depthwise_convolutions_are_told_from_grouped_ones():
    ops = {groups: trace(nn.Conv2d(4, 8, 3, groups=groups), (example(IMAGE),)).nodes[0].op for groups in (1, 2, 4)}
    assert ops == {1: Op.CONV2D, 2: Op.CONV2D, 4: Op.DEPTHWISE_CONV2D}


class Computed(nn.Module):
    """A weight made of other weights: nothing of it depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.scale = nn.Parameter(torch.rand(3, 1))
        self.register_buffer("keep", torch.tensor([[True, False, True, True]] * 3))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        weight = (self.weight - self.weight.mean(1, keepdim=True)) * self.scale * self.keep
        return F.linear(x, weight) / self.count


def test_what_depends_on_constants_alone_is_a_constant():
    module = Computed()
    graph = trace(module, (example((2, 4)),))
    assert [node.op for node in graph.nodes] == [Op.LINEAR, Op.MUL]
    assert {array.dtype for array in graph.constants.values()} == {np.dtype(np.float32)}
    expected = module(torch.from_numpy(example((2, 4)))).detach().numpy()
    np.testing.assert_allclose(run(graph, to_tensors([example((2, 4))]))[0].numpy(), expected, atol=1e-5)


def by_the_batch(x, layer):
    return F.batch_norm(x, layer.running_mean, layer.running_var, training=True)


REFUSED: list[tuple[str, nn.Module, tuple[int, ...], str]] = [
    ("clamp", Fn(lambda x: x.clamp(-1, 1)), IMAGE, r"not to \[-1, 1\]"),
    ("hardtanh", nn.Hardtanh(), IMAGE, r"not to \[-1"),
    ("batch_norm", nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "running statistics"),
    ("batch_norm", Fn(by_the_batch, norm()), IMAGE, "batch's own"),
    ("avg_pool2d", nn.AvgPool2d(2, divisor_override=3), IMAGE, "divisor_override"),
    ("avg_pool2d", nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE, "count_include_pad=False"),
    ("max_pool2d", nn.MaxPool2d(2, dilation=2), IMAGE, "dilated"),
    ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d(3), IMAGE, "several sizes"),
    ("adaptive_max_pool2d", Fn(lambda x: aten.adaptive_max_pool2d(x, [1, 1])[1].float()), IMAGE, "indices"),
    ("pad", Fn(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")), IMAGE, "reflect"),
    ("pad", Fn(lambda x: F.pad(x, (-1, 1))), IMAGE, "negative"),
    ("div", Fn(lambda x: x / x.relu()), IMAGE, "division by a constant"),
    ("div", Fn(lambda x: x / 0), IMAGE, "division by a constant"),
    ("div", Fn(lambda x: torch.div(x, 2, rounding_mode="floor")), IMAGE, "arguments are not supported"),
    ("conv2d", nn.Conv2d(4, 4, 3), (4, 8, 8), "batch of images"),
    ("conv2d", Fn(lambda x: F.conv2d(x, x)), IMAGE, "computed from the input"),
    ("linear", Fn(lambda x: F.linear(x, x)), ROW, "computed from the input"),
    ("to", Fn(lambda x: x.to(torch.int32) * 2.0), IMAGE, "int32"),
    ("view", Fn(lambda x: x.view(torch.int32) * 2.0), IMAGE, "int32"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "module", "shape", "message"), REFUSED, ids=ids)
def test_what_the_graph_cannot_say_is_refused_in_words(op, module, shape, message):
    with pytest.raises(UnsupportedError, match=message) as found:
        trace(module, (example(shape),))
    assert op in str(found.value)
    if isinstance(module, Fn):  # torch's own layers have no line of the user's around them here
        assert "test_tracing_rules.py:" in str(found.value)
