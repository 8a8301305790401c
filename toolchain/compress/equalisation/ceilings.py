"""A ceiling for each channel: `relu6(y)` scaled by f <= 1 is `minimum(relu6(f y), 6 f)`, whatever y.

The fused relu6 stays, so the range of the layer does not grow, and the constant lies on the integers of its result. One
more op a layer, and so only where rounding gains by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from toolchain.compress.equalisation.noise import Noise
from toolchain.compress.equalisation.scale_flow import UNIT, Ceiling, Channels
from toolchain.compress.equalisation.solve import total_noise
from toolchain.graph import Graph, Node, Op
from toolchain.graph.graph import unique_name


def liftable(channels: Channels) -> list[Ceiling]:
    """Ceilings that could be given to each channel: the lower bound, if there is one, is 0 or none."""
    found = channels.flow.ceilings
    return [c for c in found if c.low == -inf and 0 < c.high < inf and np.any(channels.root[c.labels] != UNIT)]


def worth_lifting(
    channels: Channels, ceilings: Sequence[Ceiling], terms: Sequence[Noise], logs: np.ndarray, gain_db: float
) -> list[Ceiling]:
    """Those of `ceilings` without whose factors in `logs` the whole noise were more than `gain_db` larger."""
    noise, kept = total_noise(terms, logs), []
    for ceiling in ceilings:
        without = logs.copy()
        without[channels.root[ceiling.labels]] = 0.0
        if 10 * np.log10(total_noise(terms, without) / noise) > gain_db:
            kept.append(ceiling)
    return kept


def with_ceilings(graph: Graph, channels: Channels, factors: np.ndarray, ceilings: Sequence[Ceiling]) -> Graph:
    """`graph`, whose constants are scaled, with a `minimum` behind each of `ceilings`. Its result takes the name that
    the layer's result had."""
    lifted = {ceiling.tensor: ceiling for ceiling in ceilings}
    constants, nodes, taken = dict(graph.constants), [], set(graph.types)
    for node in graph.nodes:
        ceiling = lifted.get(node.output)
        if ceiling is None:
            nodes.append(node)
            continue
        inner, bound = (unique_name(f"{node.output}.{part}", taken) for part in ("unbounded", "ceiling"))
        taken |= {inner, bound}
        constants[bound] = np.asarray(ceiling.high * factors[channels.root[ceiling.labels]], np.float32)
        nodes += [
            replace(node, outputs=(inner,)),
            Node(Op.MINIMUM, node.name, (inner, bound), node.outputs, {}, node.source),
        ]
    return graph.with_nodes(nodes, constants)
