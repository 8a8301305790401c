"""Two artifacts side by side in the terminal: figures, ops, tensors that differ, outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from toolchain.comparison.differences import ArtifactDiff, OutputDiff, Side, TensorDiff
from toolchain.formats.artifact import TensorFacts
from toolchain.report.units import format_bytes, format_db, format_real, format_share

_MOST_ROWS = 20
"""Tensors shown of those that differ; --json has all."""

_IN_THE_TABLE = ("shape", "quantization", "granularity", "scale", "zero point", "axis")
"""Differences that are worth a row: a layout or a dtype is mostly one for all tensors, and counted."""


def print_diff(found: ArtifactDiff, console: Console) -> None:
    """Print everything found, the largest differences first."""
    screen = _Screen(console)
    screen.print_sides(found.first, found.second)
    screen.print_ops(found)
    screen.print_tensors(found)
    screen.print_outputs(found)
    for note in found.notes:
        screen.print(Text(note, "yellow"))


class _Screen:
    def __init__(self, console: Console) -> None:
        self._console = console

    def print(self, content: RenderableType) -> None:
        self._console.print(content, highlight=False)

    def print_table(self, table: Table) -> None:
        self.print(Padding(table, (0, 0, 1, 2)))

    def print_sides(self, first: Side, second: Side) -> None:
        table = _table("", "A", "B", right=())
        rows: tuple[tuple[str, Callable[[Side], str]], ...] = (
            ("artifact", lambda side: side.name),
            ("format", lambda side: side.format),
            ("size", lambda side: format_bytes(side.bytes)),
            ("constants", lambda side: format_bytes(side.constant_bytes)),
            ("ops", lambda side: str(side.op_count)),
            ("tensors", lambda side: str(side.tensors)),
        )
        for label, figure in rows:
            table.add_row(Text(label, "dim"), Text(figure(first)), Text(figure(second)))
        self.print_table(table)

    def print_ops(self, found: ArtifactDiff) -> None:
        counted = found.counted_ops
        if counted is None:
            for label, side in (("A", found.first), ("B", found.second)):
                ops = ", ".join(f"{count} {op}" for op, count in sorted(side.ops.items(), key=lambda pair: -pair[1]))
                self.print(Text(f"ops of {label}: {ops}"))
            self._console.print()
            return
        changed = {op: pair for op, pair in counted.items() if pair[0] != pair[1]}
        if not changed:
            self.print(Text(f"the same ops: {found.first.op_count} of {len(counted)} kinds\n"))
            return
        table = _table("op", "A", "B", "", right=("A", "B", ""))
        for op, (one, other) in sorted(changed.items(), key=lambda item: -abs(item[1][1] - item[1][0])):
            table.add_row(Text(op), str(one), str(other), f"{other - one:+d}")
        self.print_table(table)

    def print_tensors(self, found: ArtifactDiff) -> None:
        ways = ", ".join(f"{n} by {way}" for way, n in _counts(tensor.by.value for tensor in found.tensors))
        self.print(Text(f"{len(found.tensors)} tensors in both{f' ({ways})' if ways else ''}"))
        for label, names in (("A", found.only_first), ("B", found.only_second)):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                self.print(Text(f"  {len(names)} only in {label}: {shown}", "dim"))
        if found.difference_counts:
            kinds = ", ".join(f"{count} in {kind}" for kind, count in found.difference_counts.items())
            self.print(Text(f"  differ: {kinds}{_dtypes(found.tensors)}"))
        elif found.tensors:
            self.print(Text("  alike in shape, type and scale"))
        self._console.print()
        worth = [tensor for tensor in found.tensors if set(tensor.differences) & set(_IN_THE_TABLE)]
        self._tensor_rows(sorted(worth, key=lambda tensor: -(tensor.scale_ratio or 1.0)))

    def _tensor_rows(self, tensors: Sequence[TensorDiff]) -> None:
        if not tensors:
            return
        table = _table("tensor", "differs in", "A", "B", right=())
        for tensor in tensors[:_MOST_ROWS]:
            names = tensor.first.name if tensor.first.name == tensor.second.name else _both(tensor)
            table.add_row(
                Text(names),
                Text(", ".join(tensor.differences)),
                Text(_described(tensor.first)),
                Text(_described(tensor.second)),
            )
        self.print_table(table)
        if len(tensors) > _MOST_ROWS:
            self.print(Text(f"  and {len(tensors) - _MOST_ROWS} more (--json shows them)\n", "dim"))

    def print_outputs(self, found: ArtifactDiff) -> None:
        if found.runtimes is None:
            return
        ran = " and ".join(found.runtimes) if found.runtimes[0] != found.runtimes[1] else found.runtimes[0]
        kind = "random samples" if found.samples_from == "random" else f"samples of {found.samples_from}"
        self.print(Text(f"outputs of {ran} on {found.samples} {kind}"))
        headings = ("max difference", "relative", "SQNR", "steps", "same class")
        table = _table("output", *headings, right=headings)
        for output in found.outputs:
            table.add_row(Text(_output_name(output)), *_output_cells(output))
        self.print_table(table)


def _table(*headings: str, right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def _counts(words: Iterable[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return sorted(found.items(), key=lambda pair: -pair[1])


def _dtypes(tensors: Sequence[TensorDiff]) -> str:
    pairs = _counts(f"{t.first.dtype} to {t.second.dtype}" for t in tensors if "dtype" in t.differences)
    return f" ({', '.join(pair for pair, _ in pairs)})" if pairs else ""


def _both(tensor: TensorDiff) -> str:
    return f"{tensor.first.name} | {tensor.second.name}"


def _described(tensor: TensorFacts) -> str:
    """`int8[8,3,3,3] 0.0123 z 3`, `int8[8,3,3,3] 8 scales 0.00103 to 0.0123 axis 0`."""
    shape = ",".join("?" if size < 0 else str(size) for size in tensor.shape)
    text = f"{tensor.dtype}[{shape}]"
    if len(tensor.scale) == 1:
        zero_point = f" z {tensor.zero_point[0]}" if tensor.zero_point else ""
        return f"{text} {format_real(tensor.scale[0])}{zero_point}"
    if tensor.scale:
        low, high = format_real(min(tensor.scale)), format_real(max(tensor.scale))
        blocks = "" if tensor.block is None else f" blocks of {tensor.block}"
        return f"{text} {len(tensor.scale)} scales {low} to {high} axis {tensor.axis}{blocks}"
    return text


def _output_name(output: OutputDiff) -> str:
    return output.first if output.first == output.second else f"{output.first} | {output.second}"


def _output_cells(output: OutputDiff) -> tuple[str, ...]:
    return (
        format_real(output.max_difference),
        f"{output.relative_error:.1e}",
        format_db(output.sqnr_db),
        "-" if output.steps is None else str(output.steps),
        format_share(output.same_class),
    )
