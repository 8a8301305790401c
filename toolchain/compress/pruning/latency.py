"""Latency of a network that is not there yet, from measurements of a few that are cut out of the same one.

    ms = c0 + c1 nodes + sum_kinds (a_k MACs + b_k values moved + w_k weights)

with MACs and values of channels rounded up to what kernels compute at a time, all coefficients >= 0, fitted to
measured networks by least squares of the relative error (Lawson and Hanson's NNLS). Kinds are those of kernels: 1x1,
other and depthwise convolutions, linear and recurrent layers, products, and what only moves values. Functions of
single elements and batch norms are fused into what makes their input, and cost nothing of their own. The form is
that of NetAdapt's and nn-Meter's kernel-wise predictors (Yang et al., arXiv 1804.03230; Zhang et al., MobiSys 2021),
fitted to the network at hand instead of to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.optimize import nnls

from toolchain.compress.channels.cut import cut_graph, removed_indices
from toolchain.compress.channels.groups import find_groups
from toolchain.compress.pruning.blocks import find_blocks, remove_block
from toolchain.compress.pruning.costs import Types
from toolchain.compress.pruning.selection import channel_step, kept_count
from toolchain.graph import RECURRENT, Graph, Node, Op
from toolchain.graph.blocks import ELEMENTWISE
from toolchain.graph.cost import COST_RULES

_LARGEST_RATIO = 0.85
_FUSED = ELEMENTWISE | {Op.BATCH_NORM, Op.RESHAPE, Op.CAST}


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Predicted ms of a network by its nodes and shapes; `error` is the median relative error on measured networks that
    the fit has not seen (leave one out), `worst` the largest."""

    coefficients: dict[tuple[str, str], float]
    step: int
    error: float
    worst: float

    def __call__(self, graph: Graph, types: Types) -> float:
        return sum(self.coefficients.get(key, 0.0) * value for key, value in features(graph, types, self.step).items())


def features(graph: Graph, types: Types, step: int) -> dict[tuple[str, str], float]:
    """What the latency is linear in, by (kind, figure): MACs, values moved and weights in millions."""
    found: dict[tuple[str, str], float] = {("network", "constant"): 1.0, ("network", "nodes"): 0.0}
    for node in graph.nodes:
        if node.op in _FUSED:
            continue
        found["network", "nodes"] += 1
        for figure, value in _node_features(graph, node, types, step).items():
            key = (_kind(node, types), figure)
            found[key] = found.get(key, 0.0) + value / 1e6
    return found


def _node_features(graph: Graph, node: Node, types: Types, step: int) -> dict[str, float]:
    result = types[node.output]
    moved = result.elements + sum(types[name].elements for name in node.inputs if name not in graph.constants)
    if _kind(node, types) == "move":
        return {"values": moved}
    macs = COST_RULES[node.op](node, [types[name] for name in node.inputs], result)
    weights = sum(types[name].elements for name in node.inputs if name in graph.constants)
    channels = _channels(node, result.shape)
    filled = -(-channels // step) * step / channels
    return {"macs": macs * filled, "values": moved, "weights": weights * filled}


def _channels(node: Node, shape: Sequence[int]) -> int:
    images = node.op in (Op.CONV2D, Op.DEPTHWISE_CONV2D, Op.CONV_TRANSPOSE2D)
    return shape[1] if images else shape[-1] if shape else 1


def _kind(node: Node, types: Types) -> str:
    if node.op is Op.CONV2D:
        return "conv1x1" if prod(types[node.inputs[1]].shape[2:]) == 1 else "conv"
    if node.op in RECURRENT or node.op in (Op.DEPTHWISE_CONV2D, Op.CONV_TRANSPOSE2D, Op.LINEAR, Op.MATMUL):
        return node.op.value
    return "move"


def make_variants(
    graph: Graph, count: int, *, channels: bool = True, layers: bool = True, round_to: int = 1, seed: int = 0
) -> list[Graph]:
    """`graph` itself, then networks cut out of it: with `channels` narrower ones, every second evenly, with `layers`
    ones without some of their blocks, from one to most, and with both each in turn. Latency is not a matter of which
    channels go, so the first ones stay."""
    random = np.random.default_rng(seed)
    made = [graph]
    for number in range(1, count):
        left = graph
        if layers and not (channels and number % 2):
            left = _shallower(graph, random)
        if channels and not (layers and number % 4 == 0):
            left = _narrower(left, random, round_to, even=number // 2 % 2 == 0)
        made.append(left)
    return made


def _shallower(graph: Graph, random: np.random.Generator) -> Graph:
    """Without a random number of random blocks."""
    blocks = find_blocks(graph)
    for _ in range(int(random.integers(1, max(len(blocks) // 2, 2)))):
        if not blocks:
            break
        graph = remove_block(graph, blocks[int(random.integers(len(blocks)))])
        blocks = find_blocks(graph)
    return graph


def _narrower(graph: Graph, random: np.random.Generator, round_to: int, *, even: bool) -> Graph:
    """Every group by the same random share, or each by its own."""
    groups = [group for group in find_groups(graph) if group.prunable]
    ratios = random.uniform(0, _LARGEST_RATIO, max(len(groups), 1))
    ratios[:] = ratios[0] if even else ratios
    kept = [kept_count(g.size, ratio, channel_step(g, round_to)) for g, ratio in zip(groups, ratios, strict=False)]
    return cut_graph(graph, removed_indices((g, np.arange(k)) for g, k in zip(groups, kept, strict=True)))


def fit_latency(graphs: Sequence[Graph], milliseconds: Sequence[float], *, step: int = 8) -> LatencyModel:
    """The model that predicts the measured `milliseconds` of `graphs`; `step` is the device's vector width in
    channels."""
    rows = [features(graph, graph.types, step) for graph in graphs]
    keys = sorted({key for row in rows for key in row})
    matrix = np.array([[row.get(key, 0.0) for key in keys] for row in rows])
    measured = np.asarray(milliseconds, np.float64)
    errors = []
    for left_out in range(len(graphs)):
        others = np.arange(len(graphs)) != left_out
        fitted = _fitted(matrix[others], measured[others])
        errors.append(abs(matrix[left_out] @ fitted / measured[left_out] - 1))
    coefficients = dict(zip(keys, _fitted(matrix, measured).tolist(), strict=True))
    return LatencyModel(coefficients, step, float(np.median(errors)), float(np.max(errors)))


def _fitted(matrix: np.ndarray, measured: np.ndarray) -> np.ndarray:
    scale = np.maximum(matrix.max(axis=0), 1e-12)
    solution, _ = nnls(matrix / scale / measured[:, None], np.ones(len(measured)))
    fitted: np.ndarray = solution / scale
    return fitted
