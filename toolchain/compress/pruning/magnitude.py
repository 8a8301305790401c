"""Weight pruning: of every weight tensor, or of all together, the `sparsity` share that matters least becomes zero for
good.

    mask = score > the floor(sparsity * n)-th smallest score       Han et al., arXiv 1506.02626; score |w| by default

Scores are those of `importance`, of single weights or of whole blocks (`patterns`); what has been masked before counts
as gone. On the way to an N:M pattern the least of the weights go that the pattern takes in the end. With scope `local`
n counts a tensor, with `output` one output channel of it (as Wanda ranks), with `global` all of them.

Biases stay: they are few, and each serves a whole channel. Whether zeros pay is the target's matter (sparse
kernels, an encoder, a download); the dense integer kernels of CPUs gain nothing from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.compress.pruning.choices import Importance, Only, Scope
from toolchain.compress.pruning.evidence import Evidence, measure_changes, measure_moments
from toolchain.compress.pruning.importance import IMPORTANCES, Needs, input_of_weight
from toolchain.compress.pruning.patterns import SINGLE, Pattern, block_mask, block_scores, fine_mask
from toolchain.compress.tables import format_table
from toolchain.errors import OptionError
from toolchain.graph import Graph, Node, Op, Structure, weight_inputs
from toolchain.samples import Batch


@dataclass(frozen=True, eq=False)
class MagnitudePlan:
    """`masks` by weight tensor, True = kept."""

    sparsity: float
    masks: Mapping[str, np.ndarray]
    importance: Importance = Importance.L1
    scope: Scope = Scope.LOCAL
    pattern: Pattern = SINGLE

    @property
    def weights(self) -> tuple[int, int]:
        """Weights that are not zero, before and after, where before none is masked."""
        kept = sum(int(np.count_nonzero(mask)) for mask in self.masks.values())
        return sum(mask.size for mask in self.masks.values()), kept

    def facts(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        tensors = {name: [mask.size, int(np.count_nonzero(mask))] for name, mask in self.masks.items()}
        return {
            "sparsity": self.sparsity,
            "importance": self.importance.value,
            "scope": self.scope.value,
            "pattern": self.pattern.text,
            "weights": list(self.weights),
            "tensors": tensors,
        }

    def __str__(self) -> str:
        rows = [(name, f"{m.size:,}", f"{np.count_nonzero(m):,}", "") for name, m in self.masks.items()]
        total = ("total", *(f"{count:,}" for count in self.weights), "")
        table = format_table(("weight", "weights", "kept", ""), [*rows, total])
        return f"{self._title()}\n{table}"

    def _title(self) -> str:
        if self.pattern.is_fine:
            kept, run = self.pattern.kept, self.pattern.run
            return f"keep {kept} weights by {self.importance} of every {run} input channels"
        least = "smallest" if self.importance in (Importance.L1, Importance.L2) else "least"
        by = "" if least == "smallest" else f" by {self.importance}"
        things = f"blocks of {self.pattern.text}" if self.pattern.text else "weights"
        return f"zero the {self.sparsity:.0%} {least} {things}{by} {_WHERE[self.scope]}"


_WHERE = {
    Scope.LOCAL: "of each tensor",
    Scope.OUTPUT: "of each output channel",
    Scope.GLOBAL: "of all tensors together",
}


def weight_names(graph: Graph, only: Only | None = None) -> list[str]:
    """The constant weights of the ops that have one, in the order of the graph, or those of the layers `only`."""
    nodes = (node for node in graph.nodes if only is None or _is_pointwise(graph, node))
    names = (node.inputs[at] for node in nodes for at in weight_inputs(node.op))
    return list(dict.fromkeys(name for name in names if graph.is_constant(name)))


def _is_pointwise(graph: Graph, node: Node) -> bool:
    return node.op is Op.CONV2D and node["groups"] == 1 and graph.types[node.inputs[1]].shape[2:] == (1, 1)


def plan_magnitude(graph: Graph, sparsity: float, structure: Structure | None = None) -> MagnitudePlan:
    """Which weights become zero by |w|, tensor by tensor. What `structure` has masked before stays masked and
    counts."""
    return plan_weights(graph, sparsity, structure)


def plan_weights(
    graph: Graph,
    sparsity: float,
    structure: Structure | None = None,
    *,
    importance: Importance = Importance.L1,
    scope: Scope = Scope.LOCAL,
    pattern: Pattern = SINGLE,
    names: Sequence[str] | None = None,
    batches: Iterable[Batch] | None = None,
    seed: int = 0,
) -> MagnitudePlan:
    """Which weights, or blocks of them, become zero, of the tensors `names` (None: all weights); `batches` are what
    importances measure on.

    Raises OptionError for an importance that single weights do not have, or that has no samples.
    """
    scores = weight_scores(graph, importance, weight_evidence(graph, importance, batches, seed), names)
    before = structure.masks if structure else {}
    masks = choose_masks(scores, sparsity, before, scope=scope, pattern=pattern)
    taken = min(pattern.ratio, sparsity) if pattern.is_fine else sparsity
    return MagnitudePlan(taken, masks, importance, scope, pattern)


def weight_evidence(
    graph: Graph, importance: Importance, batches: Iterable[Batch] | None, seed: int
) -> Evidence:  # fmt: skip
    """What the importance of single weights must know, measured."""
    needs = IMPORTANCES[importance].needs
    if needs is Needs.NOTHING:
        return Evidence(seed=seed)
    if batches is None:
        hint = "give samples, or take importance 'l1', which needs none"
        raise OptionError(f"importance {importance.value!r} is measured on samples, and there are none", hint=hint)
    if needs is Needs.MOMENTS:
        wanted = [key for name in weight_names(graph) if (key := input_of_weight(graph, name)) is not None]
        return Evidence(moments=measure_moments(graph, wanted, batches), seed=seed)
    return measure_changes(graph, (), batches, each_sample=needs is Needs.SAMPLE_CHANGES, seed=seed)


def weight_scores(
    graph: Graph, importance: Importance, evidence: Evidence, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Importance of every weight, by tensor, of `names` or all. Raises OptionError where single weights have none."""
    rule = IMPORTANCES[importance].weights
    if rule is None:
        raise OptionError(f"importance {importance.value!r} is one of channels, not of single weights", hint="take l1")
    return {name: rule(graph, name, evidence) for name in (weight_names(graph) if names is None else names)}


def choose_masks(
    scores: Mapping[str, np.ndarray],
    sparsity: float,
    before: Mapping[str, np.ndarray],
    *,
    scope: Scope = Scope.LOCAL,
    pattern: Pattern = SINGLE,
) -> dict[str, np.ndarray]:
    """Masks by tensor from scores; what `before` masks stays masked and counts."""
    held = {name: np.where(before[name], s, -1.0) if name in before else s for name, s in scores.items()}
    if pattern.is_fine:
        masks = {name: _fine(s, sparsity, pattern) for name, s in held.items()}
    else:
        blocks = {name: _block_scores(s, pattern) for name, s in held.items()}
        kept = _kept_blocks(blocks, sparsity, scope)
        masks = {name: block_mask(kept[name], s.shape, pattern) for name, s in scores.items()}
    return {name: mask & before[name] if name in before else mask for name, mask in masks.items()}


def _fine(scores: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """The mask of an N:M pattern; on the way to it only the least of the weights that it takes are gone."""
    mask = fine_mask(scores, pattern)
    if sparsity >= pattern.ratio - 1e-9:
        return mask
    taken = int(np.count_nonzero(~mask))
    mask[~mask] = _kept(scores[~mask], min(sparsity * scores.size / max(taken, 1), 1.0))
    return mask


def _block_scores(scores: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Scores of blocks; -1 where all of one is masked already."""
    gone = scores < 0
    blocks = block_scores(np.where(gone, 0.0, scores), pattern)
    left = block_scores((~gone).astype(float), pattern)
    return np.where(left > 0, blocks, -1.0)


def _kept_blocks(blocks: Mapping[str, np.ndarray], sparsity: float, scope: Scope) -> dict[str, np.ndarray]:
    if scope is Scope.GLOBAL:
        pooled = np.concatenate([b.reshape(-1) for b in blocks.values()]) if blocks else np.zeros(0)
        parts = np.split(_kept(pooled, sparsity), np.cumsum([b.size for b in blocks.values()])[:-1])
        return {name: part.reshape(b.shape) for (name, b), part in zip(blocks.items(), parts, strict=True)}
    if scope is Scope.OUTPUT:
        rows = {name: [_kept(row.reshape(-1), sparsity) for row in b] for name, b in blocks.items()}
        return {name: np.stack(rows[name]).reshape(b.shape) for name, b in blocks.items()}
    return {name: _kept(b.reshape(-1), sparsity).reshape(b.shape) for name, b in blocks.items()}


def _kept(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """False for exactly `floor(sparsity * n)` scores, or those below zero where they are more."""
    count = max(int(sparsity * scores.size + 1e-9), np.count_nonzero(scores < 0))
    mask = np.ones(scores.size, bool)
    # stable: of equals the first ones go, on every machine
    mask[np.argsort(scores, kind="stable")[:count]] = False
    return mask


def smallest_masked(weight: np.ndarray, sparsity: float, before: np.ndarray | None = None) -> np.ndarray:
    """Mask that is False for exactly `floor(sparsity * n)` weights, or those masked `before` where they are
    more."""
    magnitude = np.abs(weight).reshape(-1)
    if before is not None:
        magnitude = np.where(before.reshape(-1), magnitude, -1)
    return _kept(magnitude, sparsity).reshape(weight.shape)


def apply_masks(plan: MagnitudePlan, graph: Graph) -> Graph:
    """`graph` with the masked weights zero."""
    return graph.with_constants(
        {n: np.where(mask, graph.constants[n], np.float32(0)) for n, mask in plan.masks.items()}
    )
