"""A diagnosis as a terminal table: the worst layers, their causes, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolchain.report.diagnosis import evidence, worst_layers
from toolchain.report.units import format_db, format_share

ROWS = 8


def print_diagnosis(facts: Mapping[str, Any], console: Console, paths: Sequence[Path] = ()) -> None:
    """Print the layers with the largest shares of the outputs' error, then `paths`, one a line."""
    found = facts["diagnosis"]
    console.print()
    console.print(_text(console, f"{facts['model']['name']} for {facts['target']['name']}", "bold"))
    console.print(_text(console, f"SQNR of the outputs {format_db(found['sqnr_db'])}, {_samples(found)}", "dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layer", overflow="fold", ratio=3)
    for name in ("share", "in", "out", "added"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cause", ratio=4)
    table.add_column("what to do", ratio=3)
    for layer in worst_layers(found, ROWS):
        errors = [format_db(layer[key]) for key in ("sqnr_in_db", "sqnr_out_db", "added_db")]
        cells = (f"{layer['name']} ({layer['op']})", format_share(round(layer["share"], 3)), *errors)
        cause = _text(console, layer["cause"] or "", "yellow").append(f"\n{evidence(layer)}", "dim")
        table.add_row(*(_text(console, cell) for cell in cells), cause, _text(console, "; or ".join(layer["advice"])))
    console.print(table)
    for path in paths:
        console.print(_text(console, f"  {path}", "cyan"), soft_wrap=True)


def _samples(found: Mapping[str, Any]) -> str:
    count, layers, shown = found["samples"], len(found["layers"]), len(worst_layers(found, ROWS))
    several = f"on {count} sample{'' if count == 1 else 's'}"
    return several if shown == layers else f"{several}; the {shown} worst of {layers} layers:"


def _text(console: Console, content: object, style: str = "") -> Text:
    """Text outside the console's encoding becomes `?`."""
    return Text(str(content).encode(console.encoding, "replace").decode(console.encoding), style)
