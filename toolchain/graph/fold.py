"""Rewrites that change how a graph computes but not what: done once, before calibration, and shared by both writers.

Batch norm over channel c with statistics mean, variance is the affine map `y = a x + b` with

    a_c = weight_c / sqrt(variance_c + epsilon),      b_c = bias_c - a_c mean_c

and folds into the convolution or linear layer before it, `W'_c = a_c W_c`, `bias'_c = a_c bias_c + b_c` (Jacob et al.,
arXiv 1712.05877, section 3.2). One that cannot be folded becomes a depthwise 1x1 convolution, whose per-channel weights
keep their precision in int8 where per-tensor multipliers would not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from toolchain.graph.blocks import order_blocks, reordered_constants
from toolchain.graph.graph import Graph, unique_name
from toolchain.graph.moves import merge_permutes
from toolchain.graph.node import Node
from toolchain.graph.ops import ACTIVATIONS, WEIGHTED, Op
from toolchain.graph.sequences import keep_images
from toolchain.graph.structure import Structure

_FUSABLE = WEIGHTED | {Op.ADD, Op.SUB, Op.MUL}


def fold(graph: Graph) -> Graph:
    """Fold batch norms, explicit zero pads, activations and reshapes that do nothing. Idempotent."""
    while True:
        before = graph.nodes
        for rewrite in _REWRITES:
            graph = rewrite(graph)
        if graph.nodes == before:
            return graph


def fold_structure(structure: Structure, before: Graph, after: Graph) -> Structure:
    """`structure` for a graph that has been folded: masks hold; a codebook whose weights were rescaled is dropped; both
    follow weights that were reordered."""
    moved = reordered_constants(before, after)
    masks = {name: moved[name].apply(mask) for name, mask in structure.masks.items() if name in moved}
    books = {}
    for name, book in structure.codebooks.items():
        weight = moved[name].apply(before.constants[name]) if name in moved else before.constants[name]
        if name in moved:
            books[name] = replace(book, indices=moved[name].apply(book.indices))
        if name not in after.constants or not np.array_equal(weight, after.constants[name]):
            structure, _ = structure.without_codebook(name), books.pop(name, None)
    return structure.with_masks(masks).with_codebooks(books)


def batch_norm_affine(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and offset `(C,)`, float64, that the batch norm `node` applies."""
    weight, bias, mean, variance = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
    multiplier = weight / np.sqrt(variance + node["epsilon"])
    return multiplier, bias - multiplier * mean


def _fold_batch_norms(graph: Graph) -> Graph:
    nodes: dict[str, Node] = {node.output: node for node in graph.nodes}
    constants = dict(graph.constants)
    for norm in (node for node in graph.nodes if node.op is Op.BATCH_NORM):
        multiplier, offset = batch_norm_affine(graph, norm)
        producer = nodes.get(norm.inputs[0])
        if producer is not None and _absorbs(graph, producer, norm):
            folded = _scaled(producer, multiplier, offset, constants)
            # the folded layer stands where the batch norm stood, so that what it feeds keeps its name
            del nodes[producer.output]
            nodes[norm.output] = replace(folded, outputs=norm.outputs)
        else:
            nodes[norm.output] = _as_depthwise(graph, norm, multiplier, offset, constants)
    return graph.with_nodes(_in_order(graph, nodes), constants)


def _widen_batch_norms(graph: Graph) -> Graph:
    """A batch norm of what is no image, and which no layer takes in, as one of an image."""
    taken = set(graph.types)
    nodes: list[Node] = []
    for node in graph.nodes:
        producer = graph.producers.get(node.inputs[0])
        shape = graph.types[node.output].shape
        if node.op is not Op.BATCH_NORM or len(shape) == 4 or (producer and _absorbs(graph, producer, node)):
            nodes.append(node)
            continue
        image, normed = (unique_name(f"{node.output}.{part}", taken) for part in ("image", "batch_norm"))
        taken |= {image, normed}
        places = shape[2:]
        wide = {"shape": (*shape[:2], prod(places[:-1]), prod(places[-1:]))}
        nodes += [
            Node(Op.RESHAPE, image, node.inputs[:1], (image,), wide, node.source),
            replace(node, name=normed, inputs=(image, *node.inputs[1:]), outputs=(normed,)),
            Node(Op.RESHAPE, node.name, (normed,), node.outputs, {"shape": shape}, node.source),
        ]
    return graph.with_nodes(nodes)


def _in_order(graph: Graph, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[node.output] for node in graph.nodes if node.output in nodes]


def _absorbs(graph: Graph, producer: Node, norm: Node) -> bool:
    return (
        producer.op in WEIGHTED
        and producer["activation"] == "none"
        and graph.only_consumer(producer.output) is norm
        and all(graph.is_constant(name) and len(graph.consumers[name]) == 1 for name in producer.inputs[1:])
        # a linear layer over a sequence has its features last, where batch norm does not look
        and (producer.op is not Op.LINEAR or graph.types[producer.output].rank == 2)
    )


def _scaled(node: Node, multiplier: np.ndarray, offset: np.ndarray, constants: dict[str, np.ndarray]) -> Node:
    weight_name, *bias_name = node.inputs[1:]
    weight = constants[weight_name].astype(np.float64)
    bias = constants[bias_name[0]].astype(np.float64) if bias_name else 0.0
    named = bias_name[0] if bias_name else unique_name(_sibling(weight_name, "bias"), constants)
    constants[weight_name] = (weight * multiplier.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    constants[named] = (multiplier * bias + offset).astype(np.float32)
    return replace(node, inputs=(node.inputs[0], weight_name, named))


def _as_depthwise(
    graph: Graph, norm: Node, multiplier: np.ndarray, offset: np.ndarray, constants: dict[str, np.ndarray]
) -> Node:
    if graph.types[norm.output].rank != 4:
        return norm
    weight, bias = (_own_name(graph, name, constants) for name in norm.inputs[1:3])
    constants[weight] = multiplier.reshape(-1, 1, 1, 1).astype(np.float32)
    constants[bias] = offset.astype(np.float32)
    return Node(Op.DEPTHWISE_CONV2D, norm.name, (norm.inputs[0], weight, bias), norm.outputs, {}, norm.source)


def _own_name(graph: Graph, constant: str, constants: dict[str, np.ndarray]) -> str:
    """`constant`'s own name where a single node reads it, else a new one: the other readers keep the old value."""
    return constant if len(graph.consumers[constant]) == 1 else unique_name(constant, constants)


def _sibling(constant: str, leaf: str) -> str:
    return f"{constant.rpartition('.')[0]}.{leaf}".lstrip(".")


def _fold_pads(graph: Graph) -> Graph:
    """A zero pad of the two image axes moves into the padding of the convolutions that alone read it."""
    replaced: dict[str, Node] = {}
    for pad in graph.nodes:
        readers = graph.consumers.get(pad.outputs[0], ())
        if pad.op is not Op.PAD or not _pads_image_with_zeros(graph, pad) or pad.output in graph.outputs:
            continue
        if all(r.op in (Op.CONV2D, Op.DEPTHWISE_CONV2D) and r.inputs[0] == pad.output for r in readers):
            _, _, top, left, _, _, bottom, right = pad["amounts"]
            for reader in readers:
                more = tuple(a + b for a, b in zip(reader["padding"], (top, left, bottom, right), strict=True))
                inputs = (pad.inputs[0], *reader.inputs[1:])
                replaced[reader.output] = replace(reader, inputs=inputs).with_attributes(padding=more)
    return graph.with_nodes(replaced.get(node.outputs[0], node) for node in graph.nodes)


def _pads_image_with_zeros(graph: Graph, pad: Node) -> bool:
    amounts = pad["amounts"]
    zeros = pad["mode"] == "constant" and pad["value"] == 0.0 and min(amounts) >= 0
    return len(amounts) == 8 and not any(amounts[i] for i in (0, 1, 4, 5)) and zeros


def _fuse_activations(graph: Graph) -> Graph:
    """A relu or relu6 that alone reads a fusable op becomes that op's `activation`; the result keeps the relu's
    name."""
    replaced: dict[str, Node | None] = {}
    for node in graph.nodes:
        follower = graph.only_consumer(node.outputs[0])
        if node.op not in _FUSABLE or node["activation"] != "none" or follower is None:
            continue
        if follower.op.value in ACTIVATIONS:
            replaced[node.output] = None
            replaced[follower.output] = replace(node, outputs=follower.outputs).with_attributes(
                activation=follower.op.value
            )
    nodes = (replaced.get(node.outputs[0], node) for node in graph.nodes)
    return graph.with_nodes(node for node in nodes if node is not None)


def _drop_identities(graph: Graph) -> Graph:
    """Reshapes, permutes, pads, slices and expansions that leave their input as it was; consecutive reshapes become
    one, and so do permutes; an even gather becomes a slice."""
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        identity = _IDENTITIES.get(node.op)
        if identity is not None and identity(graph, node) and node.output not in graph.outputs:
            renamed[node.output] = node.inputs[0]
        else:
            nodes.append(_merged(graph, nodes, node))
    return _drop_expansions(graph.with_nodes(nodes))


def _merged(graph: Graph, before: list[Node], node: Node) -> Node:
    if node.op is Op.GATHER:
        return _as_slice(graph, node)
    if node.op not in (Op.RESHAPE, Op.PERMUTE):
        return node
    producer = next((n for n in reversed(before) if n.output == node.inputs[0]), None)
    if producer is None or producer.op is not node.op:
        return node
    node = replace(node, inputs=producer.inputs)
    if node.op is Op.RESHAPE:
        return node
    return node.with_attributes(axes=tuple(producer["axes"][axis] for axis in node["axes"]))


def _as_slice(graph: Graph, node: Node) -> Node:
    """A gather of places that lie evenly, all known."""
    source, indices = node.inputs
    places = graph.constants.get(indices)
    if places is None or places.ndim != 1 or len(places) < 2 or graph.is_constant(source):
        return node
    first, step = int(places[0]), int(places[1]) - int(places[0])
    if first < 0 or step < 1 or not np.array_equal(places, first + step * np.arange(len(places))):
        return node
    bounds = {"axes": (node["axis"],), "starts": (first,), "stops": (int(places[-1]) + 1,), "steps": (step,)}
    return replace(node, op=Op.SLICE, inputs=(source,), attributes=bounds)


def _drop_expansions(graph: Graph) -> Graph:
    """An op that broadcasts reads what an expansion reads, where its result has the same shape all the same."""
    return graph.with_nodes(_unexpanded(graph, node) if node.op in _BROADCASTING else node for node in graph.nodes)


def _unexpanded(graph: Graph, node: Node) -> Node:
    inputs = list(node.inputs)
    for position, name in enumerate(node.inputs):
        maker = graph.producers.get(name)
        if maker is None or maker.op is not Op.EXPAND:
            continue
        tried = [*inputs[:position], maker.inputs[0], *inputs[position + 1 :]]
        same_rank = graph.types[maker.inputs[0]].rank == graph.types[name].rank
        if same_rank and np.broadcast_shapes(*(graph.types[n].shape for n in tried)) == graph.types[node.output].shape:
            inputs = tried
    return replace(node, inputs=tuple(inputs))


_BROADCASTING = frozenset(
    {Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.POW, Op.MINIMUM, Op.MAXIMUM, Op.EQUAL, Op.NOT_EQUAL, Op.LESS, Op.LESS_EQUAL}
    | {Op.GREATER, Op.GREATER_EQUAL, Op.LOGICAL_AND, Op.LOGICAL_OR, Op.WHERE}
)

_REWRITES: tuple[Callable[[Graph], Graph], ...] = (
    _drop_identities,
    merge_permutes,
    keep_images,
    _widen_batch_norms,
    _fold_batch_norms,
    _fold_pads,
    _fuse_activations,
    order_blocks,
)

_IDENTITIES: dict[Op, Callable[[Graph, Node], bool]] = {
    Op.RESHAPE: lambda graph, node: graph.types[node.inputs[0]].shape == node["shape"],
    Op.PERMUTE: lambda graph, node: node["axes"] == tuple(range(len(node["axes"]))),
    Op.PAD: lambda graph, node: not any(node["amounts"]),
    Op.EXPAND: lambda graph, node: graph.types[node.inputs[0]].shape == node["shape"],
    Op.SLICE: lambda graph, node: graph.types[node.output].shape == graph.types[node.inputs[0]].shape,
}
