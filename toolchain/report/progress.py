"""Progress a person can watch: bars with time left on a terminal, now and then a plain line anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Timer
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from toolchain.report.units import format_seconds

T = TypeVar("T")

SHOWN_AFTER_S = 1.0
"""Work that is over sooner shows no bar."""

LINE_EVERY_S = 5.0
"""Where nothing moves, one piece of work prints no more than a line in this time."""


class RichProgress:
    """`toolchain.progress.Progress` for people. A `with` block leaves a clean terminal, also on Ctrl-C."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        shown_after_s: float = SHOWN_AFTER_S,
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        console = console or Console(stderr=True)
        self.moves = console.is_terminal and console.is_interactive and not console.is_dumb_terminal
        """Whether bars are drawn, on a terminal that can."""
        bars = _Bars(console, shown_after_s) if self.moves else None
        self._display: _Display = bars or _Lines(console, line_every_s)

    def __enter__(self) -> RichProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` through; the bar moves as each is done with."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        work = self._display.begin(description, total)
        done = False
        try:
            for item in items:
                yield item
                self._display.advance(work)
            done = True
        finally:
            self._display.end(work, done)

    @contextmanager
    def running(self, description: str) -> Iterator[None]:
        """Work that cannot tell how far it is; a bar of the same name that can takes its place."""
        work = self._display.begin(description, None)
        done = False
        try:
            yield
            done = True
        finally:
            self._display.end(work, done)


class _Display(Protocol):
    def begin(self, description: str, total: int | None) -> int: ...
    def advance(self, work: int) -> None: ...
    def end(self, work: int, done: bool) -> None: ...
    def close(self) -> None: ...


@dataclass
class _Work:
    """What `_Lines` knows of one piece of work; `told` is when it last printed a line, or began."""

    description: str
    total: int | None
    began: float
    told: float
    done: int = 0


class _Lines:
    """Logs and pipes: nothing for work that is soon over, for what lasts a line every few seconds."""

    def __init__(self, console: Console, every_s: float) -> None:
        self._console = console
        self._every = every_s
        self._works: list[_Work] = []

    def begin(self, description: str, total: int | None) -> int:
        now = time.monotonic()
        self._works.append(_Work(description, total, now, now))
        return len(self._works) - 1

    def advance(self, work: int) -> None:
        told, now = self._works[work], time.monotonic()
        told.done += 1
        if now - told.told >= self._every and told.done != told.total:
            told.told = now
            self._print(_line(told, now - told.began))

    def end(self, work: int, done: bool) -> None:
        pass

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        # written past rich: no styles, no wrapping, no control characters
        self._console.file.write(line + "\n")
        self._console.file.flush()


def _line(work: _Work, seconds: float) -> str:
    """`calibrate: 40 of 100, 12 s left`."""
    if work.total is None:
        return f"{work.description}: {work.done} in {_rounded(seconds)}"
    left = max(work.total - work.done, 0) * seconds / work.done
    return f"{work.description}: {work.done} of {work.total}, {_rounded(left)} left"


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else format_seconds(seconds)


class _TimeLeft(ProgressColumn):
    """`0:42 left`; for work that cannot tell how far it is, how long it has taken."""

    max_refresh = 0.5  # an estimate that changes faster cannot be read

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(_clock(task.elapsed), style="progress.elapsed")
        return Text(f"{_clock(task.time_remaining)} left", style="progress.remaining")


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


class _Bars:
    """One live display for all bars, there only while something has run for longer than the delay."""

    def __init__(self, console: Console, shown_after_s: float) -> None:
        self._delay = shown_after_s
        self._lock = Lock()
        self._open: dict[int, Timer] = {}
        self._names: dict[int, str] = {}
        self._shown: set[int] = set()
        self._live = False
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(show_speed=False),
            _TimeLeft(),
            console=console,
            transient=True,
            expand=True,
            # what goes to a file must not be drawn into the terminal
            redirect_stdout=sys.stdout.isatty(),
        )

    def begin(self, description: str, total: int | None) -> int:
        work = self._bars.add_task(description, total=total, visible=False)
        # a timer, since a first item may itself take longer than the delay
        timer = Timer(self._delay, self._show, (work,))
        timer.daemon = True
        with self._lock:
            self._open[work] = timer
            self._names[work] = description
        timer.start()
        return work

    def advance(self, work: int) -> None:
        if work in self._open:
            self._bars.advance(TaskID(work))

    def end(self, work: int, done: bool) -> None:
        with self._lock:
            timer = self._open.pop(work, None)
            if timer is None:
                return
            timer.cancel()
            self._bars.remove_task(TaskID(work))
            self._shown.discard(work)
            self._choose()
            self._hide_when_idle()

    def close(self) -> None:
        for work in tuple(self._open):
            self.end(work, False)

    def _show(self, work: int) -> None:
        with self._lock:
            if work in self._open:
                self._shown.add(work)
                self._choose()
                self._bars.start()
                self._live = True

    def _choose(self) -> None:
        """Of bars of one name only the innermost is seen: a stage's own, not the one around the stage."""
        innermost = {self._names[work]: work for work in sorted(self._shown)}
        for work in self._shown:
            self._bars.update(TaskID(work), visible=innermost[self._names[work]] == work)

    def _hide_when_idle(self) -> None:
        if self._live and not self._open:
            self._bars.stop()
            self._live = False
