"""Which nodes to compute more finely than on int8, and which weights to store in 4 bits: two integer programs.

Finer activations, in float or int16, where noise has to fall to E at the least cost:

    minimise    sum_i c_i x_i                                     x_i = 1 where node i computes finely
    subject to  sum_i w_i (1 - x_i) + sum_(t,r) a_(t,r) (1 - z_(t,r)) <= E
                z_(t,r) <= x_(maker of t),   z_(t,r) <= x_r       t stays fine on its way to r
                z_(t,r) <= x_s for all readers s of t             where t is an input, one tensor for all

with the noises w and a of `ladder.noise`; int16 leaves weights and inputs at int8, and with them all of w. The cost of
a node is what it computes: its multiply-adds and the elements it makes.

Coarser weights, where they have to fit into B bytes at the least noise:

    minimise    sum_i (w_i^4 - w_i^8) x_i                         x_i = 1 where the weights of node i have 4 bits
    subject to  sum_i b_i (1 - x_i / 2) <= B

Both are solved by HiGHS (scipy.optimize.milp), which tells the gap to the optimum that it can prove.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from toolchain.graph import Graph
from toolchain.graph.cost import node_costs
from toolchain.ladder.noise import OUTPUT, Noise

_SECONDS = 20.0
_ELEMENT_COST = 8.0
"""An element that is converted, written and read as a float costs about as much as eight multiply-adds."""


@dataclass(frozen=True)
class Choice:
    """Nodes by output; the noise that is predicted to be left, and the proven gap to the optimum."""

    nodes: frozenset[str]
    noise: float
    gap: float


def choose_fine_nodes(
    graph: Graph,
    noise: Noise,
    most_noise: float,
    *,
    already: Collection[str] = (),
    impossible: Collection[str] = (),
    keeps_weights: bool = False,
) -> Choice | None:
    """The cheapest choice with at most `most_noise` relative noise energy, or None where there is none.

    `already` are nodes that compute finely anyway, `impossible` those that cannot; `keeps_weights` where weights stay
    as they are.
    """
    names = [node.output for node in graph.nodes]
    place = {name: index for index, name in enumerate(names)}
    ways = list(noise.removable_ways(graph, keeps_weights))
    removable = {} if keeps_weights else noise.constants
    gains = np.asarray([removable.get(name, 0.0) for name in names] + [noise.activations[way] for way in ways])
    needed = noise.total - most_noise
    if needed <= 0 or needed > gains.sum():
        return Choice(frozenset(), noise.total, 0.0) if needed <= 0 else None
    cost = np.concatenate([_costs(graph, already), np.zeros(len(ways))])
    lower = [float(name in already) for name in names] + [0.0] * len(ways)
    upper = [float(name not in impossible) for name in names] + [1.0] * len(ways)
    found = _solve(
        cost,
        [LinearConstraint(gains[None] / needed, lb=1.0), *_orders(ways, place, len(gains))],
        np.concatenate([np.ones(len(names)), np.zeros(len(ways))]),
        Bounds(lower, np.maximum(lower, upper)),
    )
    if found is None:
        return None
    values, gap = found
    chosen = frozenset(name for name, value in zip(names, values, strict=False) if value > 0.5)
    return Choice(chosen - set(already), noise.total - float(gains @ np.round(values)), gap)


def choose_coarse_weights(
    noise: Mapping[str, tuple[float, float]], sizes: Mapping[str, int], most_bytes: int
) -> Choice | None:
    """The nodes whose weights take 4 bits; None where even all of them are too many bytes.

    `noise` holds (at 8 bits, at 4 bits) and `sizes` the bytes at 8 bits, by node. A choice is empty where nothing needs
    to be done.
    """
    names = list(sizes)
    saved = np.asarray([sizes[name] / 2 for name in names])
    needed = sum(sizes.values()) - most_bytes
    if needed <= 0 or needed > saved.sum():
        return Choice(frozenset(), sum(at_8 for at_8, _ in noise.values()), 0.0) if needed <= 0 else None
    added = np.asarray([max(noise[name][1] - noise[name][0], 0.0) for name in names])
    found = _solve(added, [LinearConstraint(saved[None] / needed, lb=1.0)], np.ones(len(names)), Bounds(0, 1))
    if found is None:
        return None
    values, gap = found
    chosen = frozenset(name for name, value in zip(names, values, strict=True) if value > 0.5)
    return Choice(chosen, sum(noise[name][name in chosen] for name in names), gap)


def _solve(
    cost: np.ndarray, constraints: Sequence[LinearConstraint], integrality: np.ndarray, bounds: Bounds
) -> tuple[np.ndarray, float] | None:
    """The solution and its proven gap, or None where there is none."""
    found = milp(
        cost / max(cost.max(), 1e-300),
        constraints=constraints,
        integrality=integrality,
        bounds=bounds,
        options={"time_limit": _SECONDS},
    )
    return None if found.x is None else (np.asarray(found.x), float(found.mip_gap or 0.0))


def _costs(graph: Graph, already: Collection[str]) -> np.ndarray:
    """Relative cost of each node; nothing where it computes finely anyway."""
    pairs = zip(graph.nodes, node_costs(graph), strict=True)
    costs = [cost.macs + _ELEMENT_COST * graph.types[node.output].elements for node, cost in pairs]
    is_free = [node.output in already for node in graph.nodes]
    return np.where(is_free, 0.0, np.asarray(costs, np.float64))


def _orders(ways: list[tuple[str, str]], place: Mapping[str, int], size: int) -> list[LinearConstraint]:
    """`z <= x` of whatever has to compute finely for a way to be fine, as rows `z - x <= 0`."""
    readers: dict[str, list[str]] = {}
    for tensor, reader in ways:
        readers.setdefault(tensor, []).append(reader)
    first = size - len(ways)
    pairs = [
        (first + index, place[end])
        for index, (tensor, reader) in enumerate(ways)
        for end in ((tensor, reader) if tensor in place else readers[tensor])
        if end != OUTPUT
    ]
    if not pairs:
        return []
    rows = np.repeat(np.arange(len(pairs)), 2)
    matrix = coo_matrix((np.tile([1.0, -1.0], len(pairs)), (rows, np.ravel(pairs))), shape=(len(pairs), size))
    return [LinearConstraint(matrix.tocsr(), ub=0.0)]
