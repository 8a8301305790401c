"""Findings of a lint as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from toolchain.graph import Finding


def print_findings(findings: Sequence[Finding], memory: Sequence[str], device: str, console: Console) -> None:
    """A row each, those that keep the model off the device first."""
    table = Table("op", "dtype", "what", "where", "instead", box=None, pad_edge=False)
    for finding in sorted(findings, key=lambda finding: not finding.blocks):
        style = "red" if finding.blocks else "yellow"
        table.add_row(finding.op, finding.dtype, finding.why, str(finding.source), finding.instead, style=style)
    if findings:
        console.print(table)
    for line in memory:
        console.print(line, style="red", highlight=False)
    blocking = len(memory) + sum(finding.blocks for finding in findings)
    verdict = (
        f"{blocking} finding(s) keep the model off {device}" if blocking else f"nothing keeps the model off {device}"
    )
    notes = len(findings) + len(memory) - blocking
    console.print(f"{verdict}{f'; {notes} cost time or accuracy there' if notes else ''}", highlight=False)
