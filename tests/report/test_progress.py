"""Progress: bars on a terminal after a while, two plain lines anywhere else."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from toolchain.progress import Progress
from toolchain.report import RichProgress


def plain() -> tuple[RichProgress, io.StringIO]:
    stream = io.StringIO()
    return RichProgress(Console(file=stream)), stream


def on_terminal(shown_after_s: float) -> tuple[RichProgress, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, force_interactive=True, width=80, _environ={"TERM": "xterm"}
    )
    return RichProgress(console, shown_after_s=shown_after_s), stream


def test_it_is_a_progress_and_passes_items_through() -> None:
    progress: Progress = plain()[0]
    assert list(progress.track(iter("abc"), description="read", total=3)) == ["a", "b", "c"]


def test_a_pipe_gets_one_line_at_each_end() -> None:
    progress, stream = plain()
    with progress:
        for _ in progress.track(range(3), description="calibrate [x]"):
            assert stream.getvalue() == "calibrate [x] (3) ...\n"
    assert re.fullmatch(
        r"calibrate \[x\] \(3\) \.\.\.\ncalibrate \[x\]: done in 0\.\d\d s\n", stream.getvalue()
    )


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, _environ={"TERM": "dumb"})
    list(RichProgress(console, shown_after_s=0).track(range(2), description="check"))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("check (2) ...\n")


def test_work_that_fails_is_not_called_done() -> None:
    progress, stream = plain()
    with pytest.raises(ValueError, match="boom"), progress.running("trace"):
        raise ValueError("boom")
    assert "trace: stopped after" in stream.getvalue()

    def failing() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(progress.track(failing(), description="read"))
    assert "read: stopped after" in stream.getvalue()


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


def test_leaving_the_block_clears_work_left_open() -> None:
    progress, stream = on_terminal(0.0)
    with progress:
        left = progress.track(range(9), description="check")
        next(left)
        time.sleep(0.1)
    assert stream.getvalue().count("\x1b[?25h") == 1
    assert list(left) == list(range(1, 9))  # still passes its items through
