"""The quantization ladder of a deployment as a table: what each rung reached, gained and took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from toolchain.report.headline import Facts
from toolchain.report.units import format_db, format_seconds, format_share

_HEADER = ("rung", "SQNR", "same class", "score falls", "gain", "time", "")


@dataclass(frozen=True)
class LadderRow:
    """One rung, its cells under the ladder's header."""

    cells: tuple[str, ...]
    is_kept: bool
    meets_goal: bool


@dataclass(frozen=True)
class Ladder:
    """The rows of the quantize stage that climbed a ladder, under `header`, and what it climbed for."""

    goal: str
    meets_goal: bool
    header: tuple[str, ...]
    rows: tuple[LadderRow, ...]

    @property
    def title(self) -> str:
        reached = "reached" if self.meets_goal else "not reached"
        return f"quantization ladder, for {self.goal}: {reached}"


def find_ladder(facts: Facts) -> Ladder | None:
    """The ladder of the last stage that climbed one, None where none did."""
    for stage in reversed(facts["stages"]):
        found = stage["facts"].get("ladder")
        if found:
            seconds = stage.get("part_seconds") or {}
            rows = [_row(rung, seconds.get(rung["rung"])) for rung in found]
            used = [any(row.cells[at] for row in rows) or name == "" for at, name in enumerate(_HEADER)]
            kept = [replace(row, cells=tuple(compress(row.cells, used))) for row in rows]
            header = tuple(compress(_HEADER, used))
            return Ladder(stage["facts"]["goal"], stage["facts"]["meets_goal"], header, tuple(kept))
    return None


def _row(rung: Mapping[str, Any], seconds: float | None) -> LadderRow:
    worst = rung["worst"]
    if worst is None:
        cells = (rung["rung"], "", "", "", "", "", "not here")
        return LadderRow(cells, False, False)
    reached = min(worst["sqnr_db"], worst["balanced_db"])
    drop, gain = worst["score_drop"], rung["gain_db"]
    cells = (
        rung["rung"],
        format_db(reached),
        "" if worst["same_class"] is None else format_share(worst["same_class"]),
        "" if drop is None else f"{drop:.2f}",
        "" if gain is None else f"{gain:+.1f} dB",
        "" if seconds is None else format_seconds(seconds),
        _verdict(rung),
    )
    return LadderRow(cells, rung["kept"], rung["meets_goal"])


def _verdict(rung: Mapping[str, Any]) -> str:
    if not rung["kept"]:
        return "no gain"
    return "enough" if rung["meets_goal"] else "kept"
