"""Layers and residual blocks that can go as a whole: what their result becomes, and the graph without them.

    residual block   add(branch, shortcut)  ->  shortcut, where the branch starts from it, or from the tensor that a
                     cheaper chain (a 1x1 projection) makes the shortcut of
    layer            y = W x (+ batch norm)  ->  x, where x and y have one shape

As in ShortGPT (Men et al., arXiv 2403.03853) and Chen and Zhao (TPAMI 2018) what a block is worth is measured, not read
from its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolchain.graph import RECURRENT, WEIGHTED, Codebook, Graph, Node, Op, Structure
from toolchain.graph.cost import COST_RULES

LAYERS = WEIGHTED | RECURRENT


@dataclass(frozen=True)
class Block:
    """Once it is gone, what read `replaced` reads `by`; `nodes` are the names of the nodes that go."""

    name: str
    kind: str
    replaced: str
    by: str
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def find_blocks(graph: Graph) -> tuple[Block, ...]:
    """All blocks and layers that can go, in the order of the graph."""
    found = [*_residual_blocks(graph), *_layers(graph)]
    order = {node.output: position for position, node in enumerate(graph.nodes)}
    return tuple(sorted(found, key=lambda block: (order[block.replaced], block.kind)))


def remove_block(graph: Graph, block: Block) -> Graph:
    """`graph` without the block; an activation that was fused into its last node stays, as a node of that name."""
    return _shorted(graph, block.replaced, block.by)


def kept_structure(structure: Structure, graph: Graph) -> Structure:
    """Masks and codebooks of constants that are still there."""
    masks = {name: mask for name, mask in structure.masks.items() if name in graph.constants}
    books: dict[str, Codebook] = {n: book for n, book in structure.codebooks.items() if n in graph.constants}
    return Structure(masks, books)


def layer_count(graph: Graph) -> int:
    """Nodes with weights."""
    return sum(node.op in LAYERS for node in graph.nodes)


def _shorted(graph: Graph, replaced: str, by: str) -> Graph:
    last = graph.producers[replaced]
    fused = str(last.attributes.get("activation", "none"))
    if fused != "none":
        kept = Node(Op(fused), last.name, (by,), last.outputs, {}, last.source)
        return graph.with_nodes([kept if node is last else node for node in graph.nodes])
    return graph.with_nodes(
        replace(node, inputs=tuple(by if name == replaced else name for name in node.inputs)) for node in graph.nodes
    )


def _block(graph: Graph, name: str, kind: str, replaced: str, by: str) -> Block | None:
    """The block, where the graph stays whole without it and loses a layer."""
    last = graph.producers[replaced]
    plain = last.attributes.get("activation", "none") == "none"
    if graph.types[replaced] != graph.types[by] or (replaced in graph.outputs and plain):
        return None
    left = {node.output for node in _shorted(graph, replaced, by).nodes}
    gone = [node for node in graph.nodes if node.output not in left]
    if not any(node.op in LAYERS for node in gone):
        return None
    return Block(name, kind, replaced, by, tuple(node.name for node in gone))


def _residual_blocks(graph: Graph) -> Iterator[Block]:
    for node in graph.nodes:
        if node.op is not Op.ADD or any(graph.is_constant(name) for name in node.inputs):
            continue
        left, right = node.inputs
        options = [_residual(graph, node, *pair) for pair in ((left, right), (right, left))]
        fit = [block for block in options if block is not None]
        if fit:
            yield max(fit, key=lambda block: _macs(graph, block))


def _residual(graph: Graph, node: Node, branch: str, shortcut: str) -> Block | None:
    before = _ancestors(graph, branch)
    chain = []
    tensor = shortcut
    while tensor not in before:
        maker = graph.producers.get(tensor)
        read = [name for name in maker.inputs if not graph.is_constant(name)] if maker else []
        if maker is None or len(read) != 1 or graph.only_consumer(tensor) is None:
            return None
        chain.append(maker)
        tensor = read[0]
    block = _block(graph, node.name, "residual block", node.output, shortcut)
    if block is None or (chain and _node_macs(graph, chain) >= _macs(graph, block)):
        return None
    return block


def _layers(graph: Graph) -> Iterator[Block]:
    for node in graph.nodes:
        if node.op not in LAYERS or graph.is_constant(node.inputs[0]):
            continue
        after = graph.only_consumer(node.output)
        norm = after is not None and after.op is Op.BATCH_NORM and node.attributes.get("activation", "none") == "none"
        replaced = after.output if after is not None and norm else node.output
        block = _block(graph, node.name, "layer", replaced, node.inputs[0])
        if block is not None:
            yield block


def _ancestors(graph: Graph, tensor: str) -> set[str]:
    """Activations that `tensor` is computed from, itself among them."""
    found: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in found or graph.is_constant(name):
            continue
        found.add(name)
        waiting += graph.producers[name].inputs if name in graph.producers else ()
    return found


def _macs(graph: Graph, block: Block) -> int:
    return _node_macs(graph, [node for node in graph.nodes if node.name in block.nodes])


def _node_macs(graph: Graph, nodes: list[Node]) -> int:
    types = graph.types
    return sum(COST_RULES[n.op](n, [types[i] for i in n.inputs], types[n.output]) for n in nodes)
