"""Plain text tables: how plans print."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first and the last to the left, those between (numbers) to the right."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    last = len(header) - 1
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if k in (0, last) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
