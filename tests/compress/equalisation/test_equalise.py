import math

import numpy as np
import pytest
import torch
from compress.channel_networks import Inverted, Residual, conv, images, mobilenet, random_network, traced
from compress.ranges import channel_ranges, difference
from torch import nn

from toolchain.compress.equalisation.equalise import Ceilings, Equalisation, equalise
from toolchain.compress.fisher import measure_sensitivity
from toolchain.engine.module import GraphModule
from toolchain.engine.observe import observe
from toolchain.engine.run import predict
from toolchain.engine.tracing.tracer import trace
from toolchain.errors import OptionError
from toolchain.graph import Codebook, Graph, Structure, fold, parse_graph
from toolchain.quantization import Granularity, Scheme, assign_params
from toolchain.quantization.correct import correct_biases

PER_TENSOR = Scheme(weight_granularity=Granularity.PER_TENSOR)

PAIR = """
    input x: float32[1,3,6,6]
    constant a.weight: float32[4,3,1,1]
    constant a.bias: float32[4]
    constant b.weight: float32[5,4,3,3]
    a = conv2d(x, a.weight, a.bias) activation={activation}
    b = conv2d(a, b.weight)
    output b"""


def rows(graph: Graph, name: str, axis: int = 0) -> np.ndarray:
    weight = np.abs(np.moveaxis(graph.constants[name], axis, 0))
    return weight.reshape(len(weight), -1).max(axis=1)


def sqnr_db(graph: Graph, calibration: np.ndarray, judged: np.ndarray) -> float:
    """Of what varies in the outputs on `judged`, weights and activations fake-quantized, per-tensor weights."""
    statistics = observe(graph, [(calibration,)])
    quantized = assign_params(graph, {name: s.minmax() for name, s in statistics.items()}, PER_TENSOR)
    quantized = correct_biases(quantized, {n: s.means for n, s in statistics.items() if s.means is not None})
    module = GraphModule(quantized.graph, params=quantized.params, corrections=quantized.corrections)
    truth = predict(graph, [(judged,)])[0]
    with torch.inference_mode():
        found = module(torch.from_numpy(judged)).numpy()
    return float(10 * np.log10(((truth - truth.mean(0)) ** 2).sum() / ((truth - found) ** 2).sum()))


def test_a_pair_gets_the_ranges_of_the_paper() -> None:
    graph = parse_graph(PAIR.format(activation="relu"))
    r1, r2 = rows(graph, "a.weight"), rows(graph, "b.weight", 1)
    equal, plan = equalise(graph)
    s = np.sqrt(r1 * r2) / r2
    ratio = rows(equal, "a.weight") / (r1 / s)
    # up to a factor all channels share, and the steps that are too small to go on
    np.testing.assert_allclose(ratio, ratio[0], rtol=5e-3)
    ratio = rows(equal, "b.weight", 1) / rows(equal, "a.weight")
    np.testing.assert_allclose(ratio, ratio[0], rtol=5e-3)
    assert difference(graph, equal, images(2, (1, 3, 6, 6))) < 1e-5
    assert plan.moved >= 3


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_compute_the_same(seed: int) -> None:
    graph = fold(traced(random_network(seed)))
    x = images(2, seed=seed)
    ranges = channel_ranges(graph, (x,))
    for given in (None, ranges):
        equal, _ = equalise(graph, given, scheme=PER_TENSOR)
        assert difference(graph, equal, images(1, seed=seed + 50)) < 1e-5


@pytest.mark.parametrize("ceilings", list(Ceilings))
def test_ceilings_hold_on_the_samples(ceilings: Ceilings) -> None:
    graph = fold(traced(mobilenet()))
    x = images(8)
    equal, _ = equalise(graph, channel_ranges(graph, (x,)), scheme=PER_TENSOR, ceilings=ceilings, ceiling_gain_db=0.0)
    assert difference(graph, equal, x) < 1e-5


def test_ceilings_of_their_own_hold_on_everything() -> None:
    graph = fold(traced(mobilenet()))
    ranges = channel_ranges(graph, (images(4),))
    equal, plan = equalise(graph, ranges, scheme=PER_TENSOR, ceilings=Ceilings.MINIMUM, ceiling_gain_db=0.0)
    assert plan.ceilings
    assert "own ceilings" in str(plan)
    assert difference(graph, equal, 50 * images(4, seed=9)) < 1e-5
    assert set(graph.activations) <= set(equal.activations)


def test_a_channel_at_its_ceiling_keeps_its_scale() -> None:
    graph = parse_graph(PAIR.format(activation="relu6"))
    weights = graph.constants["a.weight"] * np.float32([[[[0.01]]], [[[0.01]]], [[[50]]], [[[1e-3]]]])
    graph = graph.with_constants({"a.weight": weights, "a.bias": np.zeros(4, np.float32)})
    x = images(8, (1, 3, 6, 6))
    ranges = channel_ranges(graph, (x,))
    equal, _ = equalise(graph, ranges, scheme=PER_TENSOR, ceilings=Ceilings.MEASURED)
    ratio = rows(equal, "a.weight") / rows(graph, "a.weight")
    assert ratio[2] == 1
    assert ratio[3] > 4
    assert (channel_ranges(equal, (x,))["a"][1] <= 6 / np.where(ratio == 1, 1, 2) + 1e-5).all()
    kept, plan = equalise(graph, ranges, scheme=PER_TENSOR)
    assert plan.moved == 0
    np.testing.assert_array_equal(kept.constants["a.weight"], weights)


def test_dead_channels_keep_factor_one() -> None:
    graph = parse_graph(PAIR.format(activation="relu"))
    weights, bias = graph.constants["a.weight"].copy(), graph.constants["a.bias"].copy()
    weights[0] = 0
    bias[1] = -100
    graph = graph.with_constants({"a.weight": weights, "a.bias": bias})
    x = images(2, (1, 3, 6, 6))
    for ranges, dead in ((None, 1), (channel_ranges(graph, (x,)), 2)):
        equal, plan = equalise(graph, ranges, scheme=PER_TENSOR)
        assert plan.dead == dead
        assert np.all(np.isfinite(equal.constants["a.weight"]))
        assert np.array_equal(equal.constants["a.weight"][0], weights[0])
        assert difference(graph, equal, x) < 1e-5
    np.testing.assert_array_equal(equal.constants["a.weight"][1], weights[1])


def test_masks_hold_and_codebooks_are_left_alone() -> None:
    graph = parse_graph(PAIR.format(activation="relu"))
    mask = np.ones((5, 4, 3, 3), bool)
    mask[:, :, 0] = False
    graph = graph.with_constants({"b.weight": graph.constants["b.weight"] * mask})
    structure = Structure(masks={"b.weight": mask})
    equal, plan = equalise(graph, structure=structure)
    assert plan.moved
    assert not plan.structure(structure).violations(equal.constants)
    book = Codebook(np.zeros(2, np.float32), np.zeros((5, 4, 3, 3), np.uint8))
    equal, plan = equalise(graph, structure=Structure(codebooks={"b.weight": book}))
    assert not plan.moved
    assert "codebook" in str(plan)


def test_ranges_of_the_result_are_those_one_would_measure() -> None:
    graph = fold(traced(nn.Sequential(conv(3, 8), Residual(8, 12), conv(12, 8), Inverted(8), conv(8, 4))))
    x = images(4)
    equal, plan = equalise(graph, channel_ranges(graph, (x,)), scheme=PER_TENSOR)
    assert plan.channel_ranges is not None
    for name, (low, high) in channel_ranges(equal, (x,)).items():
        scale = np.abs(high).max() + np.abs(low).max()
        np.testing.assert_allclose(plan.channel_ranges[name][0], low, atol=1e-5 * scale)
        np.testing.assert_allclose(plan.channel_ranges[name][1], high, atol=1e-5 * scale)


def test_the_plan_tells_what_was_done() -> None:
    graph = fold(traced(mobilenet()))
    equal, plan = equalise(graph, channel_ranges(graph, (images(2),)), scheme=PER_TENSOR)
    assert plan.noise_db is not None
    assert plan.noise_db[1] <= plan.noise_db[0] < 0
    assert "it is an output of the graph" in str(plan)
    again = equalise(graph, channel_ranges(graph, (images(2),)), scheme=PER_TENSOR)
    assert str(again[1]) == str(plan)
    assert isinstance(plan, Equalisation)
    assert all(np.array_equal(again[0].constants[n], a) for n, a in equal.constants.items())


def test_a_headroom_below_one_is_refused() -> None:
    with pytest.raises(OptionError, match="headroom"):
        equalise(parse_graph(PAIR.format(activation="relu")), headroom=0.5)


class Separable(nn.Module):
    """MobileNet with ReLU: depthwise and pointwise layers in turn, with a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.first = nn.Sequential(conv(16, 16, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU())
        self.second = nn.Sequential(conv(32, 32, groups=32), nn.Conv2d(32, 32, 1))
        self.third = nn.Sequential(nn.ReLU(), conv(32, 32, groups=32), nn.Conv2d(32, 16, 1), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.first(self.stem(x))
        return self.head(self.third(wide + self.second(wide)).mean((2, 3)))


def scaled_apart(graph: Graph, octaves: float) -> Graph:
    """The depthwise channels of `graph` by factors from 2^-octaves to 1, undone by what reads them."""
    random = np.random.default_rng(0)
    constants = dict(graph.constants)
    for node in graph.nodes:
        if node.op == "depthwise_conv2d":
            (reader,) = graph.consumers[node.output]
            factors = 2.0 ** random.uniform(-octaves, 0, graph.types[node.output].shape[1])
            for name in node.inputs[1:]:
                constants[name] = constants[name] * factors.reshape(-1, *[1] * (constants[name].ndim - 1))
            constants[reader.inputs[1]] = constants[reader.inputs[1]] / factors.reshape(1, -1, 1, 1)
    return graph.with_constants({name: array.astype(np.float32) for name, array in constants.items()})


def separable() -> Graph:
    """Random weights, batch norms with the statistics of random images: signals keep their size, as in a trained
    network."""
    torch.manual_seed(0)
    module = Separable()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    with torch.no_grad():
        module.train()(torch.from_numpy(images(64, (1, 3, 16, 16), seed=2)))
    return fold(trace(module.eval(), (np.zeros((1, 3, 16, 16), np.float32),)))


def test_channels_scaled_apart_lose_nothing() -> None:
    graph = separable()
    apart = scaled_apart(graph, 8)
    calibration, judged = images(16, (1, 3, 16, 16)), images(16, (1, 3, 16, 16), seed=1)
    assert difference(graph, apart, judged) < 1e-5
    plain, spoilt = sqnr_db(graph, calibration, judged), sqnr_db(apart, calibration, judged)
    assert spoilt < plain - 6
    for ranges in (None, channel_ranges(apart, (calibration,))):
        equal, _ = equalise(apart, ranges, scheme=PER_TENSOR)
        assert difference(apart, equal, judged) < 1e-5
        assert sqnr_db(equal, calibration, judged) > plain - 1


def test_sensitivity_predicts_the_noise_of_a_layer() -> None:
    graph = separable()
    x = images(24, (1, 3, 16, 16))
    sensitivity = measure_sensitivity(graph, [(x,)])
    random = np.random.default_rng(0)
    truth = predict(graph, [(x,)])[0]
    signal = (truth**2).sum(axis=1)
    for name, costs in sensitivity.weights.items():
        weight, found = graph.constants[name], []
        size = 1e-3 * np.abs(weight).max()
        for _ in range(16):
            spoilt = weight + size * random.choice((-1, 1), weight.shape)
            change = predict(graph.with_constants({name: spoilt.astype(np.float32)}), [(x,)])[0] - truth
            found.append(((change**2).sum(axis=1) / signal).mean())
        # 16 errors, 24 signs: their mean is within 3 dB of what is expected
        assert abs(10 * math.log10(float(np.mean(found)) / float((costs * size**2).sum()))) < 3, name
