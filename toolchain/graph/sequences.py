"""Convolutions along one axis: `(N, C, L)` is convolved as the image `(N, C, 1, L)`.

The tracer puts a reshape before and one behind each. Moved past what works element by element, the one behind meets the
one before the next convolution, and both vanish; a batch norm or an activation between then reads the convolution
itself, into which it folds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.graph.blocks import ELEMENTWISE
from toolchain.graph.graph import Graph, unique_name
from toolchain.graph.node import Node
from toolchain.graph.ops import Op

_MOVABLE = ELEMENTWISE | {Op.BATCH_NORM, Op.PRELU, Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MINIMUM, Op.MAXIMUM}


def keep_images(graph: Graph) -> Graph:
    """Elementwise ops over sequences, all of which were images, as ops over these images."""
    constants, nodes = dict(graph.constants), []
    producers: dict[str, Node] = {}
    taken = set(graph.types)
    for node in graph.nodes:
        made = _on_images(graph, node, producers, constants, taken)
        nodes += made
        producers |= {each.output: each for each in made}
    return graph.with_nodes(nodes, constants) if len(nodes) > len(graph.nodes) else graph


def _on_images(
    graph: Graph, node: Node, producers: dict[str, Node], constants: dict[str, np.ndarray], taken: set[str]
) -> list[Node]:
    """`node`, or it over images and the reshape that follows."""
    read = [name for name in node.inputs if not graph.is_constant(name)]
    sequence = graph.types[node.output].shape
    if node.op not in _MOVABLE or not read or len(sequence) != 3:
        return [node]
    images = {name: _image(graph, name, producers.get(name)) for name in read}
    if None in images.values():
        return [node]
    inputs = []
    for position, name in enumerate(node.inputs):
        wide = images.get(name) if name in images else _constant(graph, node, position, constants)
        if wide is None:
            return [node]
        inputs.append(wide)
    output = unique_name(f"{node.output}.{node.op}", taken)
    taken.add(output)
    moved = replace(node, name=output, inputs=tuple(inputs), outputs=(output,))
    return [moved, Node(Op.RESHAPE, node.output, (output,), node.outputs, {"shape": sequence}, node.source)]


def _image(graph: Graph, sequence: str, producer: Node | None) -> str | None:
    """The image that `producer` makes the sequence of, if it does."""
    shape = graph.types[sequence].shape
    if producer is None or producer.op is not Op.RESHAPE or len(shape) != 3:
        return None
    source = producer.inputs[0]
    # what is not of the graph was put on images here
    is_image = source not in graph.types or graph.types[source].shape == (*shape[:2], 1, shape[2])
    return source if is_image else None


def _constant(graph: Graph, node: Node, position: int, constants: dict[str, np.ndarray]) -> str | None:
    """An operand that is broadcast over a sequence, as one broadcast over an image; None where others read it too."""
    name = node.inputs[position]
    array = constants[name]
    if node.op is Op.BATCH_NORM or array.ndim < 2:
        return name
    if len(graph.consumers[name]) != 1:
        return None
    constants[name] = array.reshape(*array.shape[:-1], 1, array.shape[-1])
    return name
