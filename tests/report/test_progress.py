"""Progress: bars on a terminal after a while, a plain line now and then anywhere else."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from toolchain.progress import Progress
from toolchain.report import RichProgress


def plain(line_every_s: float = 5.0) -> tuple[RichProgress, io.StringIO]:
    stream = io.StringIO()
    return RichProgress(Console(file=stream), line_every_s=line_every_s), stream


def on_terminal(shown_after_s: float) -> tuple[RichProgress, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, force_interactive=True, width=80, _environ={"TERM": "xterm"})
    return RichProgress(console, shown_after_s=shown_after_s), stream


def test_it_is_a_progress_and_passes_items_through() -> None:
    progress: Progress = plain()[0]
    assert list(progress.track(iter("abc"), description="read", total=3)) == ["a", "b", "c"]


class Clock:
    """Time that passes only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("toolchain.report.progress.time.monotonic", lambda: self.now)


def told(progress: RichProgress, clock: Clock, count: int, each_s: float, total: int | None) -> None:
    """Track `count` items; the time an item takes passes while it is being worked on."""
    for _ in progress.track(iter(range(count)), description="calibrate [x]", total=total):
        clock.now += each_s


def test_a_pipe_gets_nothing_for_work_that_is_soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (progress, stream) = Clock(monkeypatch), plain()
    with progress, progress.running("trace"):
        told(progress, clock, 9, 0.5, total=9)
    assert stream.getvalue() == ""


def test_a_pipe_gets_a_line_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (progress, stream) = Clock(monkeypatch), plain()
    told(progress, clock, 40, 0.5, total=40)
    assert stream.getvalue().splitlines() == [
        "calibrate [x]: 10 of 40, 15 s left",
        "calibrate [x]: 20 of 40, 10 s left",
        "calibrate [x]: 30 of 40, 5 s left",
    ]


def test_slow_items_get_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (progress, stream) = Clock(monkeypatch), plain()
    told(progress, clock, 3, 60.0, total=3)
    assert stream.getvalue().splitlines() == [
        "calibrate [x]: 1 of 3, 2 min 00 s left",
        "calibrate [x]: 2 of 3, 1 min 00 s left",
    ]


def test_work_of_unknown_length_tells_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (progress, stream) = Clock(monkeypatch), plain()
    told(progress, clock, 11, 1.0, total=None)
    assert stream.getvalue().splitlines() == ["calibrate [x]: 5 in 5 s", "calibrate [x]: 10 in 10 s"]


def test_a_dumb_terminal_gets_lines() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, _environ={"TERM": "dumb"})
    progress = RichProgress(console, shown_after_s=0, line_every_s=0)
    assert not progress.moves
    list(progress.track(range(3), description="check"))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("check: 1 of 3, 0 s left\n")


def test_what_fails_passes_through() -> None:
    progress, stream = plain()
    with pytest.raises(ValueError, match="boom"), progress.running("trace"):
        raise ValueError("boom")

    def failing() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(progress.track(failing(), description="read"))
    assert stream.getvalue() == ""


def test_short_work_draws_nothing() -> None:
    progress, stream = on_terminal(5.0)
    with progress:
        list(progress.track(range(3), description="check"))
        with progress.running("trace"):
            pass
    assert stream.getvalue() == ""


def test_long_work_draws_a_bar_with_a_percentage_and_time_left_and_clears_it() -> None:
    progress, stream = on_terminal(0.01)
    with progress:
        for _ in progress.track(range(4), description="calibrate"):
            time.sleep(0.15)
    drawn = stream.getvalue()
    assert "calibrate" in drawn
    assert re.search(r"[1-9]\d%", drawn)
    assert "left" in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor is back
    assert list(progress.track(range(2), description="check")) == [0, 1]  # and it can be used again


def test_a_slow_first_item_already_shows() -> None:
    progress, stream = on_terminal(0.01)
    for _ in progress.track(range(1), description="recover"):
        time.sleep(0.3)
        assert "recover" in stream.getvalue()


def test_bars_within_bars_share_the_display() -> None:
    progress, stream = on_terminal(0.0)
    with progress, progress.running("outer"):
        time.sleep(0.05)
        for _ in progress.track(range(2), description="inner"):
            time.sleep(0.15)
    drawn = stream.getvalue()
    assert "outer" in drawn
    assert "inner" in drawn
    assert drawn.count("\x1b[?25h") == 1


def test_a_stages_own_bar_takes_the_place_of_the_one_around_it() -> None:
    progress, stream = on_terminal(0.0)
    with progress, progress.running("calibrate"):
        time.sleep(0.15)
        before = stream.tell()
        for _ in progress.track(range(2), description="calibrate"):
            time.sleep(0.3)
        drawn = stream.getvalue()[before:]
    assert "50%" in drawn
    assert "\x1b[1A" not in drawn  # the cursor never goes up a line: there is only one


def test_leaving_the_block_clears_work_left_open() -> None:
    progress, stream = on_terminal(0.0)
    with progress:
        left = progress.track(range(9), description="check")
        next(left)
        time.sleep(0.1)
    assert stream.getvalue().count("\x1b[?25h") == 1
    assert list(left) == list(range(1, 9))  # still passes its items through
