"""Whole networks through trace and fold: the graph computes what the module does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.zoo.networks import NETWORKS, build
from toolchain.engine.module import GraphModule
from toolchain.engine.run import run, to_tensors
from toolchain.engine.tracing.tracer import trace
from toolchain.graph import Graph, Op, fold
from toolchain.graph.cost import total_macs

RANDOM = [name for name in NETWORKS if name != "efficientnet_lite0"]
BATCH = 4


@pytest.fixture(scope="module", params=RANDOM)
def network(request):
    module, inputs = build(request.param, count=16)
    return request.param, module, inputs, trace(module, (inputs[:1],))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def outputs(graph: Graph, inputs: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return run(graph, to_tensors([inputs[:BATCH]]))[0]


def eager(module: torch.nn.Module, inputs: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return module(torch.from_numpy(inputs[:BATCH]))


def test_traced_and_folded_graphs_equal_eager(network):
    _, module, inputs, graph = network
    expected = eager(module, inputs)
    assert_close(outputs(graph, inputs), expected)
    assert_close(outputs(fold(graph), inputs), expected)
    assert_close(GraphModule(graph)(torch.from_numpy(inputs[:BATCH])).detach(), expected)


def test_outputs_tell_inputs_apart(network):
    """Statistics that do not fit kill a deep network: everything after would be zeros agreeing with zeros."""
    _, module, inputs, _ = network
    logits = eager(module, inputs)
    assert logits.std(0).mean() > 0.05 * logits.abs().mean()
    assert torch.isfinite(logits).all()


def test_folding_leaves_no_batch_norm_no_activation_and_no_pad(network):
    name, _, _, graph = network
    left = {node.op for node in fold(graph).nodes}
    assert left <= {Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.LINEAR, Op.ADD, Op.MAX_POOL2D, Op.MEAN, Op.RESHAPE}
    assert {node["activation"] for node in fold(graph).nodes if node.op is Op.CONV2D} >= {
        "relu6" if name == "mobilenet_v2" else "relu"
    }


def test_parameters_keep_the_users_names(network):
    _, module, _, graph = network
    state = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
    assert set(graph.constants) == state


@pytest.mark.parametrize(
    ("name", "layers", "macs"),
    # published at 224x224: 300 M and 1.81 G; layers as in the papers' tables
    [("mobilenet_v2", 53, 300e6), ("resnet18", 21, 1.814e9)],
)
def test_the_networks_are_the_published_ones(name, layers, macs):
    from tests.zoo.mobilenet_v2 import MobileNetV2
    from tests.zoo.resnet18 import ResNet18

    module = MobileNetV2() if name == "mobilenet_v2" else ResNet18()
    graph = fold(trace(module, (np.zeros((1, 3, 224, 224), np.float32),)))
    ops = [node.op for node in graph.nodes]
    assert sum(op in (Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.LINEAR) for op in ops) == layers
    assert sum(op is Op.ADD for op in ops) == (10 if name == "mobilenet_v2" else 8)
    assert total_macs(graph) == pytest.approx(macs, rel=0.01)


def test_networks_are_the_same_on_every_call():
    (first, inputs), (second, again) = build("mobilenet_v2", count=16), build("mobilenet_v2", count=16)
    np.testing.assert_array_equal(inputs, again)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
