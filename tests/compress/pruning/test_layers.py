import numpy as np
import pytest
import torch
from compress.channel_networks import Residual, conv, images, mobilenet, resnet, traced
from torch import Tensor, nn

from toolchain.compress.pruning.blocks import find_blocks, kept_structure, remove_block
from toolchain.compress.pruning.choices import Measure
from toolchain.compress.pruning.costs import count_macs
from toolchain.compress.pruning.layers import apply_layers, plan_layers
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure, parse_graph
from toolchain.graph.cost import total_macs
from toolchain.samples import Batch


def residual_names(graph: Graph) -> dict[str, str]:
    return {block.name: block.by for block in find_blocks(graph) if block.kind == "residual block"}


def batches(count: int = 16) -> list[Batch]:
    return [Batch((images(count),), None)]


def test_residual_blocks_are_found_with_their_shortcuts() -> None:
    found = residual_names(traced(resnet()))
    # the second block's shortcut is a projection
    assert found == {"1.add": "0.2", "2.add": "2.short", "3.add": "2.relu_1"}


def test_inverted_blocks_have_none_but_their_adds_and_keep_depthwise_layers_apart() -> None:
    graph = traced(mobilenet())
    assert len(residual_names(graph)) == 2
    assert any(block.kind == "layer" and "depthwise" in block.name for block in find_blocks(graph))


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_removed_block_becomes_its_shortcut(position: int) -> None:
    torch.manual_seed(0)
    module = resnet()
    graph = traced(module)
    name = list(residual_names(graph))[position]
    block = next(b for b in find_blocks(graph) if b.name == name)

    class Short(nn.Module):
        def __init__(self, of: Residual) -> None:
            super().__init__()
            self.short = of.short

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.short(x))

    place = int(name.split(".")[0])
    module[place] = Short(module[place])
    x = images()
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(predict(remove_block(graph, block), [(x,)])[0], expected, rtol=1e-4, atol=1e-5)


def test_an_activation_fused_into_the_add_stays() -> None:
    graph = parse_graph("""
        input x: float32[1,4]
        constant a.weight: float32[4,4]
        a = linear(x, a.weight)
        add = add(a, x) activation=relu
        output add""")
    block = next(block for block in find_blocks(graph) if block.kind == "residual block")
    x = images(3, (1, 4))
    np.testing.assert_array_equal(predict(remove_block(graph, block), [(x,)])[0], np.maximum(x, 0))


def test_a_block_that_does_nothing_goes_first_and_changes_nothing() -> None:
    torch.manual_seed(0)
    blocks = [Residual(8, 8) for _ in range(4)]
    graph = traced(nn.Sequential(conv(3, 8), *blocks, nn.Conv2d(8, 4, 1)))
    silent = {n: np.zeros_like(a) for n, a in graph.constants.items() if n in ("3.norm2.weight", "3.norm2.bias")}
    graph = graph.with_constants(silent)
    plan = plan_layers(graph, ratio=0.1, batches=batches())
    assert [removal.block.name for removal in plan.removed] == ["3.add"]
    assert plan.removed[0].error == 0
    x = images()
    np.testing.assert_array_equal(predict(plan.graph, [(x,)])[0], predict(graph, [(x,)])[0])


@pytest.mark.parametrize("of", [Measure.COUNT, Measure.MACS, Measure.PARAMETERS, Measure.BYTES])
def test_the_plan_reaches_the_ratio_and_says_what_is_left(of: Measure) -> None:
    torch.manual_seed(0)
    graph = traced(nn.Sequential(conv(3, 8), *[Residual(8, 8) for _ in range(4)], nn.Conv2d(8, 4, 1)))
    plan = plan_layers(graph, ratio=0.4, of=of, batches=batches())
    before, after = {
        Measure.COUNT: plan.layers, Measure.MACS: plan.macs,
        Measure.PARAMETERS: plan.parameters, Measure.BYTES: plan.bytes,
    }[of]  # fmt: skip
    assert after <= 0.6 * before
    assert plan.macs == (total_macs(graph), total_macs(plan.graph))
    assert sum(removal.macs_saved for removal in plan.removed) == plan.macs[0] - plan.macs[1]
    assert "goes" in str(plan) and "stays" in str(plan)
    assert [r["name"] for r in plan.facts()["removed"]] == [r.block.name for r in plan.removed]


def test_the_ratio_is_of_the_whole_where_something_is_gone_already() -> None:
    graph = traced(nn.Sequential(conv(3, 8), *[Residual(8, 8) for _ in range(4)], nn.Conv2d(8, 4, 1)))
    first = plan_layers(graph, ratio=0.2, of=Measure.MACS, batches=batches())
    second = plan_layers(first.graph, ratio=0.4, of=Measure.MACS, batches=batches(), whole=graph)
    assert count_macs(second.graph, second.graph.types) <= 0.6 * total_macs(graph)
    assert first.removed and second.removed


def test_masks_of_what_is_gone_go_too() -> None:
    graph = traced(resnet())
    masks = {n: np.ones(a.shape, bool) for n, a in graph.constants.items()}
    plan = plan_layers(graph, ratio=0.2, batches=batches())
    left, structure = apply_layers(plan, Structure(masks))
    assert set(structure.masks) == set(left.constants) < set(masks)
    assert kept_structure(structure, left).masks.keys() == structure.masks.keys()


def test_without_a_shortcut_or_samples_it_says_so() -> None:
    graph = traced(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)))
    with pytest.raises(OptionError, match="no layer"):
        plan_layers(graph, ratio=0.5, batches=batches())
    with pytest.raises(OptionError, match="samples"):
        plan_layers(graph, ratio=0.5, batches=None)
    with pytest.raises(OptionError, match="latency"):
        plan_layers(graph, ratio=0.5, of=Measure.LATENCY, batches=batches())
