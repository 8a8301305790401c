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
from torch import Tensor, nn

from toolchain.compress.channels.cut import removed_indices
from toolchain.compress.channels.groups import find_groups
from toolchain.compress.pruning.choices import Importance, Measure, Scope
from toolchain.compress.pruning.costs import count_bytes, count_macs, types_after
from toolchain.compress.pruning.selection import MOST, kept_count
from toolchain.compress.pruning.structured import apply, apply_structure, plan_pruning
from toolchain.engine.run import predict
from toolchain.errors import OptionError
from toolchain.graph import Codebook, Graph, Op, Structure, parse_graph
from toolchain.graph.cost import total_macs
from toolchain.samples import Batch

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
    plan = plan_pruning(graph, ratio=0.5, importance=importance, batches=[Batch((x,), None)])
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


# ---- budgets, thresholds of all groups, heads and hidden units ---------------------------------------------


@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.GLOBAL])
@pytest.mark.parametrize("of", [Measure.MACS, Measure.PARAMETERS, Measure.BYTES])
def test_budgets_are_met_as_closely_as_channels_allow(of: Measure, scope: Scope) -> None:
    torch.manual_seed(0)
    graph = traced(resnet())
    plan = plan_pruning(graph, ratio=0.5, of=of, scope=scope, importance=Importance.L2)
    before, after = {Measure.MACS: plan.macs, Measure.PARAMETERS: plan.parameters, Measure.BYTES: plan.bytes}[of]
    smaller = apply(plan, graph)
    assert (total_macs(smaller), parameters(smaller)) == (plan.macs[1], plan.parameters[1])
    assert plan.bytes[1] == count_bytes(smaller, smaller.types)
    # one channel more of the widest group is less than a sixth of this network
    assert before / 3 < after <= before / 2 and plan.reached


def test_a_global_threshold_finds_the_silent_group() -> None:
    torch.manual_seed(0)
    graph = traced(resnet())
    name = "3.conv1"
    group = next(g for g in find_groups(graph) if g.name == name)
    constants = {n: a.copy() for n, a in graph.constants.items()}
    quiet = np.arange(group.size) % 4 != 0
    for cut in group.cuts:
        np.moveaxis(constants[cut.tensor], cut.axis, 0)[cut.indices[quiet].reshape(-1)] *= 0
    share = np.count_nonzero(quiet) / sum(g.size for g in find_groups(graph) if g.prunable)
    plan = plan_pruning(graph.with_constants(constants), ratio=share, scope=Scope.GLOBAL)
    kept = {g.group.name: len(g.kept) for g in plan.groups if g.group.prunable}
    assert kept.pop(name) == np.count_nonzero(~quiet)
    assert all(count == g.group.size for g in plan.groups for n, count in kept.items() if g.group.name == n)


def test_no_group_is_emptied_by_a_global_threshold() -> None:
    plan = plan_pruning(traced(resnet()), ratio=0.99, scope=Scope.GLOBAL, of=Measure.MACS)
    assert all(len(g.kept) >= g.group.size - int(MOST * g.group.size) for g in plan.groups)
    assert not plan.reached and "no more can go" in str(plan)


class Heads(nn.Module):
    """Attention as torch's own layer computes it, or with queries, keys and values from one layer, or from three."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.own = nn.MultiheadAttention(16, 4, batch_first=True)
        self.all = nn.Linear(16, 48)
        self.three = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 16)
        self.classes = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        if self.how == "own":
            y = self.own(x, x, x, need_weights=False)[0]
        else:
            if self.how == "one":
                q, k, v = self.all(x).reshape(batch, steps, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
            else:
                q, k, v = (layer(x).reshape(batch, steps, 4, 4).transpose(1, 2) for layer in self.three)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            y = self.out(y.transpose(1, 2).reshape(batch, steps, width))
        return self.classes((x + y).mean(1))


@pytest.mark.parametrize("how", ["own", "one", "three"])
def test_attention_heads_go_as_a_whole(how: str) -> None:
    torch.manual_seed(0)
    graph = traced(Heads(how), (1, 5, 16))
    (group,) = (g for g in find_groups(graph) if g.prunable)
    assert group.size == 4
    # a head of which nothing is read is silent, whatever its scores are
    readers = [cut for cut in group.cuts if cut.axis == 1]
    constants = {cut.tensor: graph.constants[cut.tensor].copy() for cut in readers}
    for cut in readers:
        constants[cut.tensor][:, cut.indices[[1, 3]].reshape(-1)] = 0
    graph = graph.with_constants(constants)
    x = images(3, (1, 5, 16))
    for importance in (Importance.PATH, Importance.CONTRIBUTION):
        plan = plan_pruning(graph, ratio=0.5, importance=importance, round_to=8, batches=[Batch((x,), None)])
        assert [g.kept.tolist() for g in plan.groups if g.group.prunable] == [[0, 2]]
    smaller = apply(plan, graph)
    assert parameters(smaller) == plan.parameters[1] < parameters(graph)
    np.testing.assert_allclose(predict(smaller, [(x,)])[0], predict(graph, [(x,)])[0], atol=1e-5)


class Sequence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, both_ways: bool) -> None:
        super().__init__()
        self.layer = kind(3, 8, num_layers=2, batch_first=True, bidirectional=both_ways)
        self.classes = nn.Linear(16 if both_ways else 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.layer(x)[0][:, -1])


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_silent_hidden_units_of_recurrent_layers_go(kind: type[nn.RNNBase], both_ways: bool) -> None:
    torch.manual_seed(0)
    graph, alive = silence(traced(Sequence(kind, both_ways=both_ways), (1, 6, 3)), 0.5)
    assert len(alive) == (4 if both_ways else 2)
    x = images(5, (1, 6, 3))
    plan = plan_pruning(graph, ratio=0.5)
    assert {g.group.name: g.kept.tolist() for g in plan.groups if g.group.prunable} == alive
    smaller = apply(plan, graph)
    assert parameters(smaller) == plan.parameters[1] < 0.5 * parameters(graph)
    np.testing.assert_allclose(predict(smaller, [(x,)])[0], predict(graph, [(x,)])[0], atol=1e-5)


def test_a_state_that_starts_the_sequence_is_cut_with_its_units() -> None:
    text = """
        input x: float32[2,4,3]
        constant w: float32[24,3]
        constant r: float32[24,6]
        constant b: float32[24]
        constant c: float32[24]
        constant h0: float32[1,6]
        constant s0: float32[1,6]
        constant o: float32[5,6]
        hidden = lstm(x, w, r, b, c, h0, s0) gives=hidden
        last = lstm(x, w, r, b, c, h0, s0) gives=cell
        y = linear(hidden, o)
        z = linear(last, o)
        output y
        output z"""
    graph, alive = silence(parse_graph(text), 0.5)
    (kept,) = alive.values()
    smaller = apply(plan_pruning(graph, ratio=0.5), graph)
    assert smaller.types["s0"].shape == (1, 3) and smaller.types["r"].shape == (12, 3)
    x = images(2, (1, 4, 3))
    for before, after in zip(predict(graph, [(x,)]), predict(smaller, [(x,)]), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_array_equal(smaller.constants["o"], graph.constants["o"][:, kept])


def test_what_rounding_takes_too_much_is_given_back() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(conv(3, 32), Residual(32, 32), Residual(32, 64), Residual(64, 64), PooledHead(64))
    graph = traced(wide)
    plan = plan_pruning(graph, ratio=0.5, of=Measure.MACS, round_to=8)
    assert all(len(g.kept) % 8 == 0 for g in plan.groups if g.group.prunable)
    assert plan.reached
    # no group can have 8 channels more within the budget
    for chosen in plan.groups:
        if chosen.group.prunable and len(chosen.kept) + 8 <= chosen.group.size:
            groups = [(g.group, np.arange(len(g.kept) + (8 if g is chosen else 0))) for g in plan.groups]
            assert count_macs(graph, types_after(graph, removed_indices(groups))) > plan.macs[0] / 2


class GroupedQueries(nn.Module):
    """Four heads of queries share two of keys and values; later steps are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, size) for size in (16, 8, 8, 16))
        self.classes = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).reshape(1, 5, 4, 4).transpose(1, 2)
        k, v = (
            layer(x).reshape(1, 5, 2, 4).transpose(1, 2)[:, :, None].expand(1, 2, 2, 5, 4).reshape(1, 4, 5, 4)
            for layer in (self.k, self.v)
        )
        scores = torch.where(torch.ones(5, 5).tril() > 0, q @ k.transpose(-2, -1), torch.tensor(-30.0))
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 5, 16)
        return self.classes((x + self.out(y)).mean(1))


def test_heads_that_share_keys_and_values_go_together() -> None:
    torch.manual_seed(0)
    graph = traced(GroupedQueries(), (1, 5, 16))
    (group,) = (g for g in find_groups(graph) if g.prunable)
    assert group.size == 2
    assert {str(cut) for cut in group.cuts} >= {
        "q.weight[0] x8",
        "k.weight[0] x4",
        "v.weight[0] x4",
        "out.weight[1] x8",
    }
    silent = graph.constants["out.weight"].copy()
    silent[:, :8] = 0
    graph = graph.with_constants({"out.weight": silent})
    smaller = apply(plan_pruning(graph, ratio=0.5), graph)
    x = images(1, (1, 5, 16))
    assert smaller.types["q"].shape == (1, 5, 8) and smaller.types["k"].shape == (1, 5, 4)
    np.testing.assert_allclose(predict(smaller, [(x,)])[0], predict(graph, [(x,)])[0], atol=1e-5)
