"""One thing that stands between a model and a device: which op, why, where in the user's model, what to use instead."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.graph.types import Source


@dataclass(frozen=True)
class Finding:
    """`op` in the graph's words, or torch's where the graph has none; `blocks` says whether it keeps the model off the
    device or only costs time or accuracy there."""

    op: str
    why: str
    source: Source
    dtype: str = "float32"
    instead: str = ""
    blocks: bool = True

    def __str__(self) -> str:
        advice = f"; instead: {self.instead}" if self.instead else ""
        return f"{self.op}: {self.why} [{self.source}]{advice}"
