import numpy as np
import pytest
from compress.channel_networks import images, random_network, traced
from compress.ranges import channel_ranges, difference

from toolchain.compress.channels.groups import find_groups
from toolchain.compress.channels.widen import why_not_widened, widen_graph, widen_structure, widening_orders
from toolchain.compress.equalisation.split import Cause, split_channels
from toolchain.errors import OptionError
from toolchain.graph import Codebook, Graph, Structure, fold, parse_graph
from toolchain.quantization import Granularity, Scheme

PER_TENSOR = Scheme(weight_granularity=Granularity.PER_TENSOR)

NETWORK = """
    input x: float32[1,3,6,6]
    constant a.weight: float32[20,3,3,3]
    constant a.bias: float32[20]
    constant d.weight: float32[20,1,3,3]
    constant l.weight: float32[5,80]
    a = conv2d(x, a.weight, a.bias) activation={activation}
    d = depthwise_conv2d(a, d.weight)
    f = reshape(d) shape=(1,80)
    l = linear(f, l.weight)
    output l"""


def spoilt(graph: Graph, name: str, axis: int, index: int | slice) -> Graph:
    array = graph.constants[name].copy()
    np.moveaxis(array, axis, 0)[index] *= 40
    return graph.with_constants({name: array})


@pytest.mark.parametrize("seed", range(10))
def test_widening_leaves_random_networks_as_they_are(seed: int) -> None:
    graph = fold(traced(random_network(seed)))
    random = np.random.default_rng(seed)
    choices = [
        (group, random.choice(group.size, 2, replace=False))
        for group in find_groups(graph)
        if group.prunable and not why_not_widened(graph, group, Structure())
    ]
    orders = widening_orders(graph, choices)
    wide = widen_graph(graph, orders)
    assert choices
    assert len(wide.types) == len(graph.types)
    assert difference(graph, wide, images(2, seed=seed)) < 1e-5


def test_a_column_that_spoils_its_weight_is_split() -> None:
    graph = spoilt(parse_graph(NETWORK.format(activation="relu6")), "l.weight", 1, slice(12, 16))
    wide, plan = split_channels(graph, scheme=PER_TENSOR)
    (split,) = plan.groups
    assert (split.indices, split.cause, plan.added) == ((3,), Cause.WEIGHTS, 1)
    assert split.gain == pytest.approx(2, rel=1e-3)
    assert np.abs(wide.constants["l.weight"]).max() == pytest.approx(np.abs(graph.constants["l.weight"]).max() / 2)
    assert wide.types["d"].shape[1] == 21
    assert difference(graph, wide, images(1, (1, 3, 6, 6))) < 1e-5
    assert "outliers of weights: 3" in str(plan)


def test_a_channel_that_spoils_an_activation_is_halved() -> None:
    graph = spoilt(parse_graph(NETWORK.format(activation="relu")), "a.weight", 0, 7)
    graph = spoilt(graph, "a.bias", 0, 7)
    x = images(1, (1, 3, 6, 6))
    before = channel_ranges(graph, (x,))
    wide, plan = split_channels(graph, before, scheme=PER_TENSOR)
    assert [(split.name, split.cause, split.indices) for split in plan.groups] == [("a", Cause.ACTIVATIONS, (7,))]
    after = channel_ranges(wide, (x,))
    assert after["a"][1].max() == pytest.approx(before["a"][1].max() / 2, rel=1e-5)
    assert difference(graph, wide, x) < 1e-5


def test_what_is_even_is_not_split() -> None:
    graph = parse_graph(NETWORK.format(activation="relu"))
    even = graph.with_constants({n: np.sign(a) for n, a in graph.constants.items()})
    same, plan = split_channels(even, scheme=PER_TENSOR)
    assert same is even
    assert str(plan) == "nothing is split"


def test_masks_are_widened_and_codebooks_left_alone() -> None:
    graph = spoilt(parse_graph(NETWORK.format(activation="relu6")), "l.weight", 1, slice(12, 16))
    mask = np.random.default_rng(0).random((5, 80)) > 0.5
    graph = graph.with_constants({"l.weight": graph.constants["l.weight"] * mask})
    structure = Structure(masks={"l.weight": mask})
    wide, plan = split_channels(graph, scheme=PER_TENSOR, structure=structure)
    after = plan.structure(structure)
    assert plan.added == 1
    assert after.masks["l.weight"].shape == (5, 84)
    assert not after.violations(wide.constants)
    book = Structure(codebooks={"l.weight": Codebook(np.zeros(2, np.float32), np.zeros((5, 80), np.uint8))})
    same, plan = split_channels(graph, scheme=PER_TENSOR, structure=book)
    assert same is graph
    assert "codebook" in str(plan)
    assert widen_structure(structure, {}).masks["l.weight"] is mask


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"gain": 1.0}])
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        split_channels(parse_graph(NETWORK.format(activation="relu")), **options)  # type: ignore[arg-type]
