"""Which weights have one scale for every block of inputs (block-wise quantization, Dettmers et al., arXiv 2110.02861):
those of linear layers, beside float activations. Both runtimes have kernels for these and for no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from toolchain.graph import DType, Graph, Node, Op, Structure, weight_inputs
from toolchain.quantization.affine import LEAST_BLOCK_SCALE, MOST_BLOCK_SCALE
from toolchain.quantization.quantized import QuantizedGraph
from toolchain.quantization.scheme import NUMBERS, Granularity, NumberFormat, Scheme

_LEAST_BLOCKED = 127 * LEAST_BLOCK_SCALE
"""A weight of smaller values has one scale a channel: its finest blocks would be coarser than int8 per tensor."""


def block_sizes(
    graph: Graph,
    scheme: Scheme,
    structure: Structure,
    numbers: Mapping[str, NumberFormat] = MappingProxyType({}),
) -> dict[str, int]:
    """Inputs that share a scale, by weight, of those whose readers all ask for blocks and can have them.

    A weight with a codebook has none: its k values would not stay k integers.
    """
    found: dict[str, int] = {}
    refused = set(structure.codebooks)
    for node in graph.nodes:
        block = NUMBERS[numbers[node.output]].block if node.output in numbers else scheme.weight_block
        for name in (node.inputs[at] for at in weight_inputs(node.op)):
            is_tensor_wide = scheme.granularity(node.op) == Granularity.PER_TENSOR
            if block is None or is_tensor_wide or why_not_blocked(graph, node, block) is not None:
                refused.add(name)
            else:
                found[name] = min(block, found.get(name, block))
    return {name: block for name, block in found.items() if name not in refused}


def why_not_blocked(graph: Graph, node: Node, block: int) -> str | None:
    """Why the weight of `node` has one scale a channel where `block` inputs are to share one; None where they do."""
    if node.op is not Op.LINEAR:
        return f"{node.op} has no kernel for scales of blocks"
    weight = graph.constants[node.inputs[1]]
    if weight.shape[1] % block:
        return f"inputs are no multiple of {block}"
    fits = _LEAST_BLOCKED <= float(np.abs(weight).max(initial=0.0)) <= MOST_BLOCK_SCALE
    return None if fits else "float16 cannot hold the scales"


def block_notes(model: QuantizedGraph, block: int) -> Iterator[str]:
    """A line for each reason for which weights have one scale a channel or a tensor though every `block` inputs were to
    have their own, and which."""
    kept: dict[str, list[str]] = {}
    for node in model.graph.nodes:
        for name in (node.inputs[at] for at in weight_inputs(node.op)):
            params = model.params.get(name)
            if params is not None and params.block is None and params.dtype in (DType.INT4, DType.INT8):
                why = why_not_blocked(model.graph, node, block) or "it has a codebook or other readers"
                kept.setdefault(f"{params.dtype} without blocks: {why}", []).append(f"{name} [{node.source}]")
    for why, names in kept.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"{why}: {', '.join(names[:_SHOWN])}{more}"


_SHOWN = 3
