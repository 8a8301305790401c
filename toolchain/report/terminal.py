"""The end of a deployment: float against deployed, gates, what was left out, where the files are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from toolchain.report.backends import BackendTable, backend_tables
from toolchain.report.headline import Facts, measures, timed
from toolchain.report.ladder import find_ladder
from toolchain.report.progress import RichProgress
from toolchain.report.units import format_seconds

__all__ = ["RichProgress", "print_summary"]


def print_summary(facts: Facts, console: Console, paths: Sequence[Path] = ()) -> None:
    """Print the end of a deployment. `paths` are the files written, by default the names the facts hold.

    A path stands alone on its line and is never broken, so that it can be clicked or copied.
    """
    screen = _Screen(console)
    screen.print_title(facts)
    screen.print_measures(facts)
    screen.print_gates(facts)
    screen.print_backends(facts)
    screen.print_ladder(facts)
    screen.print_stages(facts)
    screen.print_paths(paths or [Path(file["name"]) for file in facts["files"]])


class _Screen:
    """A console and what it can show: text outside its encoding becomes `?`, marks become words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._marks = console.encoding.lower().startswith("utf")

    def text(self, content: object, style: str = "") -> Text:
        encoding = self._console.encoding
        return Text(str(content).encode(encoding, "replace").decode(encoding), style)

    def mark(self, passed: bool) -> Text:
        if self._marks:
            return Text("✓" if passed else "✗", "green" if passed else "bold red")
        return Text("ok" if passed else "MISSED", "green" if passed else "bold red")

    def print_title(self, facts: Facts) -> None:
        target, device = facts["target"], facts["device"]
        self._console.print()
        title = self.text(facts["model"]["name"], "bold")
        title.append(" for ").append_text(self.text(target["name"], "bold"))
        self._console.print(title)
        self._console.print(self.text(device["description"], "dim"))

    def print_measures(self, facts: Facts) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", min_width=23)
        for name in ("float", "deployed"):
            table.add_column(name, justify="right", no_wrap=True, min_width=9)
        table.add_column("")
        for measure in measures(facts):
            style = {True: "green", False: "yellow", None: "dim"}[measure.better]
            cells = (self.text(measure.label), self.text(measure.before_text, "dim"))
            table.add_row(*cells, self.text(measure.after_text, "bold"), self.text(measure.change, style))
        self._console.print(Padding(table, (1, 0, 1, 2)))
        if timed(facts):
            machine = facts["measured_on"]["architecture"]
            note = f"latency: one thread of this machine ({machine}), not of {facts['device']['name']}"
            self._console.print(self.text(note, "dim"))

    def print_gates(self, facts: Facts) -> None:
        judged = [gate for gate in facts["gates"] if gate["passed"] is not None]
        on = f"on {facts['samples']} samples kept apart from calibration"
        if facts["missed"]:
            self._console.print(self.text(f"{_gates(len(facts['missed']))} missed {on}", "bold red"))
            self._rows((self.mark(False), self.text(line)) for line in facts["missed"])
        else:
            held = self.text(f"{_gates(len(judged))} held {on}")
            self._console.print(Text(" ").join([self.mark(True), held]) if judged else held)

        for note in facts["notes"]:
            self._console.print(self.text(note, "yellow"))

    def print_backends(self, facts: Facts) -> None:
        for table in backend_tables(facts):
            self._print_backend(table)
        for note in facts.get("backends", {}).get("notes", ()):
            self._console.print(self.text(note, "dim"))

    def _print_backend(self, table: BackendTable) -> None:
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        versions = {version for _, version in table.files}
        grid.add_column(self.text(f"{table.backend} {versions.pop()}" if len(versions) == 1 else table.backend))
        for name, _ in table.files:
            grid.add_column(self.text(name), justify="right")
        for label, is_detail, texts in table.rows:
            if not is_detail:
                grid.add_row(self.text(label), *(self.text(text, "bold") for text in texts))
        self._console.print(Padding(grid, (1, 0, 0, 0)))
        for op in table.beside:
            cure = f"; instead: {op['instead']}" if op["instead"] else ""
            self._console.print(self.text(f"on the processor: {op['op']} {op['name']}: {op['why']}{cure}", "yellow"))
        for note in table.notes:
            self._console.print(self.text(note, "dim"))
        self._console.print()

    def print_ladder(self, facts: Facts) -> None:
        ladder = find_ladder(facts)
        if ladder is None:
            return
        self._console.print(self.text(ladder.title, "" if ladder.meets_goal else "yellow"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for index, name in enumerate(ladder.header):
            table.add_column(name, justify="right" if 0 < index < len(ladder.header) - 1 else "left")
        for row in ladder.rows:
            table.add_row(*(self.text(cell, "" if row.is_kept else "dim") for cell in row.cells))
        self._console.print(Padding(table, (0, 0, 1, 2)))

    def print_stages(self, facts: Facts) -> None:
        runs = facts["stages"]
        if runs:
            # a stage taken from the store costs next to nothing: its time would say the wrong thing
            times = ["(resumed)" if run["resumed"] else format_seconds(run["seconds"]) for run in runs]
            steps = ", ".join(f"{run['name']} {time}" for run, time in zip(runs, times, strict=True))
            self._console.print(self.text(f"stages: {steps}", "dim"))
        if facts["left_out"]:
            self._console.print(self.text("left out:", "dim"))
            self._rows((self.text(row["stage"]), self.text(row["why"], "dim")) for row in facts["left_out"])

    def print_paths(self, paths: Iterable[Path]) -> None:
        self._console.print()
        for path in paths:
            self._console.print(self.text(f"  {path}", "cyan"), soft_wrap=True)

    def _rows(self, rows: Iterable[tuple[Text, Text]]) -> None:
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for row in rows:
            grid.add_row(*row)
        self._console.print(Padding(grid, (0, 0, 0, 2)))


def _gates(count: int) -> str:
    return f"{count} gate{'' if count == 1 else 's'}"
