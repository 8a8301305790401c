"""Ranges of tensors that are masked before a softmax or another op to which very low values are all alike.

    y = x + m,   m is 0 or -1e9          y = where(mask, -1e9, x)

A step of y as wide as -1e9 asks for would round every x to zero. Where only `_FLATTENING` ops read y, all values
`depth` below the lowest that is not masked act alike, so the mask's range ends there and its lower values saturate:

    lowest of y   min(lowest x + lowest m that is no mask value, 0) - depth
    lowest of m   lowest of y - highest x,  so that x + m saturates whatever x is
    depth         16 before a softmax (e^-16 is 1e-7), more where y is added to or scaled before

A row that is masked as a whole comes out even.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from toolchain.graph import Graph, Node, Op
from toolchain.quantization.ranges import Ranges, range_of

DEPTH = 16.0
"""How far below all others a value is nothing to a softmax."""

_FAR = -1e3
"""What a computed operand must reach to be taken for a mask; a constant's values are known, and judged by their gap."""

_LEVEL = 256.0
"""A mask that is computed as a product is complete from this share of its factor's range on: one step."""

_FLATTENING = frozenset(
    {Op.SOFTMAX, Op.LOG_SOFTMAX, Op.SIGMOID, Op.EXP, Op.RELU, Op.RELU6, Op.REDUCE_MAX, Op.MAX_POOL2D, Op.ARGMAX}
)
_MOVES = frozenset({Op.RESHAPE, Op.PERMUTE, Op.SLICE, Op.EXPAND, Op.REQUANTIZE, Op.GATHER})
_MASKING = frozenset({Op.ADD, Op.WHERE})


def limit_masks(graph: Graph, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """`ranges` with masks and what they are added to or chosen for limited, those of constant masks included."""
    limited = dict(ranges)
    depths = _depths(graph, ranges)
    wanted: dict[str, list[float]] = {}
    for node in graph.nodes:
        if node.op in _MASKING and node.output in depths:
            limited[node.output] = _within(limited[node.output], _reached(graph, node, limited))
            _limit_node(graph, node, limited, wanted, depths[node.output])
        elif node.output in depths and (factor := _factor(graph, node)) and node.inputs[0] in limited:
            low, high = limited[node.inputs[0]]
            limited[node.output] = _within(limited[node.output], (low * factor, high * factor))
    for name in reversed(graph.activations):
        _limit_producers(graph, name, limited, wanted)
    for name, lows in wanted.items():
        if graph.is_constant(name) and len(lows) == len(graph.consumers.get(name, ())):
            low, high = range_of(graph, limited, name)
            limited[name] = (max(low, min(lows)), max(high, min(lows)))
    return limited


def _depths(graph: Graph, ranges: Ranges) -> dict[str, float]:
    """Activations to whose readers all very low values are alike -> how far below the others these must be."""
    found: dict[str, float] = {}
    for name in reversed(graph.activations):
        readers = graph.consumers.get(name, ())
        if readers and name not in graph.outputs and graph.is_real(name):
            depths = [_depth_before(graph, ranges, reader, name, found) for reader in readers]
            known = [depth for depth in depths if depth is not None]
            if len(known) == len(depths):
                found[name] = max(known)
    return found


def _depth_before(graph: Graph, ranges: Ranges, reader: Node, name: str, found: Mapping[str, float]) -> float | None:
    if reader.op in _FLATTENING:
        return DEPTH
    depth = found.get(reader.output)
    if depth is None:
        return None
    if reader.op is Op.ADD:
        (other,) = [n for n in reader.inputs if n != name] or [name]
        low, high = range_of(graph, ranges, other)
        return depth if low <= _FAR else depth + high - low
    if reader.op is Op.WHERE and name in reader.inputs[1:]:
        return depth
    factor = _factor(graph, reader)
    return depth / factor if factor else None


def _factor(graph: Graph, node: Node) -> float | None:
    """By what a node multiplies its first input: 1 where it moves it, None where it does anything else."""
    if node.op in _MOVES:
        return 1.0
    if node.op is Op.MUL and graph.is_constant(node.inputs[1]) and graph.constants[node.inputs[1]].size == 1:
        factor = float(graph.constants[node.inputs[1]].reshape(()))
        return factor if factor > 0 else None
    return None


def _reached(graph: Graph, node: Node, ranges: Ranges) -> tuple[float, float]:
    """What a masking node can give of operands that saturate."""
    lows, highs = zip(*(range_of(graph, ranges, name) for name in node.inputs[-2:]), strict=True)
    return (sum(lows), sum(highs)) if node.op is Op.ADD else (min(lows), max(highs))


def _limit_node(
    graph: Graph, node: Node, limited: dict[str, tuple[float, float]], wanted: dict[str, list[float]], depth: float
) -> None:
    """Limit the result of a masking node, and note the limit of its mask."""
    for mask, other in (node.inputs[-2:], node.inputs[:-3:-1]):
        low, high = range_of(graph, limited, other)
        base = _lowest_unmasked(graph, node, limited, mask, (low, high), depth)
        if base is None:
            continue
        is_sum = node.op is Op.ADD
        floor = min(low + base if is_sum else min(low, base), 0.0) - depth
        top = max(range_of(graph, limited, mask)[1], base)
        limited[node.output] = _within(limited[node.output], (floor, high + top if is_sum else max(high, base)))
        wanted.setdefault(mask, []).append(floor - high if is_sum else floor)
        return


def _lowest_unmasked(
    graph: Graph, node: Node, ranges: Ranges, mask: str, other: tuple[float, float], depth: float
) -> float | None:
    """The lowest value of `mask` that is no mask value, if it has mask values as well; for a `where` the lowest of
    both operands."""
    low, high = other
    if not graph.is_constant(mask):
        is_far = ranges[mask][0] <= min(_FAR, low - depth - max(high, 0.0))
        return (0.0 if node.op is Op.ADD else low) if is_far else None
    values = np.unique(graph.constants[mask].astype(np.float64))[::-1]
    # a `where` has its other operand to compare with
    values = values if node.op is Op.ADD else np.concatenate([[max(low, values[0])], values])
    for before, value in pairwise(values):
        floor = min((low if node.op is Op.ADD else 0.0) + before, low, 0.0) - depth
        if value < floor - (max(high, 0.0) if node.op is Op.ADD else 0.0):
            return float(before) if node.op is Op.ADD else min(float(before), low)
    return None


def _limit_producers(
    graph: Graph, name: str, limited: dict[str, tuple[float, float]], wanted: dict[str, list[float]]
) -> None:
    """Limit a computed mask, of which all readers allow that, and ask the same of what it is made from."""
    lows = wanted.get(name, [])
    if not lows or len(lows) != len(graph.consumers.get(name, ())) or name in graph.outputs:
        return
    low = min(lows)
    limited[name] = (max(limited[name][0], low), max(limited[name][1], low))
    node = graph.producers.get(name)
    for source, bound in () if node is None else _asked(graph, node, limited, low):
        wanted.setdefault(source, []).append(bound)


def _asked(graph: Graph, node: Node, ranges: Ranges, low: float) -> Iterator[tuple[str, float]]:
    """Inputs of the node that makes a mask, and the lowest each need have."""
    if node.op in _MOVES:
        yield node.inputs[0], low
    elif node.op is Op.WHERE:
        yield from ((name, low) for name in node.inputs[1:])
    elif node.op is Op.MUL:
        for factor, other in (node.inputs, node.inputs[::-1]):
            lowest, highest = range_of(graph, ranges, other)
            if graph.is_constant(factor) and lowest >= 0 and highest > 0:
                yield factor, low * _LEVEL / highest


def _within(extent: tuple[float, float], bounds: tuple[float, float]) -> tuple[float, float]:
    low = max(extent[0], bounds[0])
    return low, max(low, min(extent[1], bounds[1]))
