import numpy as np
from compress.channel_networks import images
from compress.ranges import channel_ranges

from toolchain.compress.equalisation.dead import find_dead_channels
from toolchain.graph import parse_graph

GRAPH = """
    input x: float32[1,3,6,6]
    constant a.weight: float32[6,3,3,3]
    constant a.bias: float32[6]
    constant b.weight: float32[4,6,1,1]
    a = conv2d(x, a.weight, a.bias)
    r = relu(a)
    b = conv2d(r, b.weight)
    output b"""


def test_dead_channels_are_named_with_the_reason() -> None:
    graph = parse_graph(GRAPH)
    weight, bias, reader = (graph.constants[name].copy() for name in ("a.weight", "a.bias", "b.weight"))
    weight[1] = 0
    bias[2] = -1000
    reader[:, 4] = 0
    graph = graph.with_constants({"a.weight": weight, "a.bias": bias, "b.weight": reader})
    found = find_dead_channels(graph, channel_ranges(graph, (images(1, (1, 3, 6, 6)),)))
    assert found.without_weights == {"a": (1,)}
    assert found.silent["a"] in ((2,), (1, 2))  # channel 1 holds its bias, of either sign
    assert found.unread == {"a": (4,)}
    assert found.of("a") == (1, 2, 4)
    assert found.count == 3
    assert "1, 2, 4" in str(found)


def test_without_samples_weights_tell() -> None:
    graph = parse_graph(GRAPH)
    assert str(find_dead_channels(graph)) == "no dead channels"
    found = find_dead_channels(graph.with_constants({"a.weight": np.zeros((6, 3, 3, 3), np.float32)}))
    assert found.of("a") == (0, 1, 2, 3, 4, 5)
