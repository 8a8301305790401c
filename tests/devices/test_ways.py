"""Both ways bring the same verdict, and leave nothing behind, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.devices.boards import QUICK, running_board
from toolchain.devices.reading import read_bundle
from toolchain.devices.session import opened, validate_on
from toolchain.devices.ways import WAYS, Limits, Options
from toolchain.devices.ways import here as here_module
from toolchain.devices.ways.ssh import Ssh, _address
from toolchain.errors import DeviceError, OptionError

ONLY = ("onnxruntime", "ai-edge-litert")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with running_board(tmp_path_factory.mktemp("board")) as found:
        yield found


def here(cache: Path, python: str = sys.executable) -> Options:
    return Options(python=python, cache=cache)


def test_here_confirms_the_bundle(made, scratch):
    verdict = validate_on(read_bundle(made), WAYS["here"], here(scratch), runtimes=ONLY)
    assert verdict.passed and len(verdict.judgements) == 3
    assert list(scratch.iterdir()) == []


WRONG_KERNEL = """
import importlib, sys
sys.path.remove(sys.path[sys.path.index(__file__.rpartition("/")[0])])
this = sys.modules.pop("onnxruntime")
real = importlib.import_module("onnxruntime")
sys.modules["onnxruntime"] = this
SessionOptions = real.SessionOptions

class InferenceSession:
    def __init__(self, *given, **named):
        self.session = real.InferenceSession(*given, **named)

    def run(self, names, feeds):
        found = self.session.run(names, feeds)
        return [value // 2 if name in ("c", "f", "y") else value for name, value in zip(names, found)]
"""


def test_a_second_pass_finds_where_a_wrong_kernel_first_shows(made, tmp_path, scratch):
    """A device whose onnxruntime halves what its convolution gives, and all that follows."""
    (tmp_path / "onnxruntime.py").write_text(WRONG_KERNEL)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    verdict = validate_on(read_bundle(made), WAYS["here"], here(scratch, str(python)), runtimes=ONLY[:1])
    (found,) = verdict.judgements
    assert not found.passed and found.latency_ms and found.first_divergence is not None
    assert (found.first_divergence.tensor, found.first_divergence.op) == ("c", "Conv")


def test_what_a_killed_process_left_goes_the_next_time(made, scratch):
    code = """
import os, signal, sys
from pathlib import Path
from toolchain.devices.ways import WAYS, Options
WAYS["here"].open(Options(python=sys.executable, cache=Path(sys.argv[1])))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(scratch)], cwd=ROOT, check=False)
    assert len(list(scratch.iterdir())) == 1
    with opened(WAYS["here"], here(scratch)):
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []


def test_a_board_confirms_the_bundle(made, board, scratch):
    told: list[str] = []
    verdict = validate_on(read_bundle(made), WAYS["ssh"], board.options(), runtimes=ONLY, tell=told.append)
    assert verdict.passed and len(verdict.judgements) == 3 and len(told) == 2
    assert board.left() == [] and list(scratch.iterdir()) == []


def test_a_transfer_that_breaks_off_goes_on_with_what_is_missing(made, board, monkeypatch):
    sent: list[list[str]] = []
    real = Ssh.send

    def broken(self: Ssh, folder: Path, names: list[str]) -> None:
        sent.append(list(names))
        if len(sent) == 1:
            real(self, folder, names[:4])
            raise DeviceError("the connection was lost")
        real(self, folder, names)

    monkeypatch.setattr(Ssh, "send", broken)
    bundle = read_bundle(made)
    with opened(WAYS["ssh"], board.options()) as way:
        way.put(bundle.folder, bundle.files)
        assert isinstance(way, Ssh) and way.differing(bundle.files) == []
    assert sent == [list(bundle.files), list(bundle.files)[4:]]
    assert board.left() == []


def test_what_arrives_damaged_is_sent_again(made, board):
    bundle = read_bundle(made)
    with opened(WAYS["ssh"], board.options()) as way:
        assert isinstance(way, Ssh)
        way.put(bundle.folder, bundle.files)
        there = Path(way.folder, "model.onnx")
        there.write_bytes(there.read_bytes()[:-1])
        way.put(bundle.folder, bundle.files)
        assert there.read_bytes() == (made / "model.onnx").read_bytes()


RUNS, SENDS = 'case "$*" in *run_bundle*)', 'case "$*" in *tarfile*)'
DEATHS = {
    "the process is killed": (f"{RUNS} kill -9 $$;; esac", QUICK, "signal 9"),
    # the parent is a shell, whose parent is this connection's sshd
    "the connection dies": (f'{RUNS} kill -9 $(cut -d" " -f4 /proc/$PPID/stat);; esac', QUICK, "connection was lost"),
    "it never ends": (f"{RUNS} exec sleep 20;; esac", replace(QUICK, run=0.5), "longer than 0.5 s"),
    "the transfer stalls": (f"{SENDS} exec sleep 20;; esac", replace(QUICK, stall=0.5), "did not arrive"),
    "no room for the bundle": (f"{SENDS} ulimit -f 8;; esac", QUICK, "File too large"),
    "no room for results": (f"{RUNS} ulimit -f 1;; esac", QUICK, "cannot write"),
    "no such interpreter": ("exit 127", QUICK, "does not run there: exit code 127"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_board_that_dies_is_one_error_and_left_clean(made, board, scratch, death):
    script, limits, words = DEATHS[death]
    python = board.python(death.replace(" ", "_"), script)
    bundle = read_bundle(made)
    with pytest.raises(DeviceError, match=words) as caught:
        validate_on(bundle, WAYS["ssh"], board.options(limits, python), runtimes=ONLY[:1])
    assert caught.value.exit_code == 9 and "\n" not in caught.value.what
    assert board.left() == [] and list(scratch.iterdir()) == []


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_here_is_one_error(made, tmp_path, scratch):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 64):
        with pytest.raises(DeviceError, match="No space left"):
            validate_on(read_bundle(made), WAYS["here"], here(disk), runtimes=ONLY)
        assert list(disk.iterdir()) == []


def test_a_full_disk_on_a_board_is_one_error(made, board, scratch):
    with small_disk(board.temporary, 64):
        with pytest.raises(DeviceError, match=r"did not arrive in 2 tries: sending fails: .*No space left") as caught:
            validate_on(read_bundle(made), WAYS["ssh"], board.options(), runtimes=ONLY)
        assert "\n" not in caught.value.what and board.left() == []
    assert list(scratch.iterdir()) == []


def test_a_disk_that_fills_while_the_bundle_runs_is_one_error(made, board, scratch):
    """There is room for the bundle, to the last page, and none for results."""
    bundle = read_bundle(made)
    sizes = [(made / name).stat().st_size for name in bundle.files]
    pages = sum(-(-size // 4096) for size in sizes)
    with small_disk(board.temporary, 4 * pages):
        with pytest.raises(DeviceError, match=r"cannot write the results|No space left"):
            validate_on(bundle, WAYS["ssh"], board.options(), runtimes=ONLY)
        assert board.left() == []
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("at", ["while it is sent", "while it runs"])
def test_a_board_that_stops_answering_is_one_error_and_clean_once_it_goes_on(made, board, scratch, tmp_path, at):
    """All of sshd is frozen, the keeper's session too: as where a cable was pulled out and put in again."""
    mark, limits = tmp_path / "mark", replace(QUICK, connect=2, stall=5, step=5, run=5, tries=1)
    word = {"while it is sent": "tarfile", "while it runs": "run_bundle"}[at]
    python = board.python(word, f'case "$*" in *{word}*) touch "{mark}"; sleep 1;; esac')
    stopped: list[int] = []

    def stop() -> None:
        while not mark.exists():
            time.sleep(0.01)
        stopped.extend([board.daemon, *board.sessions()])
        for process in stopped:
            os.kill(process, signal.SIGSTOP)

    threading.Thread(target=stop, daemon=True).start()
    try:
        with pytest.raises(DeviceError, match=r"took longer than|connection was lost"):
            validate_on(read_bundle(made), WAYS["ssh"], board.options(limits, python), runtimes=ONLY)
        assert stopped and list(scratch.iterdir()) == []
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    assert board.left() == []


def test_the_board_is_clean_though_this_process_is_killed(made, board):
    code = """
import sys, time
from toolchain.devices.ways import WAYS, Options, Limits
way = WAYS["ssh"].open(Options(host=sys.argv[1], ssh=tuple(sys.argv[2:])))
print(way.folder, flush=True)
time.sleep(60)
"""
    options = board.options()
    command = [sys.executable, "-c", code, str(options.host), *options.ssh]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir() and folder.parent == board.temporary
        os.kill(process.pid, signal.SIGKILL)
    assert board.left() == []


def test_who_is_not_let_in_is_told_so(board):
    with pytest.raises(DeviceError, match="Permission denied") as caught:
        WAYS["ssh"].open(board.options(key="other_key"))
    assert "without asking" in str(caught.value.hint)


def test_a_board_that_is_not_there_is_told_so(board):
    options = replace(board.options(), host="127.0.0.1:9")
    with pytest.raises(DeviceError, match="refused"):
        WAYS["ssh"].open(options)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("pi@board", "pi@board", None), ("board:2222", "board", 2222), ("me@[fe80::1]:22", "me@fe80::1", 22)],
)
def test_addresses(text, host, port):
    assert _address(text) == (host, port)


@pytest.mark.parametrize("text", [None, "", "-oProxyCommand=x", "a b", "host:99999", "host;rm", "user@"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(OptionError):
        _address(text)


def test_a_venv_that_cannot_be_filled_is_one_line_and_goes(tmp_path, monkeypatch):
    """pip finds no package where it may ask no index; the venv is made of nothing, which saves its seconds."""

    def bare(folder: Path, wanted: tuple[str, ...], limits: Limits) -> None:
        folder.mkdir()
        raise DeviceError(f"{', '.join(wanted)} cannot be installed: no index")

    monkeypatch.setattr(here_module, "_install", bare)
    with pytest.raises(DeviceError, match=r"nothing-at-all==0 cannot be installed"):
        here_module.fresh_venv(Options(cache=tmp_path, requirements=("nothing-at-all==0",)))
    assert list(tmp_path.iterdir()) == []


def test_a_venv_is_made_once_and_is_not_ours(tmp_path):
    """An empty one: installing runtimes takes the network."""
    options = Options(cache=tmp_path / "cache", requirements=("pip",))
    python = here_module.fresh_venv(options)
    assert python != Path(sys.executable) and str(python).startswith(str(tmp_path))
    before = python.stat().st_ino
    assert here_module.fresh_venv(options) == python and python.stat().st_ino == before
    code = "import importlib.util as u; print(u.find_spec('numpy'))"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout == "None\n"


def test_the_table_fits_the_protocol():
    assert list(WAYS) == [kind.name for kind in WAYS.values()]
    for kind in WAYS.values():
        assert kind.description and "\n" not in (kind.missing() or "")
