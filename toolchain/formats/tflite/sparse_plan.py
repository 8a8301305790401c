"""Which weights are written sparse: those that XNNPACK multiplies without their zeros, and where it is asked for those
that only take fewer bytes so.

XNNPACK skips zeros in clusters that it computes channels first: entered through a 3x3 convolution of stride 2 over
three channels, left through a mean over the image, and holding nothing between the two but what has a kernel channels
first. A cluster is taken as a whole, where

    3 * (zeros of its 1x1 convolutions' weights) > 2 * (those weights),

and only in a file that holds a sparse tensor. The rules follow `xnn_subgraph_rewrite_for_nchw`, but are narrower where
it goes wrong: a cluster ends in its means, and every other tensor of it is read inside it. Where a cluster could begin
that is not taken, no weight of the file is written sparse, since XNNPACK would decide by itself then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from toolchain.formats.artifact import SparseWeights
from toolchain.formats.tflite.sparsity import stored_bytes
from toolchain.graph import DType, Finding, Graph, Node, Op
from toolchain.graph.components import connected
from toolchain.quantization import QuantizedGraph, Reals

WORTH_TELLING: Final = 2 / 3
"""Share of zeros from which on it is told why a layer's weights are not written sparse."""

_OTHER_NUMBERS: Final = "only kernels over float32 activations skip zeros"
_STORED: Final = frozenset({DType.FLOAT32, DType.FLOAT16, DType.INT8})
_ELEMENTWISE: Final = frozenset({Op.RELU, Op.RELU6, Op.LEAKY_RELU, Op.SIGMOID, Op.HARDSWISH, Op.ABS, Op.NEG})
_IMAGE_AXES: Final = (2, 3)


@dataclass(frozen=True)
class SparsePlan:
    """`weights`: constants to write sparse. `members`: outputs of the nodes of clusters that run channels first, whose
    padding and means must be written as their kernels want them. `refused`: why the zeros of other weights are
    multiplied all the same, a finding each reason."""

    weights: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()
    refused: tuple[Finding, ...] = ()


def plan_sparse(model: QuantizedGraph, sparse: SparseWeights = SparseWeights.AUTO) -> SparsePlan:
    """What of `model`, whose graph is folded, is written sparse. Kernels skip no zeros in files with integers or
    float16 activations: `AUTO` writes nothing sparse there."""
    if sparse is SparseWeights.NEVER:
        return SparsePlan()
    zeros = _zero_counts(model)
    computes_reals = not model.params and model.reals is not Reals.FLOAT16
    taken, reasons = _taken(model.graph, zeros) if computes_reals else ([], {})
    members = {node.output for cluster in taken for node in cluster.nodes}
    if not computes_reals or _may_begin(model.graph) <= members:
        read = _readable(model)
        shrinking = {name for name in zeros if name in read and _shrinks(model, name, zeros[name])}
    else:
        why = "XNNPACK might compute another part of the network channels first, which it may not"
        reasons |= {node.output: why for cluster in taken for node in cluster.nodes}
        shrinking, members, taken = set(), set(), []
    skipped = {name for cluster in taken for name in cluster.weights(model.graph)}
    weights = shrinking if sparse is SparseWeights.SMALLER else skipped & shrinking
    return SparsePlan(frozenset(weights), frozenset(members), _refusals(model.graph, zeros, skipped, reasons))


def _taken(graph: Graph, zeros: Mapping[str, int]) -> tuple[list[_Cluster], dict[str, str]]:
    """The clusters that XNNPACK takes, and why it does not take other nodes, by their outputs."""
    reasons = {node.output: why for node in graph.nodes if (why := _misfit(graph, node))}
    taken = []
    for cluster in _clusters(graph):
        why = cluster.broken or _too_dense(graph, cluster.weights(graph), zeros)
        if why is None:
            taken.append(cluster)
        else:
            reasons |= {node.output: why for node in cluster.nodes}
    return taken, reasons


@dataclass(frozen=True)
class _Cluster:
    nodes: tuple[Node, ...]
    broken: str | None

    def weights(self, graph: Graph) -> set[str]:
        return {node.inputs[1] for node in self.nodes if _is_pointwise(graph, node)}


def _zero_counts(model: QuantizedGraph) -> dict[str, int]:
    """Zeros of every weight of a convolution or linear layer; float16 may round a few more to zero."""
    layers = [node for node in model.graph.nodes if node.op in (Op.CONV2D, Op.LINEAR)]
    names = dict.fromkeys(node.inputs[1] for node in layers if model.graph.is_constant(node.inputs[1]))
    stored = {name: model.integers[name] if name in model.params else model.graph.constants[name] for name in names}
    return {name: int(values.size - np.count_nonzero(values)) for name, values in stored.items()}


def _too_dense(graph: Graph, names: Collection[str], zeros: Mapping[str, int]) -> str | None:
    total, found = sum(graph.constants[name].size for name in names), sum(zeros[name] for name in names)
    if 3 * found > 2 * total:
        return None
    share = found / total if total else 0.0
    return f"{share:.0%} of the 1x1 weights in its cluster are zero; XNNPACK wants more than two thirds"


def _readable(model: QuantizedGraph) -> set[str]:
    """Weights that LiteRT reads from a sparse tensor as well as from a dense one. Of integers, XNNPACK refuses the file
    where a linear layer does, or a layer with float activations."""
    if not model.params:
        return {node.inputs[1] for node in model.graph.nodes if node.op in (Op.CONV2D, Op.LINEAR)}
    if not model.has_integer_activations:
        return set()
    return {
        node.inputs[1]
        for node in model.graph.nodes
        if node.op is Op.CONV2D and node.output not in model.float_nodes and node.inputs[1] in model.params
    }


def _shrinks(model: QuantizedGraph, name: str, zeros: int) -> bool:
    """Whether the file holds a weight in fewer bytes without its zeros."""
    dtype, shape = model.stored_dtype(name), model.graph.types[name].shape
    size = model.graph.constants[name].size
    if dtype not in _STORED:
        return False
    value_bytes = dtype.stored_bytes(1)
    return stored_bytes(size // shape[1], shape[1], size - zeros, value_bytes) < size * value_bytes


def _refusals(
    graph: Graph, zeros: Mapping[str, int], skipped: Collection[str], reasons: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Of the layers with many zeros that are not `skipped`, those of one reason together, under the first of them."""
    alike: dict[str, list[Node]] = {}
    for node in graph.nodes:
        name = node.inputs[1] if node.op in (Op.CONV2D, Op.LINEAR) else ""
        if name in zeros and name not in skipped and zeros[name] > WORTH_TELLING * graph.constants[name].size:
            alike.setdefault(reasons.get(node.output, _OTHER_NUMBERS), []).append(node)
    return tuple(_refusal(graph, zeros, nodes, why) for why, nodes in alike.items())


def _refusal(graph: Graph, zeros: Mapping[str, int], nodes: list[Node], why: str) -> Finding:
    names = {node.inputs[1] for node in nodes}
    share = sum(zeros[name] for name in names) / sum(graph.constants[name].size for name in names)
    others = f" and those of {len(nodes) - 1} more layers" if len(nodes) > 1 else ""
    what = f"{share:.0%} of its weights{others} are zero, which no kernel skips: {why}"
    return Finding(_label(nodes[0]), what, nodes[0].source, blocks=False)


# clusters


def _clusters(graph: Graph) -> list[_Cluster]:
    """Connected nodes that have kernels channels first, each group with the first reason why it cannot be taken."""
    misfits = {node.output: _misfit(graph, node) for node in graph.nodes}
    entries = {node.output for node in graph.nodes if _is_entry(graph, node)}
    inside = {name for name, why in misfits.items() if why is None}
    leaders = _connected(graph, inside, entries)
    groups: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if node.output in leaders:
            groups.setdefault(leaders[node.output], []).append(node)
    return [
        _Cluster(tuple(nodes), _broken(graph, nodes, inside, entries, misfits))
        for nodes in groups.values()
        if any(_is_pointwise(graph, node) for node in nodes)
    ]


def _connected(graph: Graph, inside: set[str], entries: set[str]) -> dict[str, int]:
    """The group of each node, by its output: a node goes with the makers of what it reads."""
    places = {name: place for place, name in enumerate(sorted(inside | entries))}
    pairs = [
        (places[name], places[node.output])
        for node in graph.nodes
        if node.output in inside
        for name in node.inputs
        if name in places and not _is_image_mean(graph, graph.producers[name])
    ]
    ends = np.asarray(pairs, np.int64).reshape(-1, 2)
    leaders = connected(len(places), [(ends[:, 0], ends[:, 1])])
    return {name: int(leaders[place]) for name, place in places.items()}


def _broken(
    graph: Graph, nodes: list[Node], inside: set[str], entries: set[str], misfits: Mapping[str, str | None]
) -> str | None:
    outputs = {node.output for node in nodes}
    for node in nodes:
        for name in node.inputs if node.output in inside else ():
            maker = graph.producers.get(name)
            if maker is None and not graph.is_constant(name):
                return f"its cluster begins at the input {name} with {_label(node)}, not with {_ENTRY}"
            if maker is not None and (name not in outputs or _is_image_mean(graph, maker)):
                why = misfits[maker.output] or "a mean over the image ends a cluster"
                return f"its cluster reads {_label(maker)}: {why}"
        if _is_image_mean(graph, node):
            continue
        readers = graph.consumers.get(node.output, ())
        if node.output in graph.outputs or not readers:
            return f"its cluster ends in {_label(node)}, which is not a mean over the image"
        for reader in readers:
            if reader.output not in inside:
                return f"its cluster is read by {_label(reader)}: {misfits[reader.output]}"
    return None if any(node.output in entries for node in nodes) else f"its cluster does not begin with {_ENTRY}"


def _label(node: Node) -> str:
    return f"{node.op} {node.name}"


# what has a kernel channels first

_ENTRY: Final = "a 3x3 convolution of stride 2 and padding 1 over three channels"
_ENTERING: Final = {"groups": 1, "stride": (2, 2), "dilation": (1, 1), "padding": (1, 1, 1, 1)}
_POINTWISE: Final = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0)}


def _differs(node: Node, wanted: Mapping[str, object]) -> str | None:
    """The first attribute that is not as a kernel wants it."""
    found = (key for key, value in wanted.items() if node[key] != value)
    return next((f"its {key} is {node[key]}, XNNPACK's kernel wants {wanted[key]}" for key in found), None)


def _is_entry(graph: Graph, node: Node) -> bool:
    if node.op is not Op.CONV2D or not graph.is_constant(node.inputs[1]):
        return False
    return graph.types[node.inputs[1]].shape[1:] == (3, 3, 3) and _differs(node, _ENTERING) is None


def _may_begin(graph: Graph) -> set[str]:
    """Outputs of convolutions that XNNPACK could take for the beginning of a cluster however they are written: behind a
    PAD of the graph's own. Of other padding only what windows reach is written, which it does not take."""
    makers = {node.output: graph.producers.get(node.inputs[0]) for node in graph.nodes if node.op is Op.CONV2D}
    padded = {name for name, maker in makers.items() if maker is not None and maker.op is Op.PAD}
    return {name for name in padded if graph.types[graph.producers[name].inputs[1]].shape[1:] == (3, 3, 3)}


def _is_pointwise(graph: Graph, node: Node) -> bool:
    return node.op is Op.CONV2D and _misfit(graph, node) is None


def _is_image_mean(graph: Graph, node: Node) -> bool:
    if node.op is Op.MEAN:
        return graph.types[node.inputs[0]].rank == 4 and tuple(sorted(node["axes"])) == _IMAGE_AXES
    shape = graph.types[node.inputs[0]].shape[2:]
    return node.op is Op.AVG_POOL2D and node["kernel_size"] == shape and not any(node["padding"])


def _misfit(graph: Graph, node: Node) -> str | None:
    """Why a node has no kernel channels first inside a cluster; None where it has."""
    rule = _RULES.get(node.op)
    if rule is None:
        return f"{node.op} has no kernel channels first"
    return rule(graph, node)


def _convolution(graph: Graph, node: Node) -> str | None:
    _, channels, *kernel = graph.types[node.inputs[1]].shape
    if kernel == [1, 1]:
        return _differs(node, _POINTWISE)
    entering = _differs(node, _ENTERING) if (channels, *kernel) == (3, 3, 3) else None
    return entering or f"its kernel is {kernel[0]}x{kernel[1]}, only 1x1 convolutions are multiplied without zeros"


def _depthwise(graph: Graph, node: Node) -> str | None:
    (channels, _, *kernel), padding = graph.types[node.inputs[1]].shape, node["padding"]
    if kernel not in ([3, 3], [5, 5]):
        return f"its kernel is {kernel[0]}x{kernel[1]}, depthwise kernels channels first are 3x3 or 5x5"
    if padding != (kernel[0] // 2,) * 4:
        return f"its padding is {padding}, the kernel wants {kernel[0] // 2} on each side"
    if node["stride"] not in ((1, 1), (2, 2)) or node["dilation"] != (1, 1):
        return f"its stride is {node['stride']} and its dilation {node['dilation']}"
    same = channels == graph.types[node.inputs[0]].shape[1]
    return None if same else "it makes several channels of each"


def _binary(graph: Graph, node: Node) -> str | None:
    left, right = (graph.types[name] for name in node.inputs)
    if any(graph.is_constant(name) for name in node.inputs) or left.rank != 4 or left.shape != right.shape:
        return "it does not join two images of one shape"
    return None


def _elementwise(graph: Graph, node: Node) -> str | None:
    return None if graph.types[node.output].rank == 4 else "it is not over an image"


def _mean(graph: Graph, node: Node) -> str | None:
    return None if _is_image_mean(graph, node) else "it is not a mean over the whole image"


_RULES: Final[dict[Op, Callable[[Graph, Node], str | None]]] = {
    Op.CONV2D: _convolution,
    Op.DEPTHWISE_CONV2D: _depthwise,
    Op.ADD: _binary,
    Op.MUL: _binary,
    Op.MEAN: _mean,
    Op.AVG_POOL2D: _mean,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}
