"""Seconds to steps, without a clock: what a step costs is counted in multiply-accumulates and elements.

    seconds of a step = batch (3 macs / MACS_PER_SECOND + elements / ELEMENTS_PER_SECOND) + NODE_SECONDS nodes

(forward and backward, with fake quantization). The rates are those of one core of a present x86-64 machine; a slower
one takes longer and learns the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from toolchain.compress.rounding.reconstruction import Recipe
from toolchain.compress.rounding.segments import Segment
from toolchain.graph import Graph
from toolchain.graph.cost import COST_RULES

MACS_PER_SECOND, ELEMENTS_PER_SECOND = 1.5e10, 2.5e7

NODE_SECONDS = 4e-4
"""What a node costs however small its tensors are."""

BATCH_SECONDS = 0.1
"""A batch holds as many samples as such a step takes: few wide images, whose places are many, or many narrow ones."""

LEAST_BATCH, LARGEST_BATCH = 2, 32
LEAST_STEPS, MOST_STEPS = 50, 5000


def recipes(graph: Graph, segments: Sequence[Segment], seconds: float) -> list[Recipe | None]:
    """How each segment learns in its equal share of `seconds`; None for one without weights."""
    count = sum(bool(segment.weighted) for segment in segments)
    return [_recipe(graph, s, seconds / count) if s.weighted else None for s in segments]


def _recipe(graph: Graph, segment: Segment, seconds: float) -> Recipe:
    per_sample = sample_seconds(graph, segment)
    batch = min(max(round(BATCH_SECONDS / per_sample), LEAST_BATCH), LARGEST_BATCH)
    step = batch * per_sample + NODE_SECONDS * len(segment.nodes)
    steps = min(max(int(seconds / step), LEAST_STEPS), MOST_STEPS)
    return Recipe(steps=steps, batch=batch)


def sample_seconds(graph: Graph, segment: Segment) -> float:
    """Cost of one sample in one step."""
    rows = max(graph.types[graph.input_names[0]].shape[:1] or (1,))
    macs = elements = 0
    for node in segment.nodes:
        given = [graph.types[name] for name in node.inputs]
        macs += COST_RULES[node.op](node, given, graph.types[node.output])
        elements += graph.types[node.output].elements
    elements += sum(graph.types[name].elements for name in segment.inputs)
    return ceil(macs * 3 / rows) / MACS_PER_SECOND + ceil(elements / rows) / ELEMENTS_PER_SECOND
