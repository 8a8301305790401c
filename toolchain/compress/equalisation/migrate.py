"""Outliers of activations moved into the weights of the linear layers that read them (Xiao et al., SmoothQuant, arXiv
2211.10438).

A few channels of what a norm makes are often a hundred times larger than the others, and spoil the scale of the tensor.
Channel j is divided by

    s_j = max |X_j|^alpha / max |W_j|^(1 - alpha),

folded into the affine part of the norm (a norm without one gets one), a constant vector or the layer that makes X, and
the columns of every linear layer that reads it (q, k and v together) are multiplied by it. alpha is chosen site by
site: by the error of the layers' results, with both operands rounded, where samples are given; else by the noise
estimated from ranges (`equalise_noise`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, log10

import numpy as np

from toolchain.compress.equalisation.dead import dead_labels
from toolchain.compress.equalisation.migrate_error import rounded_error, sample_rows
from toolchain.compress.equalisation.noise import ActivationNoise, Noise
from toolchain.compress.equalisation.scale_factors import (
    ChannelRanges,
    apply_factors,
    channel_extent,
    copied_structure,
    factor_bounds,
    rescale_ranges,
)
from toolchain.compress.equalisation.scale_flow import UNIT, Channels, ScaledUse
from toolchain.compress.equalisation.scale_rules import trace_scales
from toolchain.compress.equalisation.solve import total_noise
from toolchain.compress.equalisation.terms import noise_terms
from toolchain.compress.tables import format_table
from toolchain.graph import Graph, Node, Op, Structure
from toolchain.graph.graph import unique_name
from toolchain.quantization import Scheme

ALPHAS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
_GAIN = 0.98  # of the error: less is not worth a change


@dataclass(frozen=True)
class MigratedTensor:
    """One activation whose outliers were looked at: the linear layers that read it, the `alpha` chosen (None: it is
    best as it is), the spread of its channels (largest over median) and the error to signal in dB, before and after."""

    name: str
    readers: tuple[str, ...]
    alpha: float | None
    spread_before: float
    spread_after: float
    error_db: tuple[float, float]

    def row(self) -> tuple[str, ...]:
        alpha = "as it is" if self.alpha is None else f"{self.alpha:g}"
        numbers = (f"{number:.1f}" for number in (self.spread_before, self.spread_after, *self.error_db))
        return (self.name, alpha, *numbers, ", ".join(self.readers))


@dataclass(frozen=True)
class Migration:
    """What `migrate` did and why. `copies` are new constants and what they were made from; `channel_ranges` those of
    the new graph, without measuring it again."""

    tensors: tuple[MigratedTensor, ...]
    measured: bool
    copies: Mapping[str, str] = field(default_factory=dict)
    channel_ranges: ChannelRanges = field(default_factory=dict)

    @property
    def moved(self) -> int:
        return sum(tensor.alpha is not None for tensor in self.tensors)

    def structure(self, before: Structure) -> Structure:
        """Masks and codebooks for the new graph."""
        return copied_structure(before, self.copies)

    def __str__(self) -> str:
        if not self.tensors:
            return "no linear layer reads channels that could be scaled"
        error = "error dB" if self.measured else "estimated error dB"
        rows = [tensor.row() for tensor in self.tensors]
        return format_table(("activation", "alpha", "spread", "after", error, "after", "readers"), rows)


@dataclass(frozen=True, eq=False)
class Site:
    """An activation, the linear layers that read its channels, and the roots `(C,)` of these."""

    tensor: str
    uses: tuple[ScaledUse, ...]
    roots: np.ndarray


def migrate(
    graph: Graph,
    channel_ranges: ChannelRanges,
    *,
    structure: Structure | None = None,
    scheme: Scheme | None = None,
    samples: Iterable[Sequence[np.ndarray]] = (),
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Graph, Migration]:
    """The folded `graph` with the outliers of its activations moved into weights, and what was done.

    `channel_ranges` are least and largest value `(C,)` of each activation; `samples` are batches of inputs to measure
    errors on, a few are enough. `scheme` says how tensors are rounded. A weight with a codebook stays as it is.
    """
    scheme = scheme or Scheme()
    wide = with_affine_norms(graph)
    channels = Channels.of(trace_scales(wide, structure))
    sites = find_sites(channels, channel_ranges)
    rows = sample_rows(wide, samples, [site.tensor for site in sites])
    terms = noise_terms(channels, channel_ranges, scheme)
    logs, done = np.zeros(channels.flow.count), []
    for site in sites:
        near = [term for term in terms if _touches(channels, site, term)]
        tried = {alpha: _logs(channels, site, channel_ranges, alpha) for alpha in alphas}
        errors = {alpha: _error(channels, site, logs + tried[alpha], scheme, rows, near) for alpha in alphas}
        before = _error(channels, site, logs, scheme, rows, near)
        best = min(errors, key=lambda alpha: errors[alpha])
        chosen = best if errors[best] < _GAIN * before else None
        logs = logs if chosen is None else logs + tried[chosen]
        after = before if chosen is None else errors[best]
        done.append(_told(channels, site, channel_ranges, logs, chosen, (before, after)))
    scaled = apply_factors(channels, np.exp(logs))
    plan = Migration(
        tensors=tuple(done),
        measured=bool(rows),
        copies=scaled.copies,
        channel_ranges=rescale_ranges(channels, np.exp(logs), channel_ranges),
    )
    return without_idle_norms(scaled.graph, graph), plan


def find_sites(channels: Channels, ranges: ChannelRanges) -> list[Site]:
    """Activations whose channels linear layers alone read and whose scale is free; layers that share channels are one
    site."""
    low, high = factor_bounds(channels, None, 1.0)
    fixed = (low == high) | dead_labels(channels, None)
    readers: dict[bytes, list[ScaledUse]] = {}
    for use in channels.flow.uses:
        if use.is_weight and use.node.op is Op.LINEAR and use.node.inputs[0] in ranges:
            readers.setdefault(channels.root[use.down].tobytes(), []).append(use)
    read_elsewhere = np.zeros(channels.flow.count, bool)
    for use in channels.flow.uses:
        if use.is_weight and use.node.op is not Op.LINEAR:
            read_elsewhere[channels.root[use.down]] = True
    sites = []
    for uses in readers.values():
        roots = channels.root[uses[0].down].reshape(-1)
        free = ~fixed[roots] & ~read_elsewhere[roots]
        if np.any(free & (roots != UNIT)):
            sites.append(Site(uses[0].node.inputs[0], tuple(uses), np.where(free, roots, UNIT)))
    return sites


def _touches(channels: Channels, site: Site, term: Noise) -> bool:
    """Whether the factors of a site change what rounding of the term's tensor costs."""
    marked = np.zeros(channels.flow.count, bool)
    marked[site.roots] = True
    marked[UNIT] = False
    roots = (term.roots,) if isinstance(term, ActivationNoise) else (term.up, term.down)
    return any(bool(marked[labels].any()) for labels in roots)


def _logs(channels: Channels, site: Site, ranges: ChannelRanges, alpha: float) -> np.ndarray:
    """Log factors `(count,)`, -log s, with a geometric mean of 1 so that the tensor keeps its size."""
    size = _magnitude(channels, site, ranges)
    columns = np.max([_columns(channels, use) for use in site.uses], axis=0)
    usable = (site.roots != UNIT) & (size > 0) & (columns > 0)
    logs = np.zeros(channels.flow.count)
    if np.any(usable):
        shift = (1 - alpha) * np.log(columns[usable]) - alpha * np.log(size[usable])
        logs[site.roots[usable]] = shift - shift.mean()
    return np.asarray(logs[channels.root])


def _magnitude(channels: Channels, site: Site, ranges: ChannelRanges) -> np.ndarray:
    _, low, high = channel_extent(channels, site.tensor, ranges)
    size = np.maximum(np.abs(low), np.abs(high))
    return np.broadcast_to(size, site.roots.shape)


def _columns(channels: Channels, use: ScaledUse) -> np.ndarray:
    return np.asarray(np.abs(channels.flow.graph.constants[use.constant].astype(np.float64)).max(axis=0))


def _error(
    channels: Channels,
    site: Site,
    logs: np.ndarray,
    scheme: Scheme,
    rows: Mapping[str, np.ndarray],
    terms: Sequence[Noise],
) -> float:
    """Error to signal of the site's layers with factors `exp(logs)`."""
    if site.tensor not in rows:
        return total_noise(terms, logs)
    factors = np.exp(logs[site.roots])
    weights = [channels.flow.graph.constants[use.constant].astype(np.float64) for use in site.uses]
    return rounded_error(rows[site.tensor], weights, factors, scheme)


def _told(
    channels: Channels,
    site: Site,
    ranges: ChannelRanges,
    logs: np.ndarray,
    alpha: float | None,
    errors: tuple[float, float],
) -> MigratedTensor:
    size = _magnitude(channels, site, ranges)
    return MigratedTensor(
        name=site.tensor,
        readers=tuple(use.node.output for use in site.uses),
        alpha=alpha,
        spread_before=_spread(size),
        spread_after=_spread(size * np.exp(logs[site.roots])),
        error_db=(_decibels(errors[0]), _decibels(errors[1])),
    )


def _spread(size: np.ndarray) -> float:
    alive = size[size > 0]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0


def _decibels(error: float) -> float:
    return 10 * log10(error) if error > 0 else -inf


def with_affine_norms(graph: Graph) -> Graph:
    """`graph` with an affine part, ones and zeros, on every layer norm and RMS norm that has none."""
    constants, taken = dict(graph.constants), set(graph.types)

    def affine(node: Node) -> Node:
        if node.op not in (Op.LAYER_NORM, Op.RMS_NORM) or len(node.inputs) > 1:
            return node
        shape = tuple(graph.types[node.inputs[0]].shape[axis] for axis in node["axes"])
        values = {"weight": np.ones(shape, np.float32), "bias": np.zeros(shape, np.float32)}
        names = {leaf: unique_name(f"{node.output}.{leaf}", taken) for leaf in values}
        if node.op is Op.RMS_NORM:
            names.pop("bias")
        taken.update(names.values())
        constants.update({name: values[leaf] for leaf, name in names.items()})
        return replace(node, inputs=(node.inputs[0], *names.values()))

    return graph.with_nodes([affine(node) for node in graph.nodes], constants)


def without_idle_norms(graph: Graph, original: Graph) -> Graph:
    """`graph` without the affine parts that `original` has not and that do nothing."""

    def bare(node: Node) -> Node:
        before = original.producers.get(node.output)
        if before is None or len(before.inputs) > 1 or len(node.inputs) == 1 or before.op is not node.op:
            return node
        idle = all(np.all(graph.constants[name] == value) for name, value in zip(node.inputs[1:], (1, 0), strict=False))
        return replace(node, inputs=node.inputs[:1]) if idle else node

    norms = (Op.LAYER_NORM, Op.RMS_NORM)
    return graph.with_nodes([bare(node) if node.op in norms else node for node in graph.nodes])
