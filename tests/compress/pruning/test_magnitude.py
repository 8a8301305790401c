import numpy as np
import pytest
from compress.channel_networks import mobilenet, traced

from toolchain.compress.pruning.magnitude import apply_masks, plan_magnitude, smallest_masked, weight_names
from toolchain.graph import Op, Structure, parse_graph


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_exactly_the_smallest_go(sparsity: float) -> None:
    weight = np.random.default_rng(0).standard_normal((30, 10)).astype(np.float32)
    mask = smallest_masked(weight, sparsity)
    assert np.count_nonzero(~mask) == int(sparsity * 300 + 1e-9)
    assert not (~mask).any() or np.abs(weight[~mask]).max() <= np.abs(weight[mask]).min()


def test_of_equal_weights_the_first_go() -> None:
    assert smallest_masked(np.ones(4, np.float32), 0.5).tolist() == [False, False, True, True]


def test_what_was_masked_before_stays_masked_and_counts() -> None:
    weight = np.array([9.0, 1.0, 2.0, 3.0], np.float32)
    before = np.array([False, True, True, True])
    assert smallest_masked(weight, 0.5, before).tolist() == [False, False, True, True]
    assert smallest_masked(weight, 0.0, before).tolist() == before.tolist()


def test_weights_of_layers_only() -> None:
    graph = traced(mobilenet())
    plan = plan_magnitude(graph, 0.5)
    layers = {n.inputs[1] for n in graph.nodes if n.op in (Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.LINEAR)}
    assert set(plan.masks) == set(weight_names(graph)) == layers
    sparse = apply_masks(plan, graph)
    for name, array in graph.constants.items():
        if name in layers:
            np.testing.assert_array_equal(sparse.constants[name], array * plan.masks[name])
        else:
            assert sparse.constants[name] is array
    assert Structure().with_masks(plan.masks).violations(sparse.constants) == []


def test_plan_prints_and_gives_facts() -> None:
    graph = parse_graph("""
        input x: float32[1,4]
        constant a.weight: float32[2,4]
        a = linear(x, a.weight)
        output a""")
    plan = plan_magnitude(graph, 0.25)
    assert str(plan) == (
        "zero the 25% smallest weights of each tensor\n"
        "weight    weights  kept\n"
        "a.weight        8     6\n"
        "total           8     6"
    )
    chosen = {"importance": "l1", "scope": "local", "pattern": ""}
    assert plan.facts() == {"sparsity": 0.25, **chosen, "weights": [8, 6], "tensors": {"a.weight": [8, 6]}}
