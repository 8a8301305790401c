import numpy as np
import pytest
from compress.channel_networks import mobilenet, resnet, traced

from toolchain.compress.pruning.choices import Measure, Scope
from toolchain.compress.pruning.costs import Types
from toolchain.compress.pruning.latency import features, fit_latency, make_variants
from toolchain.compress.pruning.structured import apply, plan_pruning
from toolchain.graph import Graph
from toolchain.stages.latency import measure_latencies


def ideal_ms(graph: Graph, types: Types | None = None) -> float:
    """A device on which the latency is of the model's form."""
    price = {"macs": 0.3, "values": 2.0, "weights": 0.5, "constant": 0.01, "nodes": 0.002}
    return sum(price[figure] * value for (_, figure), value in features(graph, types or graph.types, 8).items())


def test_variants_are_the_network_first_then_smaller_ones_the_same_for_a_seed() -> None:
    graph = traced(resnet())
    variants, again = make_variants(graph, 9, seed=3), make_variants(graph, 9, seed=3)
    assert variants[0] is graph
    assert [v.types for v in variants] == [v.types for v in again]
    ideal = [ideal_ms(v) for v in variants]
    assert max(ideal) == ideal[0] and len(set(ideal)) > 5
    assert any(len(v.nodes) < len(graph.nodes) for v in variants)


@pytest.mark.parametrize("build", [resnet, mobilenet])
def test_a_device_of_that_form_is_predicted_as_it_is(build) -> None:
    graph = traced(build())
    variants = make_variants(graph, 40)
    model = fit_latency(variants, [ideal_ms(v) for v in variants])
    unseen = make_variants(graph, 6, seed=9)[1:]
    np.testing.assert_allclose([model(v, v.types) for v in unseen], [ideal_ms(v) for v in unseen], rtol=0.02)
    assert model.error < 0.02


def test_noise_shows_in_the_error_told() -> None:
    graph = traced(resnet())
    variants = make_variants(graph, 24)
    noise = np.random.default_rng(0).uniform(0.7, 1.3, 24)
    model = fit_latency(variants, [ideal_ms(v) * n for v, n in zip(variants, noise, strict=True)])
    assert 0.03 < model.error <= model.worst


@pytest.mark.parametrize("scope", [Scope.LOCAL, Scope.GLOBAL])
def test_a_plan_comes_down_to_the_latency_that_is_asked_for(scope: Scope) -> None:
    graph = traced(resnet())
    plan = plan_pruning(graph, ratio=0.3, of=Measure.LATENCY, scope=scope, cost=ideal_ms)
    assert plan.latency_ms is not None
    before, after = plan.latency_ms
    smaller = apply(plan, graph)
    assert after == pytest.approx(ideal_ms(smaller)) and 0.5 * before < after <= 0.7 * before
    assert "predicted" in str(plan) and plan.facts()["latency_ms"] == [before, after]


def test_graphs_are_timed_in_their_runtime() -> None:
    graph = traced(resnet())
    small = make_variants(graph, 2)[1]
    assert all(0 < ms < 1000 for ms in measure_latencies([graph, small], rounds=1))
