from collections.abc import Callable

import numpy as np
import pytest
import torch
from compress.channel_networks import (
    Branches,
    FlattenHead,
    Gate,
    Halves,
    Inverted,
    PooledHead,
    Residual,
    conv,
    images,
    mobilenet,
    random_network,
    resnet,
    traced,
)
from torch import nn

from toolchain.compress.channels.groups import find_groups
from toolchain.compress.pruning.importance import Importance
from toolchain.compress.pruning.structured import apply, apply_structure, kept_count, plan_pruning
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Codebook, Graph, Op, Structure, parse_graph
from toolchain.graph.cost import total_macs

WITHOUT_SAMPLES = [Importance.L1, Importance.L2, Importance.PATH]


def parameters(graph: Graph) -> int:
    return sum(array.size for array in graph.constants.values())


def silence(graph: Graph, ratio: float, seed: int = 0) -> tuple[Graph, dict[str, list[int]]]:
    """`graph` with random channels of every prunable group zero wherever they lie, and which ones live."""
    random = np.random.default_rng(seed)
    constants = {name: array.copy() for name, array in graph.constants.items()}
    alive = {}
    for group in find_groups(graph):
        if not group.prunable:
            continue
        order = random.permutation(group.size)
        kept = kept_count(group.size, ratio, 1)
        alive[group.name] = sorted(order[:kept].tolist())
        for cut in group.cuts:
            np.moveaxis(constants[cut.tensor], cut.axis, 0)[cut.indices[order[kept:]].reshape(-1)] = 0
    return graph.with_constants(constants), alive


def check_silent_channels_go(module: nn.Module, importance: Importance, seed: int = 0) -> None:
    graph, alive = silence(traced(module), 0.5, seed)
    x = images()
    plan = plan_pruning(graph, ratio=0.5, importance=importance, batches=[(x,)])
    # to the contribution a living channel that no sample wakes is as good as dead
    if importance is not Importance.CONTRIBUTION:
        assert {g.group.name: g.kept.tolist() for g in plan.groups if g.group.prunable} == alive
    smaller = apply(plan, graph)
    assert parameters(smaller) == plan.parameters[1] < 0.6 * parameters(graph)
    assert total_macs(smaller) == plan.macs[1] < 0.6 * total_macs(graph) == 0.6 * plan.macs[0]
    (before,), (after,) = predict(graph, [(x,)]), predict(smaller, [(x,)])
    assert np.ptp(before) > 0
    np.testing.assert_allclose(after, before, atol=1e-5 * max(1.0, float(np.abs(before).max())))


@pytest.mark.parametrize("importance", [*WITHOUT_SAMPLES, Importance.CONTRIBUTION])
@pytest.mark.parametrize("build", [resnet, mobilenet])
def test_removing_silent_channels_changes_nothing(build: Callable[[], nn.Module], importance: Importance) -> None:
    torch.manual_seed(0)
    check_silent_channels_go(build(), importance)


@pytest.mark.parametrize("seed", range(24))
def test_removing_silent_channels_of_random_networks_changes_nothing(seed: int) -> None:
    check_silent_channels_go(random_network(seed), WITHOUT_SAMPLES[seed % 3], seed)


def test_residual_network_is_pruned_in_every_group_it_has() -> None:
    graph = traced(resnet())
    sizes = {group.name: group.size for group in find_groups(graph) if group.prunable}
    # the stem and the first block share a stream, the second and third another; each block has one inside
    assert sizes == {"0.0": 8, "1.conv1": 8, "2.conv1": 16, "2.short": 16, "3.conv1": 16} or sizes == {
        "0.0": 8, "1.conv1": 8, "2.conv1": 16, "2.conv2": 16, "3.conv1": 16}  # fmt: skip


def test_depthwise_stays_depthwise() -> None:
    graph = traced(mobilenet())
    smaller = apply(plan_pruning(graph, ratio=0.5), graph)
    assert [n.op for n in smaller.nodes] == [n.op for n in graph.nodes]
    shapes = [smaller.types[n.inputs[1]].shape for n in smaller.nodes if n.op is Op.DEPTHWISE_CONV2D]
    assert shapes == [(8, 1, 3, 3), (16, 1, 3, 3)]


@pytest.mark.parametrize(("groups", "expected"), [(2, (2, (8, 4, 3, 3))), (8, (4, (8, 2, 3, 3)))])
def test_grouped_convolution_keeps_its_blocks_equal(groups: int, expected: tuple[int, tuple[int, ...]]) -> None:
    graph = traced(nn.Sequential(conv(3, 16), conv(16, 16, groups=groups), PooledHead(16)))
    smaller = apply(plan_pruning(graph, ratio=0.5), graph)
    node = next(n for n in smaller.nodes if n.op is Op.CONV2D and n["groups"] > 1)
    assert (node["groups"], smaller.types[node.inputs[1]].shape) == expected


def test_sliced_channels_keep_at_least_one_in_each_part() -> None:
    graph = traced(nn.Sequential(conv(3, 8), Halves(8), PooledHead(8)))
    smaller = apply(plan_pruning(graph, ratio=0.9), graph)
    bounds = [(n["starts"], n["stops"]) for n in smaller.nodes if n.op is Op.SLICE]
    assert bounds == [((0,), (1,)), ((1,), (2,))]
    assert predict(smaller, [(images(),)])[0].shape == (4, 5)


def test_concat_gate_and_flatten_stay_consistent_at_every_ratio() -> None:
    graph = traced(nn.Sequential(Branches(3, 5, 7, 8), Gate(8), Residual(8, 8), Inverted(8), FlattenHead(8)))
    for ratio in (0.0, 0.1, 0.33, 0.75, 0.99):
        plan = plan_pruning(graph, ratio=ratio)
        smaller = apply(plan, graph)
        assert (total_macs(smaller), parameters(smaller)) == (plan.macs[1], plan.parameters[1])
        assert predict(smaller, [(images(),)])[0].shape == (4, 5)


def test_nothing_is_removed_at_ratio_zero() -> None:
    graph = traced(resnet())
    plan = plan_pruning(graph, ratio=0.0)
    assert apply(plan, graph).constants.keys() == graph.constants.keys()
    assert all(np.array_equal(a, graph.constants[n]) for n, a in apply(plan, graph).constants.items())


def test_the_graph_given_stays_as_it_was() -> None:
    graph = traced(resnet())
    shapes, nodes = {n: a.shape for n, a in graph.constants.items()}, graph.nodes
    apply(plan_pruning(graph, ratio=0.5), graph)
    assert {n: a.shape for n, a in graph.constants.items()} == shapes
    assert graph.nodes == nodes


@pytest.mark.parametrize(
    ("size", "ratio", "round_to", "kept"),
    [
        (20, 0.5, 1, 10), (20, 0.5, 8, 16), (5, 0.99, 1, 1), (5, 0.99, 8, 5), (32, 0.3, 8, 24),
        (100, 0.29, 1, 71), (10, 0.0, 8, 10), (64, 0.75, 16, 16), (1, 0.5, 1, 1),
    ],
)  # fmt: skip
def test_kept_count(size: int, ratio: float, round_to: int, kept: int) -> None:
    assert kept_count(size, ratio, round_to) == kept


def test_plan_prints_what_goes_and_what_it_saves() -> None:
    torch.manual_seed(0)
    graph = traced(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10)), (1, 10))
    plan = plan_pruning(graph, ratio=0.5)
    assert str(plan) == (
        "prune 50% of the channels by path, rounded up to 1\n"
        "group  channels  MACs saved  parameters saved\n"
        "0      20 -> 10         200               210\n"
        "input        10                                kept: input is an input of the graph\n"
        "2            10                                kept: 2 is an output of the graph\n"
        "total            400 -> 200        430 -> 220"
    )


def test_savings_of_the_groups_add_up() -> None:
    plan = plan_pruning(traced(mobilenet()), ratio=0.5)
    assert plan.macs[0] - plan.macs[1] == sum(group.macs_saved for group in plan.groups)
    assert plan.parameters[0] - plan.parameters[1] == sum(group.parameters_saved for group in plan.groups)


def test_masks_and_codebooks_are_cut_with_their_weights() -> None:
    graph = traced(nn.Sequential(conv(3, 8), FlattenHead(8)))
    name = "1.hidden.weight"
    weight = graph.constants[name]
    book = Codebook(np.array([-0.5, 0.5], np.float32), (weight > 0).astype(np.uint8))
    mask = np.random.default_rng(0).random(weight.shape) > 0.5
    structure = Structure({name: mask}, {name: book})
    plan = plan_pruning(graph, ratio=0.5)
    smaller, cut = apply(plan, graph), apply_structure(plan, structure)
    assert cut.masks[name].shape == cut.codebooks[name].indices.shape == smaller.constants[name].shape
    np.testing.assert_array_equal(cut.codebooks[name].indices, smaller.constants[name] > 0)
    rows = next(g for g in plan.groups if g.group.name == "1.hidden").kept
    columns = next(g for g in plan.groups if g.group.name == "0.0").kept
    expected = mask.reshape(12, 8, 64)[np.ix_(rows, columns)].reshape(len(rows), -1)
    np.testing.assert_array_equal(cut.masks[name], expected)


def test_contribution_without_samples_says_what_to_do() -> None:
    with pytest.raises(OptionError, match="samples"):
        plan_pruning(traced(resnet()), ratio=0.5, importance=Importance.CONTRIBUTION)


def test_a_graph_without_channels_to_remove_is_left_alone() -> None:
    graph = parse_graph("""
        input x: float32[1,3]
        constant a.weight: float32[4,3]
        a = linear(x, a.weight)
        output a""")
    plan = plan_pruning(graph, ratio=0.9)
    assert plan.parameters == (12, 12)
    assert apply(plan, graph).nodes == graph.nodes


def test_facts_are_plain() -> None:
    import json

    facts = plan_pruning(traced(resnet()), ratio=0.5, importance=Importance.RANDOM, seed=3).facts()
    assert json.loads(json.dumps(facts)) == facts
