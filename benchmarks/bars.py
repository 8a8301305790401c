"""What a section finds: bars (wanted, measured, met), tables and notes, to be shown and kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """One promise. `met` is None where it could not be measured, or the figure is told, not promised."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "NO", None: "-"}[self.met]


@dataclass(frozen=True)
class Figures:
    """A table of what lies behind the bars. Cells are texts as they are shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass
class Findings:
    """What one section found; `facts` are the plain figures for the JSON file."""

    section: str
    title: str
    bars: list[Bar] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def at_most(self, what: str, measured: float, limit: float, form: str = "{:.2f}") -> None:
        self.bars.append(Bar(what, f"<= {form.format(limit)}", form.format(measured), measured <= limit))

    def at_least(self, what: str, measured: float, limit: float, form: str = "{:.2f}") -> None:
        self.bars.append(Bar(what, f">= {form.format(limit)}", form.format(measured), measured >= limit))

    def told(self, what: str, measured: str, wanted: str = "told") -> None:
        """A figure without a promise, or a bar that could not be measured."""
        self.bars.append(Bar(what, wanted, measured, None))

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def show(found: Findings, console: Console) -> None:
    """The section's tables, one below the other."""
    console.rule(f"[bold]{found.section}[/]: {found.title}", align="left")
    for figures in found.figures:
        console.print(_table(figures))
    if found.bars:
        rows = tuple((bar.what, bar.wanted, bar.measured, bar.verdict) for bar in found.bars)
        console.print(_table(Figures("", ("bar", "wanted", "measured", "met"), rows)))
    for note in found.notes:
        console.print(f"  {note}", style="dim", highlight=False, markup=False)


def _table(figures: Figures) -> Table:
    table = Table(title=figures.title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2))
    for index, column in enumerate(figures.columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in figures.rows:
        table.add_row(*row, style="bold red" if row[-1] == "NO" else None)
    return table


def missed(sections: Sequence[Findings]) -> list[str]:
    """The bars that were not met, a line each."""
    return [
        f"{found.section}: {bar.what}: wanted {bar.wanted}, measured {bar.measured}"
        for found in sections
        for bar in found.bars
        if bar.met is False
    ]
