import numpy as np
import pytest
import torch
from compress.channel_networks import Residual, conv, images, resnet, traced
from torch import nn

from toolchain.compress.channels.groups import find_groups
from toolchain.compress.pruning.choices import NEEDS_SAMPLES, OF_WEIGHTS, Importance
from toolchain.compress.pruning.evidence import Evidence
from toolchain.compress.pruning.importance import IMPORTANCES, Needs
from toolchain.compress.pruning.magnitude import weight_evidence, weight_scores
from toolchain.compress.pruning.structured import Request, channel_evidence, plan_pruning
from toolchain.engine.run import predict
from toolchain.graph import Graph, parse_graph
from toolchain.samples import Batch

CLASSIC = """
    input x: float32[1,10]
    constant first.weight: float32[20,10]
    constant first.bias: float32[20]
    constant second.weight: float32[10,20]
    constant second.bias: float32[10]
    first = linear(x, first.weight, first.bias)
    relu = relu(first)
    second = linear(relu, second.weight, second.bias)
    output second"""


def classic(incoming: np.ndarray, outgoing: np.ndarray, bias: float = 0.0) -> Graph:
    """Linear 10-20, ReLU, Linear 20-10 with the given lengths of weights into and out of each node."""
    random = np.random.default_rng(0)
    first, second = random.standard_normal((20, 10)), random.standard_normal((10, 20))
    first *= (incoming / np.linalg.norm(first, axis=1))[:, None]
    second *= outgoing / np.linalg.norm(second, axis=0)
    constants = {
        "first.weight": first,
        "first.bias": np.full(20, bias),
        "second.weight": second,
        "second.bias": np.zeros(10),
    }
    return parse_graph(CLASSIC, {name: value.astype(np.float32) for name, value in constants.items()})


def scores(graph: Graph, importance: Importance, batches: list[tuple[np.ndarray, ...]] | None = None) -> np.ndarray:
    group = find_groups(graph)[0]
    given = [Batch(inputs, None) for inputs in batches or ()]
    evidence = channel_evidence(graph, [group], Request(ratio=0.5, importance=importance), given)
    return IMPORTANCES[importance].channels(graph, group, evidence)


def kept(graph: Graph, importance: Importance, samples: np.ndarray | None = None) -> list[int]:
    batches = None if samples is None else [Batch((samples,), None)]
    return plan_pruning(graph, ratio=0.5, importance=importance, batches=batches).groups[0].kept.tolist()


def test_every_importance_has_a_rule_with_its_formula() -> None:
    assert set(IMPORTANCES) == set(Importance)
    assert all(rule.channels.__doc__ for rule in IMPORTANCES.values())
    assert all(rule.weights.__doc__ for rule in IMPORTANCES.values() if rule.weights)


def test_formulas() -> None:
    graph = classic(np.linspace(1, 2, 20), np.linspace(3, 1, 20), bias=0.5)
    first, second = graph.constants["first.weight"], graph.constants["second.weight"]
    everything = np.concatenate([first.T, np.full((1, 20), 0.5), second])
    np.testing.assert_allclose(scores(graph, Importance.L1), np.abs(everything).sum(0), rtol=1e-6)
    np.testing.assert_allclose(scores(graph, Importance.L2), np.linalg.norm(everything, axis=0), rtol=1e-6)
    made = np.linalg.norm(everything[:11], axis=0)
    np.testing.assert_allclose(scores(graph, Importance.PATH), made * np.linspace(3, 1, 20), rtol=1e-6)
    x = images(64, (1, 10))
    active = np.maximum(x @ first.T + 0.5, 0).mean(0) * np.linspace(3, 1, 20)
    halves = [(x[:40],), (x[40:],)]
    np.testing.assert_allclose(scores(graph, Importance.CONTRIBUTION, halves), active, rtol=1e-5)


@pytest.mark.parametrize("importance", [Importance.L1, Importance.L2, Importance.PATH, Importance.CONTRIBUTION])
def test_the_ten_strong_nodes_of_the_classic_network_stay(importance: Importance) -> None:
    strong = sorted(np.random.default_rng(1).permutation(20)[:10].tolist())
    lengths = np.where(np.isin(np.arange(20), strong), 2.0, 0.2)
    graph = classic(lengths, lengths)
    samples = images(200, (1, 10)) if importance is Importance.CONTRIBUTION else None
    assert kept(graph, importance, samples) == strong


def test_what_counts_is_what_a_node_passes_on() -> None:
    """Odd nodes: short weights in, long ones out. Even nodes: long ones in, and almost nothing out."""
    odd = np.arange(20) % 2 == 1
    graph = classic(np.where(odd, 1.0, 9.0), np.where(odd, 5.0, 0.1))
    incoming = np.linalg.norm(graph.constants["first.weight"], axis=1)
    assert not odd[np.argsort(-incoming)[:10]].any()  # by what comes in, the wrong ten
    assert not odd[kept(graph, Importance.L2)].any()  # by the group's norm too
    assert odd[kept(graph, Importance.PATH)].all()
    assert odd[kept(graph, Importance.CONTRIBUTION, images(200, (1, 10)))].all()


def test_samples_tell_a_node_that_never_fires() -> None:
    """The last ten nodes have the longest weights, but on samples >= 0 the ReLU never lets them through."""
    graph = classic(np.where(np.arange(20) < 10, 1.0, 3.0), np.ones(20))
    first = graph.constants["first.weight"].copy()
    first[:10], first[10:] = np.abs(first[:10]), -np.abs(first[10:])
    graph = graph.with_constants({"first.weight": first})
    assert kept(graph, Importance.PATH) == list(range(10, 20))
    assert kept(graph, Importance.CONTRIBUTION, np.abs(images(50, (1, 10)))) == list(range(10))


def test_path_and_contribution_see_through_a_change_of_scale() -> None:
    """x -> a x -> relu -> / a: nothing changes for the network, nor for the importance."""
    graph = classic(np.linspace(1, 2, 20), np.linspace(3, 1, 20))
    factors = np.exp(np.random.default_rng(2).standard_normal(20)).astype(np.float32)
    scaled = graph.with_constants(
        {
            "first.weight": graph.constants["first.weight"] * factors[:, None],
            "second.weight": graph.constants["second.weight"] / factors,
        }
    )
    x = images(50, (1, 10))
    np.testing.assert_allclose(predict(scaled, [(x,)])[0], predict(graph, [(x,)])[0], rtol=1e-4, atol=1e-4)
    for importance in (Importance.PATH, Importance.CONTRIBUTION):
        np.testing.assert_allclose(scores(scaled, importance, [(x,)]), scores(graph, importance, [(x,)]), rtol=1e-4)
    assert not np.allclose(scores(scaled, Importance.L2), scores(graph, Importance.L2), rtol=1e-2)


def test_path_looks_through_a_batch_norm() -> None:
    graph = traced(nn.Sequential(conv(3, 8), nn.Conv2d(8, 4, 1)))
    made = np.linalg.norm(graph.constants["0.0.weight"].reshape(8, -1), axis=1)
    reads = np.linalg.norm(graph.constants["1.weight"][:, :, 0, 0], axis=0)
    np.testing.assert_allclose(scores(graph, Importance.PATH), made * reads, rtol=1e-6)


def test_path_adds_what_a_residual_stream_adds() -> None:
    graph = traced(nn.Sequential(Residual(3, 8), nn.Conv2d(8, 4, 1)))
    group = next(g for g in find_groups(graph) if g.name == "0.conv2" or g.name == "0.short")
    names = ("0.conv2.weight", "0.short.weight", "0.short.bias")
    made = sum(np.square(graph.constants[n].reshape(8, -1)).sum(1) for n in names)
    reads = np.linalg.norm(graph.constants["1.weight"][:, :, 0, 0], axis=0)
    found = IMPORTANCES[Importance.PATH].channels(graph, group, Evidence())
    np.testing.assert_allclose(found, np.sqrt(made) * reads, rtol=1e-6)


def test_random_depends_on_the_seed_and_nothing_else() -> None:
    graph = traced(resnet())
    drawn = [plan_pruning(graph, ratio=0.5, importance=Importance.RANDOM, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ([g.kept.tolist() for g in plan.groups] for plan in drawn)
    assert first == again != other


def test_statistics_of_a_batch_norm_are_no_weights() -> None:
    graph = traced(nn.Sequential(conv(3, 8), nn.Conv2d(8, 4, 1)))
    changed = graph.with_constants({"0.1.running_var": graph.constants["0.1.running_var"] * 100})
    group = find_groups(graph)[0]
    for importance in (Importance.L1, Importance.L2):
        same = [IMPORTANCES[importance].channels(g, group, Evidence()) for g in (graph, changed)]
        np.testing.assert_array_equal(*same)


# ---- measured on samples -----------------------------------------------------------------------------------


def labelled(count: int = 24) -> Batch:
    return Batch((images(count, (1, 10)),), np.random.default_rng(3).integers(0, 10, count))


def derivatives(graph: Graph, batch: Batch) -> dict[str, np.ndarray]:
    """w dL/dw of the classic network by torch alone."""
    leaves = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in graph.constants.items()}
    hidden = torch.relu(torch.from_numpy(batch.inputs[0]) @ leaves["first.weight"].T + leaves["first.bias"])
    scores = hidden @ leaves["second.weight"].T + leaves["second.bias"]
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(batch.labels)).backward()
    return {n: (leaf * leaf.grad).detach().numpy() for n, leaf in leaves.items() if leaf.grad is not None}


def along(changes: dict[str, np.ndarray]) -> np.ndarray:
    """The 20 nodes' sums of what is given for weights."""
    return changes["first.weight"].sum(1) + changes["first.bias"] + changes["second.weight"].sum(0)


def importance_of(graph: Graph, importance: Importance, batches: list[Batch]) -> np.ndarray:
    group = find_groups(graph)[0]
    evidence = channel_evidence(graph, [group], Request(ratio=0.5, importance=importance), batches)
    return IMPORTANCES[importance].channels(graph, group, evidence)


def test_taylor_is_what_the_loss_changes_by_to_first_order() -> None:
    graph = classic(np.linspace(1, 2, 20), np.linspace(3, 1, 20), bias=0.1)
    batches = [labelled(), Batch((images(8, (1, 10), seed=5),), np.arange(8))]
    expected = np.sqrt(np.mean([along(derivatives(graph, batch)) ** 2 for batch in batches], axis=0))
    np.testing.assert_allclose(importance_of(graph, Importance.TAYLOR, batches), expected, rtol=1e-4, atol=1e-7)
    evidence = weight_evidence(graph, Importance.TAYLOR, batches, 0)
    weights = weight_scores(graph, Importance.TAYLOR, evidence)["second.weight"]
    expected = np.sqrt(np.mean([derivatives(graph, batch)["second.weight"] ** 2 for batch in batches], axis=0))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-7)


def test_fisher_is_the_diagonal_sample_by_sample() -> None:
    graph = classic(np.linspace(1, 2, 20), np.linspace(3, 1, 20), bias=0.1)
    batch = labelled(12)
    assert batch.labels is not None
    rows = [Batch((batch.inputs[0][i : i + 1],), batch.labels[i : i + 1]) for i in range(12)]
    squares = [{n: d**2 for n, d in derivatives(graph, row).items()} for row in rows]
    expected = np.sqrt(np.mean([along(square) for square in squares], axis=0))
    np.testing.assert_allclose(importance_of(graph, Importance.FISHER, [batch]), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("importance", [Importance.TAYLOR, Importance.FISHER, Importance.APOZ])
def test_without_labels_what_reaches_the_outputs_counts(importance: Importance) -> None:
    strong = sorted(np.random.default_rng(1).permutation(20)[:10].tolist())
    lengths = np.where(np.isin(np.arange(20), strong), 2.0, 0.02)
    # weak nodes are nearly never awake, so that APoZ sees them too
    graph = classic(lengths, lengths)
    bias = np.where(np.isin(np.arange(20), strong), 0.0, -1.0).astype(np.float32)
    graph = graph.with_constants({"first.bias": bias})
    assert kept(graph, importance, images(200, (1, 10))) == strong


def test_activation_aware_squares_where_contribution_takes_the_mean() -> None:
    graph = classic(np.linspace(1, 2, 20), np.linspace(3, 1, 20), bias=0.5)
    x = images(64, (1, 10))
    active = np.maximum(x @ graph.constants["first.weight"].T + 0.5, 0)
    expected = np.sqrt(np.square(active).mean(0)) * np.linspace(3, 1, 20)
    np.testing.assert_allclose(scores(graph, Importance.ACTIVATION_AWARE, [(x,)]), expected, rtol=1e-5)
    np.testing.assert_allclose(scores(graph, Importance.APOZ, [(x,)]), (active > 0).mean(0), rtol=1e-6)


def test_batch_norm_scales_count_where_there_are_some_and_path_where_not() -> None:
    graph = traced(nn.Sequential(conv(3, 8), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    normed, plain = (group for group in find_groups(graph) if group.prunable)
    rule = IMPORTANCES[Importance.BATCH_NORM].channels
    np.testing.assert_allclose(rule(graph, normed, Evidence()), np.abs(graph.constants["0.1.weight"]), rtol=1e-6)
    path = IMPORTANCES[Importance.PATH].channels(graph, plain, Evidence())
    np.testing.assert_array_equal(rule(graph, plain, Evidence()), path)


def test_what_options_say_of_importances_is_what_the_table_says() -> None:
    assert {name for name, rule in IMPORTANCES.items() if rule.needs is not Needs.NOTHING} == NEEDS_SAMPLES
    assert {name for name, rule in IMPORTANCES.items() if rule.weights} == OF_WEIGHTS


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_weights_of_every_kind_of_layer_have_scores_in_their_shape() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grouped = nn.Conv2d(4, 8, 3, groups=2)
            self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
            self.up = nn.ConvTranspose2d(8, 4, 2)
            self.sequence = nn.GRU(4, 5, batch_first=True)
            self.classes = nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.up(self.depthwise(self.grouped(x)))
            return self.classes(self.sequence(y.flatten(2).transpose(1, 2))[0][:, -1])

    graph = traced(Mixed(), (1, 4, 8, 8))
    batches = [Batch((images(6, (1, 4, 8, 8)),), None)]
    for importance in OF_WEIGHTS:
        found = weight_scores(graph, importance, weight_evidence(graph, importance, batches, 0))
        assert len(found) == 6
        for name, score in found.items():
            assert score.shape == graph.types[name].shape and (score >= 0).all() and score.max() > 0
