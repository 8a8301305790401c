"""What a validation found, as values a report can print."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class RuntimeResult:
    """One file in one runtime, judged against the float reference on `samples` samples. `is_reduced`: its weights are
    rounded, but its activations float, so that there are no steps to count. `is_compressed`: it is float and of a
    compressed graph: it may stray from the reference, and `relative_error` is that from its own graph."""

    file: str
    runtime: str
    samples: int
    sqnr_db: float
    cosine: float
    max_error_steps: float | None
    relative_error: float
    same_class: float | None
    score: float | None
    latency_ms: float
    is_reduced: bool = False
    is_compressed: bool = False


@dataclass(frozen=True)
class Agreement:
    """Two runtimes' integer outputs side by side. `gated` says whether both are runtimes that devices deploy: reference
    kernels round twice and stray over depth, so they are judged op by op only."""

    first: str
    second: str
    samples: int
    max_steps: int
    share_within: float
    same_class: float | None
    gated: bool = True


@dataclass(frozen=True)
class TensorResult:
    """One activation: how far it is from the float graph's, and how far each runtime's op is, fed its own inputs, from
    the exact integer meaning (in steps)."""

    name: str
    op: str
    source: str
    sqnr_db: float
    low: float
    high: float
    seen_low: float
    seen_high: float
    op_steps: dict[str, int] = field(default_factory=dict)


class Bound(StrEnum):
    """Which way a gate bounds a figure."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True)
class Verdict:
    """One gate: what was wanted, the worst figure and where it was measured; None where nothing could be judged."""

    gate: str
    bound: Bound
    wanted: float
    measured: float | None
    where: str | None
    passed: bool | None


@dataclass(frozen=True)
class Validation:
    """Everything measured, the verdicts of the target's gates, and each miss as a line. `reference_score` is the
    float model's; `notes` say what could not be measured, and why;
    `origin` is where the error arises if no single op is to blame."""

    samples: int
    score_name: str | None
    reference_score: float | None
    runtimes: tuple[RuntimeResult, ...]
    agreements: tuple[Agreement, ...]
    tensors: tuple[TensorResult, ...]
    verdicts: tuple[Verdict, ...] = ()
    missed: tuple[str, ...] = ()
    origin: str | None = None
    notes: tuple[str, ...] = ()
