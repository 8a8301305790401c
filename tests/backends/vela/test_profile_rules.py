"""The profiles' own rules, which hold without Vela, say what the compiler's tables say.

Each op that a profile lists is written as a TFLite file, and no operator of it clashes with the tables of the device;
each op with an integer kernel that it does not list clashes, or is not in the tables. The same on both sides of limits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.ops.harness import traced
from toolchain.backends.vela.constraints import check_of, is_known
from toolchain.backends.vela.gate import constraint_table, find
from toolchain.graph import Graph, Op
from toolchain.profiles import DeviceProfile, device_findings, load_profile
from toolchain.quantization import find_float_nodes

pytest.importorskip("ethosu.regor", reason="the extra npu is not installed")

DEVICES = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-512", "ethos-u85-256")
IMAGE = (1, 8, 16, 16)


OPS: dict[Op, Any] = {
    Op.CONV2D: nn.Conv2d(8, 8, 3, padding=1),
    Op.DEPTHWISE_CONV2D: nn.Conv2d(8, 8, 3, groups=8),
    Op.CONV_TRANSPOSE2D: nn.ConvTranspose2d(8, 8, 4, 2, 1),
    Op.LINEAR: nn.Linear(16, 4),
    Op.RELU: torch.relu,
    Op.RELU6: F.relu6,
    Op.LEAKY_RELU: F.leaky_relu,
    Op.PRELU: nn.PReLU(8),
    Op.ELU: F.elu,
    Op.GELU: F.gelu,
    Op.CLAMP: lambda x: x.clamp(-0.5, 0.7),
    Op.SIGMOID: torch.sigmoid,
    Op.TANH: torch.tanh,
    Op.HARDSWISH: F.hardswish,
    Op.SOFTMAX: lambda x: x.softmax(1),
    Op.LOG_SOFTMAX: lambda x: x.log_softmax(1),
    Op.EXP: torch.exp,
    Op.RSQRT: lambda x: (x.abs() + 1).rsqrt(),
    Op.ABS: torch.abs,
    Op.NEG: torch.neg,
    Op.ADD: lambda x: x + x.relu(),
    Op.SUB: lambda x: x - x.relu(),
    Op.MUL: lambda x: x * x.relu(),
    Op.MINIMUM: lambda x: torch.minimum(x, x.relu()),
    Op.MAXIMUM: lambda x: torch.maximum(x, x.tanh()),
    Op.MATMUL: lambda x: x @ x,
    Op.MAX_POOL2D: nn.MaxPool2d(2),
    Op.AVG_POOL2D: nn.AvgPool2d(2),
    Op.MEAN: lambda x: x.mean((2, 3)),
    Op.REDUCE_MAX: lambda x: x.amax((2, 3)),
    Op.REDUCE_MIN: lambda x: x.amin((2, 3)),
    Op.ARGMAX: lambda x: x.argmax(1),
    Op.ARGMIN: lambda x: x.argmin(1),
    Op.TOPK_VALUES: lambda x: x.topk(2)[0],
    Op.RESHAPE: lambda x: x.reshape(1, -1),
    Op.PERMUTE: lambda x: x.permute(0, 3, 1, 2),
    Op.CONCAT: lambda x: torch.cat([x, x.relu()], 1),
    Op.PAD: lambda x: F.pad(x, (1, 2, 1, 2)),
    Op.SLICE: lambda x: x[:, 2:5],
    Op.EXPAND: lambda x: x[:, :1].expand(IMAGE),
    Op.GATHER: lambda x: x[torch.tensor([0, 0])],
    Op.RESIZE: nn.Upsample(scale_factor=2),
    Op.DEPTH_TO_SPACE: nn.PixelShuffle(2),
    Op.SPACE_TO_DEPTH: nn.PixelUnshuffle(2),
}
"""A graph of each op that computes in integers; for requantize, casts and booleans there is no plain one."""


def _graph(made: Any, *shape: int) -> Graph:
    return traced(made, np.random.default_rng(0).normal(size=shape or IMAGE).astype(np.float32))


def _refused_by_tables(graph: Graph, profile: DeviceProfile) -> bool:
    """By the tables alone."""
    everything = profile.execution.model_copy(update={"ops": None, "limits": ()})
    return bool(find(graph, profile.model_copy(update={"execution": everything})))


@pytest.mark.parametrize("device", DEVICES)
def test_every_sentence_of_the_tables_is_known(device: str) -> None:
    table = constraint_table(load_profile(device).compute.isa)
    sentences = {sentence for told in table.values() for sentence in told}
    assert len(table) > 50 and [s for s in sentences if not is_known(s)] == []
    assert sum(check_of(sentence) is not None for sentence in sentences) > 25


@pytest.mark.parametrize("device", DEVICES)
def test_the_ops_of_the_profile_are_those_of_the_tables(device: str) -> None:
    profile, wrong = load_profile(device), []
    for op, made in OPS.items():
        graph = _graph(made)
        assert op in {node.op for node in graph.nodes} and not find_float_nodes(graph), op
        if (op in (profile.execution.ops or ())) == _refused_by_tables(graph, profile):
            wrong.append(op)
    assert wrong == []
    assert all(op in profile.execution.instead for op in OPS if op not in (profile.execution.ops or ()))


TALL, FEW, MANY, TWO = (1, 8, 300, 2), (1, 127, 2, 2), (1, 128, 2, 2), (2, 8, 16, 16)
CORNERS = {"mode": "bilinear", "align_corners": True}

BOUNDS: dict[str, tuple[tuple[Any, tuple[int, ...]], tuple[Any, tuple[int, ...]]]] = {
    "stride beside padding": ((nn.Conv2d(8, 8, 7, 3, 3), IMAGE), (nn.Conv2d(8, 8, 8, 4, 2), IMAGE)),
    "stride beside dilation": ((nn.Conv2d(8, 8, 3, 4), IMAGE), (nn.Conv2d(8, 8, 3, 4, dilation=2), IMAGE)),
    "depthwise stride": ((nn.Conv2d(8, 8, 3, 3, groups=8), IMAGE), (nn.Conv2d(8, 8, 4, 4, groups=8), IMAGE)),
    "transposed stride": ((nn.ConvTranspose2d(8, 8, 2, 2), IMAGE), (nn.ConvTranspose2d(8, 8, 3, 3), IMAGE)),
    "stride of a pool": ((nn.MaxPool2d(8, 8), IMAGE), (nn.MaxPool2d(8, 4, 2), IMAGE)),
    "rows of a pool": ((nn.MaxPool2d((256, 1), 1), TALL), (nn.MaxPool2d((257, 1), 1), TALL)),
    "batch of a mean": ((lambda x: x.mean((2, 3)), IMAGE), (lambda x: x.mean((2, 3)), TWO)),
    "channels of an argmax": ((lambda x: x.argmax(1), FEW), (lambda x: x.argmax(1), MANY)),
    "axis of an argmax": ((lambda x: x.argmax(1), IMAGE), (lambda x: x.argmax(3), IMAGE)),
    "nearest": ((nn.Upsample(scale_factor=8), IMAGE), (nn.Upsample(scale_factor=3), IMAGE)),
    "bilinear": ((nn.Upsample(None, 2, "bilinear"), IMAGE), (nn.Upsample(None, 3, "bilinear"), IMAGE)),
    "one pixel": ((nn.Upsample((7, 9), None, "bilinear"), (1, 8, 1, 1)), (nn.Upsample(None, 3), IMAGE)),
    "bilinear by 4": ((nn.Upsample(None, 2, "bilinear"), IMAGE), (nn.Upsample(None, 4, "bilinear"), IMAGE)),
    "corners": ((nn.Upsample(size=(31, 31), **CORNERS), IMAGE), (nn.Upsample(size=(32, 32), **CORNERS), IMAGE)),
}
"""What is taken, and what is not by an Ethos-U55: with the shapes they read."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_limits_of_the_profile_are_those_of_the_tables(bound: str, device: str) -> None:
    profile = load_profile(device)
    taken, refused = (_graph(made, *shape) for made, shape in BOUNDS[bound])
    assert not device_findings(taken, profile) and not _refused_by_tables(taken, profile)
    found = device_findings(refused, profile)
    assert bool(found) == _refused_by_tables(refused, profile)
    assert bool(found) or profile.compute.isa == "ethos-u85"
    assert all(finding.instead and finding.blocks for finding in found)
