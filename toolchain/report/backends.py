"""What back ends found, as report.json holds it and as terminal and page show it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.report import units
from toolchain.report.plain import finite

if TYPE_CHECKING:
    from toolchain.backends.backend import Measured
    from toolchain.backends.measurement import DeviceFacts


def backend_facts(seen: DeviceFacts) -> dict[str, Any]:
    """Figures, placements and published files of every file and back end."""
    return {"measured": [_measured(row) for row in seen.measured], "notes": list(seen.notes)}


def _measured(row: Measured) -> dict[str, Any]:
    return {
        "file": row.file,
        "backend": row.backend,
        "version": row.version,
        "figures": [{**vars(figure), "value": finite(figure.value)} for figure in row.figures],
        "placements": [vars(placement) for placement in row.placements],
        "files": [
            {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in row.files.items()
        ],
        "notes": list(row.notes),
    }


def figure_text(figure: Mapping[str, Any]) -> str:
    """A figure as people read it, by the unit that its key ends in."""
    return _FORMATS.get(figure["key"].rpartition("_")[2], units.format_count)(figure["value"])


_FORMATS: dict[str, Callable[[float | None], str]] = {
    "bytes": units.format_bytes,
    "share": units.format_share,
    "ms": units.format_ms,
    "steps": lambda value: units.format_amount(value, "step"),
}


@dataclass(frozen=True)
class BackendRow:
    """One file by one back end: `figures` as (label, text); `beside` the ops that run on the processor instead."""

    title: str
    figures: tuple[tuple[str, str], ...]
    beside: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    files: tuple[str, ...]


def backend_rows(facts: Mapping[str, Any]) -> Iterator[BackendRow]:
    """What is shown of a report's back ends; nothing for a report that has none."""
    for row in facts.get("backends", {}).get("measured", ()):
        yield BackendRow(
            f"{row['file']} by {row['backend']} {row['version']}".strip(),
            tuple((figure["label"], figure_text(figure)) for figure in row["figures"]),
            tuple(placement for placement in row["placements"] if placement["where"] != "npu"),
            tuple(row["notes"]),
            tuple(file["name"] for file in row["files"]),
        )
