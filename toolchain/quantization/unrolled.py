"""Recurrent layers of a quantized graph written out step by step: what a float node was makes float nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from toolchain.graph import Node
from toolchain.graph.recurrence import unroll
from toolchain.quantization.quantized import QuantizedGraph


def unrolled(model: QuantizedGraph, wanted: Callable[[Node], bool], *, any_batch: bool = False) -> QuantizedGraph:
    """`model` with the recurrent nodes that are `wanted` written out as by `unroll`; every tensor it had is there."""
    graph = unroll(model.graph, wanted, any_batch=any_batch)
    reasons = dict(model.float_nodes)
    for node in graph.nodes:
        layer = node.output.rpartition("/")[0]
        if node.output not in model.graph.types and layer in reasons:
            reasons[node.output] = reasons[layer]
    return replace(model, graph=graph, float_nodes=reasons)
