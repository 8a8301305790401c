"""What back ends found, as report.json holds it and as terminal and page show it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
class BackendTable:
    """What one back end found: `files` as (name, version), `rows` as (label, whether it is a detail, a text a file);
    `beside` the ops that run on the processor instead."""

    backend: str
    files: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, bool, tuple[str, ...]], ...]
    beside: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def backend_tables(facts: Mapping[str, Any]) -> Iterator[BackendTable]:
    """What is shown of a report's back ends, those of one side by side; nothing for a report that has none."""
    measured = facts.get("backends", {}).get("measured", ())
    for backend in dict.fromkeys(row["backend"] for row in measured):
        found = [row for row in measured if row["backend"] == backend]
        columns = [{figure["key"]: figure for figure in row["figures"]} for row in found]
        named = {key: figure for column in columns for key, figure in column.items()}
        shown = [
            key
            for key, figure in named.items()
            if not figure["detail"] or any(c.get(key, figure)["value"] for c in columns)
        ]
        yield BackendTable(
            backend,
            tuple((row["file"], row["version"]) for row in found),
            tuple((named[key]["label"], named[key]["detail"], _texts(columns, key)) for key in shown),
            tuple(placement for row in found for placement in row["placements"] if placement["where"] != "npu"),
            tuple(dict.fromkeys(note for row in found for note in row["notes"])),
        )


def _texts(columns: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(figure_text(column[key]) if key in column else units.NOT_MEASURED for column in columns)
