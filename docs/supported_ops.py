"""Writes the list of supported torch ops into README.md, from the tables of the tracing rules: `python
docs/supported_ops.py`."""

from __future__ import annotations

import re
from pathlib import Path

from toolchain.engine.tracing.rules import FAMILIES, IDENTITIES, RESHAPES

INTERNAL = {"_to_copy", "_unsafe_view", "_reshape_alias", "alias", "lift_fresh_copy"}
"""What torch.export makes of other ops."""

BLOCK = re.compile(r"(<!-- supported ops[^\n]*-->\n).*?(\n<!-- end -->)", re.DOTALL)


def table() -> str:
    """The README's table: a row a family."""
    families = {name: sorted(rules) for name, rules in FAMILIES.items()}
    families["shape"] = sorted({*families["shape"], *RESHAPES} - INTERNAL)
    families["nothing in eval mode"] = sorted(IDENTITIES - INTERNAL)
    rows = [f"| {family} | {' '.join(f'`{name}`' for name in names)} |" for family, names in families.items()]
    return "\n".join(["", "| | torch ops, and their in-place forms |", "|---|---|", *rows])


def rewritten(readme: str) -> str:
    """`readme` with the table of today."""
    return BLOCK.sub(lambda match: match[1] + table() + match[2], readme)


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "README.md"
    path.write_text(rewritten(path.read_text()))
