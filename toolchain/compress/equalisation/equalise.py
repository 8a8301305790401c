"""Cross-layer equalisation: channels of different size are brought near to each other before rounding (Nagel et al.,
Data-Free Quantization, arXiv 1906.04721, section 4.1).

A positive factor a channel moves from the weights that read it into those that make it, `W1' = f W1, W2' = W2 / f`;
what lies between, and so the network's function, does not change (see `scale_flow`). For one pair of layers with
channel ranges r1, r2 the paper's optimum makes both equal,

    f_i = 1 / s_i,    s_i = sqrt(r1_i r2_i) / r2_i.

Residual groups, where many layers make and read one set of channels, take the geometric means of all (`weights`
alone decide, where nothing was measured). Where ranges were measured, the factors minimise the noise that rounding of
weights and activations adds together (`equalise_noise`).

A ReLU6 is not homogeneous. `Ceilings` says what becomes of it; only MEASURED may change the function, for inputs that
exceed what calibration has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, log10

import numpy as np

from toolchain.compress.equalisation.ceilings import liftable, with_ceilings, worth_lifting
from toolchain.compress.equalisation.dead import dead_labels
from toolchain.compress.equalisation.noise import Noise
from toolchain.compress.equalisation.scale_factors import (
    ChannelRanges,
    ScaledGraph,
    apply_factors,
    copied_structure,
    factor_bounds,
    rescale_ranges,
)
from toolchain.compress.equalisation.scale_flow import UNIT, Ceiling, Channels
from toolchain.compress.equalisation.scale_rules import trace_scales
from toolchain.compress.equalisation.solve import minimise_noise, total_noise
from toolchain.compress.equalisation.terms import noise_terms
from toolchain.compress.equalisation.weights import balance_weights
from toolchain.compress.fisher import Sensitivity
from toolchain.compress.tables import format_table
from toolchain.errors import OptionError
from toolchain.graph import Graph, Structure
from toolchain.quantization import Scheme

_MOVED = 0.01  # of log f: less is not worth telling


class Ceilings(StrEnum):
    """What becomes of a channel behind a ReLU6 or clamp.

    KEEP it has factor 1. MEASURED its factor may bring its largest measured value, times a headroom, up to the ceiling;
    one that comes nearer than the headroom keeps factor 1. MINIMUM its factor may shrink it, and a `minimum` behind the
    layer gives it a ceiling of its own; only where rounding gains by it.
    """

    KEEP = "keep"
    MEASURED = "measured"
    MINIMUM = "minimum"


@dataclass(frozen=True)
class EqualisedTensor:
    """What was done to the channels of one layer's result: how many of `channels` moved, by factors from `least` to
    `largest`, and the spread of the layer's weights (largest over median range of an output channel)."""

    name: str
    channels: int
    moved: int
    least: float
    largest: float
    spread_before: float
    spread_after: float

    def row(self, remark: str) -> tuple[str, ...]:
        numbers = f"{self.least:.3g}", f"{self.largest:.3g}", f"{self.spread_before:.1f}", f"{self.spread_after:.1f}"
        return (self.name, f"{self.moved}/{self.channels}", *numbers, remark)


@dataclass(frozen=True)
class Equalisation:
    """What `equalise` did and why.

    `noise_db` is the estimated noise to signal, before and after, in dB, where ranges were measured. `kept` holds the
    tensors that keep their scale with the reason, `dead` the number of channels left alone because they carry nothing,
    `ceilings` the tensors whose channels got a ceiling each, `copies` new constants and what they were made from.
    `channel_ranges` are those of the new graph, without measuring it again.
    """

    tensors: tuple[EqualisedTensor, ...]
    kept: Mapping[str, str]
    dead: int
    ceilings: tuple[str, ...] = ()
    noise_db: tuple[float, float] | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    channel_ranges: ChannelRanges | None = None

    @property
    def moved(self) -> int:
        return sum(tensor.moved for tensor in self.tensors)

    def structure(self, before: Structure) -> Structure:
        """Masks and codebooks for the new graph."""
        return copied_structure(before, self.copies)

    def __str__(self) -> str:
        rows = [tensor.row("own ceilings" if tensor.name in self.ceilings else "") for tensor in self.tensors]
        header = ("layer", "channels scaled", "least", "largest", "spread", "after", "")
        lines = [format_table(header, rows)] if rows else ["no channel was scaled"]
        if self.noise_db is not None:
            before, after = self.noise_db
            lines.append(f"estimated noise to signal {before:.1f} dB -> {after:.1f} dB")
        lines += [f"{self.dead} dead channels left alone"] if self.dead else []
        return "\n".join([*lines, *(f"{name} keeps its scale: {why}" for name, why in self.kept.items())])


def equalise(
    graph: Graph,
    channel_ranges: ChannelRanges | None = None,
    *,
    structure: Structure | None = None,
    scheme: Scheme | None = None,
    sensitivity: Sensitivity | None = None,
    ceilings: Ceilings = Ceilings.KEEP,
    headroom: float = 2.0,
    ceiling_gain_db: float = 1.0,
) -> tuple[Graph, Equalisation]:
    """The folded `graph` with its channels brought near to each other, and what was done.

    `channel_ranges` are least and largest value `(C,)` of each activation; without them weights alone decide, and
    channels behind a ceiling keep theirs. `scheme` tells what is rounded per tensor and what per channel,
    `sensitivity` (`measure_sensitivity`) what each error costs at the outputs, guessed from weights and ranges without
    it. A weight with a codebook in `structure` stays as it is. `headroom` belongs to `Ceilings.MEASURED`; with
    `Ceilings.MINIMUM` a layer gets ceilings of its own where the whole noise shrinks by more than `ceiling_gain_db`.

    Raises OptionError for a headroom below 1.
    """
    if headroom < 1:
        raise OptionError(f"headroom is {headroom}", hint="1 trusts the samples wholly, 2 leaves as much again")
    channels = Channels.of(trace_scales(graph, structure))
    dead = dead_labels(channels, channel_ranges)
    low, high = factor_bounds(channels, channel_ranges if ceilings is Ceilings.MEASURED else None, headroom)
    low[dead] = high[dead] = 0.0
    terms = noise_terms(channels, channel_ranges, scheme or Scheme(), sensitivity) if channel_ranges else []
    lifted: list[Ceiling] = []
    if terms and ceilings is Ceilings.MINIMUM:
        lifted = _lifted(channels, terms, (low, high), dead, ceiling_gain_db)
        low, high = _lift(channels, lifted, (low, high), dead)
    logs = _solve(channels, terms, (low, high))
    scaled = apply_factors(channels, np.exp(logs))
    return with_ceilings(scaled.graph, channels, np.exp(logs), lifted), Equalisation(
        tensors=_tensors(channels, scaled, logs),
        kept=channels.flow.reasons,
        dead=int(np.count_nonzero(dead)),
        ceilings=tuple(ceiling.tensor for ceiling in lifted),
        noise_db=(_decibels(terms, np.zeros_like(logs)), _decibels(terms, logs)) if terms else None,
        copies=scaled.copies,
        channel_ranges=rescale_ranges(channels, np.exp(logs), channel_ranges) if channel_ranges else None,
    )


Bounds = tuple[np.ndarray, np.ndarray]


def _solve(channels: Channels, terms: list[Noise], bounds: Bounds) -> np.ndarray:
    """Log factors: least noise, or balanced weights where no noise is known."""
    balanced, still = balance_weights(channels, *bounds), np.zeros(channels.flow.count)
    # the problem is convex, but a start that is near costs fewer steps
    start = min((still, balanced), key=lambda logs: total_noise(terms, logs))
    return minimise_noise(terms, *bounds, start) if terms else balanced


def _lifted(channels: Channels, terms: list[Noise], bounds: Bounds, dead: np.ndarray, gain_db: float) -> list[Ceiling]:
    """Layers that gain by ceilings of their own: all are tried together, then those are left out that do not pay."""
    candidates = liftable(channels)
    logs = minimise_noise(terms, *_lift(channels, candidates, bounds, dead), np.zeros(channels.flow.count))
    return worth_lifting(channels, candidates, terms, logs, gain_db)


def _lift(channels: Channels, ceilings: list[Ceiling], bounds: Bounds, dead: np.ndarray) -> Bounds:
    """Bounds with which channels behind `ceilings`, and behind no other, may shrink."""
    low, high = bounds[0].copy(), bounds[1].copy()
    free = np.zeros(channels.flow.count, bool)
    for ceiling in ceilings:
        free[channels.root[ceiling.labels]] = True
    for ceiling in channels.flow.ceilings:
        if ceiling not in ceilings:
            free[channels.root[ceiling.labels]] = False
    free[dead] = free[UNIT] = False
    low[free], high[free] = -inf, 0.0
    return low, high


def _decibels(terms: list[Noise], logs: np.ndarray) -> float:
    noise = total_noise(terms, logs)
    return 10 * log10(noise) if noise > 0 else -inf


def _tensors(channels: Channels, scaled: ScaledGraph, logs: np.ndarray) -> tuple[EqualisedTensor, ...]:
    found = []
    after = {node.output: node for node in scaled.graph.nodes}
    for use in channels.flow.uses:
        if not use.is_weight or use.node.output not in after:
            continue
        made = logs[channels.root[use.up]].reshape(-1)
        before = channels.flow.graph.constants[use.constant]
        now = scaled.graph.constants[after[use.node.output].inputs[use.position]]
        found.append(
            EqualisedTensor(
                name=use.node.output,
                channels=len(made),
                moved=int(np.count_nonzero(np.abs(made) > _MOVED)),
                least=float(np.exp(made.min())),
                largest=float(np.exp(made.max())),
                spread_before=_spread(before),
                spread_after=_spread(now),
            )
        )
    return tuple(found)


def _spread(weight: np.ndarray) -> float:
    rows = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    alive = rows[rows > 0]
    return float(alive.max() / np.median(alive)) if len(alive) else 1.0
