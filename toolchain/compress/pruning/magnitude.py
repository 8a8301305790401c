"""Weight pruning: of every weight tensor the `sparsity` share with the smallest |w| becomes zero for good.

    mask = |w| > the floor(sparsity * n)-th smallest |w|         Han et al., arXiv 1506.02626, per tensor

Biases stay: they are few, and each serves a whole channel. Whether zeros pay is the target's matter (sparse
kernels, an encoder, a download); the dense integer kernels of CPUs gain nothing from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.compress.tables import format_table
from toolchain.graph import Graph, Structure, weight_inputs


@dataclass(frozen=True, eq=False)
class MagnitudePlan:
    """`masks` by weight tensor, True = kept."""

    sparsity: float
    masks: Mapping[str, np.ndarray]

    @property
    def weights(self) -> tuple[int, int]:
        """Weights that are not zero, before and after, where before none is masked."""
        kept = sum(int(np.count_nonzero(mask)) for mask in self.masks.values())
        return sum(mask.size for mask in self.masks.values()), kept

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        tensors = {name: [mask.size, int(np.count_nonzero(mask))] for name, mask in self.masks.items()}
        return {"sparsity": self.sparsity, "weights": list(self.weights), "tensors": tensors}

    def __str__(self) -> str:
        rows = [(name, f"{m.size:,}", f"{np.count_nonzero(m):,}", "") for name, m in self.masks.items()]
        total = ("total", *(f"{count:,}" for count in self.weights), "")
        table = format_table(("weight", "weights", "kept", ""), [*rows, total])
        return f"zero the {self.sparsity:.0%} smallest weights of each tensor\n{table}"


def weight_names(graph: Graph) -> list[str]:
    """The constant weights of the ops that have one, in the order of the graph."""
    names = (node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op))
    return list(dict.fromkeys(name for name in names if graph.is_constant(name)))


def plan_magnitude(graph: Graph, sparsity: float, structure: Structure | None = None) -> MagnitudePlan:
    """Which weights become zero. What `structure` has masked before stays masked and counts."""
    before = structure.masks if structure else {}
    masks = {name: smallest_masked(graph.constants[name], sparsity, before.get(name)) for name in weight_names(graph)}
    return MagnitudePlan(sparsity, masks)


def smallest_masked(weight: np.ndarray, sparsity: float, before: np.ndarray | None = None) -> np.ndarray:
    """Mask that is False for exactly `floor(sparsity * n)` weights, or those masked `before` where they are
    more."""
    magnitude = np.abs(weight).reshape(-1)
    if before is not None:
        magnitude = np.where(before.reshape(-1), magnitude, -1)
    count = max(int(sparsity * weight.size + 1e-9), np.count_nonzero(magnitude < 0))
    mask = np.ones(weight.size, bool)
    # stable: of equals the first ones go, on every machine
    mask[np.argsort(magnitude, kind="stable")[:count]] = False
    return mask.reshape(weight.shape)


def apply_masks(plan: MagnitudePlan, graph: Graph) -> Graph:
    """`graph` with the masked weights zero."""
    return graph.with_constants(
        {n: np.where(mask, graph.constants[n], np.float32(0)) for n, mask in plan.masks.items()}
    )
