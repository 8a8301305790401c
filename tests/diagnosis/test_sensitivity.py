"""Sensitivities against runs of the whole graph, node by node, and against the error of all nodes together."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from tests.diagnosis.networks import chain, images, join, quantized, statistics_of
from tests.zoo.networks import build
from toolchain import Trace
from toolchain.diagnosis import sensitivity
from toolchain.diagnosis.isolation import QuantizedNodes
from toolchain.diagnosis.layers import affordable_samples, diagnose_graph
from toolchain.diagnosis.sensitivity import measure_sensitivities, measure_sensitivity, sample_chunks
from toolchain.engine.module import GraphModule, fake_quantize, rounded_activations
from toolchain.engine.observe import observe
from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.graph import DType, Graph, fold, parse_graph
from toolchain.quantization import NumberFormat, QuantizedGraph, Scheme, assign_params, dequantize
from toolchain.quantization.correct import correct_biases


def whole_run(model: QuantizedGraph, array: np.ndarray, only: str | None) -> list[torch.Tensor]:
    """Outputs of the whole graph with one activation and its node quantized, or none."""
    graph, rounded = model.graph, rounded_activations(model.graph, model.params)
    node = graph.producers.get(only) if only else None
    constants = as_tensors(graph.constants)
    for name in node.inputs if node else ():
        if name in model.integers:
            constants[name] = torch.from_numpy(dequantize(model.integers[name], model.params[name]))

    def hook(name, value):
        return fake_quantize(value, rounded[name]) if name == only and name in rounded else value

    return run(graph, to_tensors([array]), constants=constants, hook=hook)


@pytest.mark.parametrize("network", [chain(), join(3.0)], ids=["chain", "concat"])
def test_agrees_with_whole_runs(network):
    array = images()
    means = {name: s.means for name, s in statistics_of(network, array).items()}
    model = correct_biases(quantized(network, array), means)
    found = measure_sensitivity(model, [(array,)])
    (target,) = whole_run(model, array, None)
    assert set(found) == {"x", *(n.output for n in network.nodes if n.op != "concat")}
    for name, one in found.items():
        (output,) = whole_run(model, array, name)
        expected = float(((output - target).double() ** 2).sum() / (target.double() ** 2).sum())
        assert one.error == pytest.approx(expected, rel=1e-4)  # float32 sums of 1e4 squares


def test_chunks_and_batches_do_not_matter(monkeypatch):
    graph, array = chain(), images()
    model = quantized(graph, array)
    whole = measure_sensitivity(model, [(array,)], samples=6)
    monkeypatch.setattr(sensitivity, "KEPT_BYTES", 1)
    assert [len(x) for (x,) in sample_chunks(graph, [(array[:4],), (array[4:],)], 6)] == [1] * 6
    single = measure_sensitivity(model, [(array[:4],), (array[4:],)], samples=6)
    for name, one in whole.items():
        assert single[name].error == pytest.approx(one.error, rel=1e-4)


def test_memory_follows_the_bound(monkeypatch):
    graph = chain()
    per_sample = 4 * sum(graph.types[name].elements for name in graph.activations)
    monkeypatch.setattr(sensitivity, "KEPT_BYTES", 3 * per_sample)
    assert [len(x) for (x,) in sample_chunks(graph, [(images(8),)], 8)] == [3, 3, 2]
    assert [len(x) for (x,) in sample_chunks(graph, [(images(8),)], 5, runs=2)] == [1] * 5


def test_candidates_are_measured_as_if_alone_and_what_is_alike_only_once(monkeypatch):
    graph, array = chain(), images()
    eight, four = quantized(graph, array), quantized(graph, array, Scheme(weight_dtype=DType.INT4))
    runs = []
    meter = sensitivity.SensitivityMeter
    add = meter.add_alone
    monkeypatch.setattr(meter, "add_alone", lambda self, *given: (runs.append(given[:2]), add(self, *given)))
    both = measure_sensitivities({"8": eight, "4": four}, [(array,)])
    assert {name for candidate, name in runs if candidate == "4"} == {"stem", "mid", "head"}
    assert both == {"8": measure_sensitivity(eight, [(array,)]), "4": measure_sensitivity(four, [(array,)])}
    assert both["4"]["y"] == both["8"]["y"] and both["4"]["mid"].error > 30 * both["8"]["mid"].error


def test_a_candidate_may_have_another_type_of_activation_and_requantize_nodes():
    graph, array = chain(), images()
    eight = quantized(graph, array)
    wide = quantized(graph, array, numbers={"mid": NumberFormat.W8A16})
    assert len(wide.graph.nodes) > len(graph.nodes), "requantize nodes stand between the types"
    found = measure_sensitivities({"8": eight, "16": wide}, [(array,)])
    assert found["16"]["mid"].error < found["8"]["mid"].error
    assert found["16"]["head"] == found["8"]["head"]


def test_all_nodes_quantized_is_the_network_that_recovery_trains():
    graph, array = chain(), images()
    model = quantized(graph, array)
    module = GraphModule(graph, params=model.params)
    with torch.inference_mode():
        values = QuantizedNodes(model).values([array])
        expected = module(*to_tensors([array]))
    # biases are integers here and reals there: one rounding may fall the other way
    assert float((values["y"] - expected).abs().max()) <= model.params["y"].step * 1.001
    assert float(((values["y"] - expected).abs() > 1e-5).float().mean()) < 0.05


@cache
def mnist() -> tuple[QuantizedGraph, np.ndarray]:
    module, array = build("mnist", 24)
    graph = fold(Trace(example_inputs=(torch.from_numpy(array[:1]),))(module).graph)
    ranges = {name: s.minmax() for name, s in observe(graph, [(array,)]).items()}
    return assign_params(graph, ranges, Scheme()), array


def test_sensitivities_add_up_to_the_error_of_the_whole():
    model, array = mnist()
    found = diagnose_graph(model, [(array,)], samples=24)
    # independent errors add: 1; the factor leaves room for few samples and for what meets again
    assert 1 / 1.5 < found.explained < 1.5
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.samples == 24 and found.outputs == 1


def test_error_inherited_and_added_make_the_error_of_the_result():
    model, array = mnist()
    for layer in diagnose_graph(model, [(array,)], samples=24).layers:
        if layer.inherited_db is not None:
            together = -10 * np.log10(10 ** (-layer.inherited_db / 10) + 10 ** (-layer.added_db / 10))
            assert abs(layer.sqnr_out_db - together) < 2  # independent errors: 0
    first = diagnose_graph(model, [(array,)]).layers[0]
    assert first.op == "input" and first.inherited_db is None and first.sqnr_in_db is None


def test_twice_the_same():
    model, array = mnist()
    assert diagnose_graph(model, [(array,)]) == diagnose_graph(model, [(array,)])


def test_integer_outputs_count_wrong_ones():
    graph = parse_graph(
        "input x: float32[1,4,16,16]\nhead = conv2d(x, head.w)\ny = argmax(head) axis=1\noutput y",
        {"head.w": np.ones((8, 4, 1, 1), np.float32) + np.linspace(0, 1e-3, 32, dtype=np.float32).reshape(8, 4, 1, 1)},
    )
    found = measure_sensitivity(quantized(graph, images()), [(images(),)])
    assert 0.1 < found["head"].error <= 1  # classes closer than a step: which one wins is chance


def test_a_graph_that_mixes_samples_runs_in_its_own_batches():
    graph = parse_graph("input x: float32[2,4]\ny = mean(x) axes=(0,) keepdim=True\nz = add(x, y)\noutput z")
    array = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    found = diagnose_graph(quantized(graph, array), [(array,)], samples=8)
    assert found.samples == 8 and found.sqnr_db > 30


def test_masks_of_minus_infinity_have_no_cause():
    graph = parse_graph(
        "input x: float32[1,8]\ninput m: bool[1,8]\ny = where(m, x, low)\nz = softmax(y) axis=1\noutput z",
        {"low": np.full((1, 8), np.finfo(np.float32).min)},
    )
    random = np.random.default_rng(0)
    given = (random.standard_normal((8, 8)).astype(np.float32), random.random((8, 8)) < 0.7)
    ranges = {name: s.minmax() for name, s in observe(graph, [given]).items()}
    found = diagnose_graph(assign_params(graph, ranges, Scheme()), [given])
    assert np.isfinite(found.sqnr_db) and all(np.isfinite(layer.added_db) for layer in found.layers)


def test_cheap_enough_for_a_deployment():
    assert affordable_samples(quantized(chain(), images())) == 8
    assert affordable_samples(QuantizedGraph(chain(), {})) == 0
    long = "\n".join(f"t{i + 1} = relu(t{i})" for i in range(500))
    graph: Graph = parse_graph(f"input t0: float32[1,4]\n{long}\noutput t500")
    model = assign_params(graph, dict.fromkeys(graph.activations, (-1.0, 1.0)), Scheme())
    assert affordable_samples(model) == 0
