"""The adb way, by the real client where it is installed: the same verdict, and phones left clean, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.devices.phones import Gone, Phone, Server, running_server
from toolchain.devices.reading import read_bundle
from toolchain.devices.session import opened, validate_on
from toolchain.devices.ways import WAYS, Limits, Options
from toolchain.devices.ways.adb import Adb
from toolchain.errors import DeviceError, OptionError, ToolchainError

QUICK = Limits(connect=5, step=20, run=60, tries=2)
ONLY = ("onnxruntime", "ai-edge-litert")
ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "tests" / "devices" / "adb_client.py"


@pytest.fixture(params=["real", "stand-in"])
def server(request, tmp_path, monkeypatch) -> Iterator[Server]:
    if request.param == "stand-in":
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "adb").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{CLIENT}" "$@"\n')
        (folder / "adb").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    elif shutil.which("adb") is None:
        pytest.skip("no adb here: apt-get install adb")
    with running_server() as found:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(found.port))
        yield found


@pytest.fixture
def phone(server, tmp_path) -> Phone:
    folder = tmp_path / "phone"
    folder.mkdir()
    server.phones["R58M123ABC"] = Phone(folder)
    return server.phones["R58M123ABC"]


def options(limits: Limits = QUICK, **changes: str | None) -> Options:
    return Options(**({"python": sys.executable, "limits": limits} | changes))  # type: ignore[arg-type]


def left(phone: Phone) -> list[str]:
    """What is still there, as soon as nothing is, or after some seconds."""
    for _ in range(250):
        if not (names := [path.name for path in phone.temporary.iterdir()]):
            return []
        threading.Event().wait(0.02)
    return names


def stand_in(tmp_path: Path, script: str) -> str:
    """An interpreter that does something else first, in sh, where it is to run the bundle."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in *run_bundle*) {script};; esac\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_a_phone_confirms_the_bundle(made, phone, scratch):
    verdict = validate_on(read_bundle(made), WAYS["adb"], options(), runtimes=ONLY)
    assert verdict.passed and len(verdict.judgements) == 3
    assert left(phone) == [] and list(scratch.iterdir()) == []


def test_a_python_in_the_path_is_found(phone):
    with opened(WAYS["adb"], options(python=None)) as way:
        assert isinstance(way, Adb) and way.python == "python3"
        ran = way.run(["-c", "import os, sys; print(os.getcwd()); sys.exit(5)"], seconds=20)
        assert (ran.code, ran.out.strip()) == (5, way.folder)


def test_a_transfer_that_breaks_off_goes_on_with_what_is_missing(made, phone):
    """The connection goes once, after half of the bytes: the others come, and no more than one file comes twice."""
    bundle = read_bundle(made)
    sizes = [(made / name).stat().st_size for name in bundle.files]

    def break_off(phone: Phone) -> None:
        if phone.sent > sum(sizes) / 2:
            phone.during = lambda _: None
            raise Gone

    phone.during = break_off
    with opened(WAYS["adb"], options()) as way:
        way.put(bundle.folder, bundle.files)
        assert isinstance(way, Adb) and way.differing(bundle.files) == []
    assert sum(sizes) < phone.sent <= sum(sizes) + max(sizes)
    assert left(phone) == []


def test_what_arrives_damaged_is_sent_again(made, phone):
    bundle = read_bundle(made)
    with opened(WAYS["adb"], options()) as way:
        way.put(bundle.folder, bundle.files)
        assert isinstance(way, Adb)
        there = Path(way.folder, "model.onnx")
        there.write_bytes(there.read_bytes()[:-1])
        way.put(bundle.folder, bundle.files)
        assert there.read_bytes() == (made / "model.onnx").read_bytes()


RUNS: dict[str, tuple[str, Limits, str]] = {
    "the process is killed": ("kill -9 $$", QUICK, "signal 9"),
    "it never ends": ("exec sleep 20", replace(QUICK, run=0.5), "longer than 0.5 s"),
    "no room for results": ("ulimit -f 1", QUICK, "cannot write"),
}


@pytest.mark.parametrize("death", RUNS)
def test_a_run_that_fails_is_one_error_and_the_phone_left_clean(made, phone, scratch, tmp_path, death):
    script, limits, words = RUNS[death]
    python = stand_in(tmp_path, script)
    with pytest.raises(DeviceError, match=words) as caught:
        validate_on(read_bundle(made), WAYS["adb"], options(limits, python=python), runtimes=ONLY[:1])
    assert caught.value.exit_code == 9 and "\n" not in caught.value.what
    assert left(phone) == [] and list(scratch.iterdir()) == []


def test_a_phone_that_is_unplugged_in_the_middle(made, server, phone, scratch, tmp_path):
    mark = tmp_path / "runs"
    python = stand_in(tmp_path, f'touch "{mark}"')

    def unplug() -> None:
        while not mark.exists():
            threading.Event().wait(0.01)
        server.unplug()

    threading.Thread(target=unplug, daemon=True).start()
    with pytest.raises(DeviceError, match="connection was lost"):
        validate_on(read_bundle(made), WAYS["adb"], options(python=python), runtimes=ONLY[:1])
    assert left(phone) == [] and list(scratch.iterdir()) == []


def test_a_full_phone_is_one_error(made, phone, scratch):
    phone.room = 20_000
    with pytest.raises(DeviceError, match=r"did not arrive in 2 tries: sending fails: .*No space left") as caught:
        validate_on(read_bundle(made), WAYS["adb"], options())
    assert "\n" not in caught.value.what
    assert left(phone) == [] and list(scratch.iterdir()) == []


def test_a_transfer_that_stalls_is_one_error(made, phone, scratch):
    ended = threading.Event()
    phone.during = lambda _: ended.wait(20) and None
    try:
        with pytest.raises(DeviceError, match=r"did not arrive in 2 tries: sending to .* took longer"):
            validate_on(read_bundle(made), WAYS["adb"], options(replace(QUICK, stall=0.3)))
    finally:
        ended.set()
    assert left(phone) == [] and list(scratch.iterdir()) == []


def test_the_phone_is_clean_though_this_process_is_killed(phone):
    code = """
import sys, time
from toolchain.devices.ways import WAYS, Options
print(WAYS["adb"].open(Options(python=sys.executable)).folder, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().strip()).parent == phone.temporary
        os.killpg(process.pid, signal.SIGKILL)
    assert left(phone) == []


def several(server: Server, folder: Path) -> None:
    server.phones["SECOND"] = Phone(folder)


STATES: dict[str, tuple[Callable[[Server, Phone], object], str | None, type[ToolchainError], str, str]] = {
    "none": (lambda server, phone: server.phones.clear(), None, DeviceError, "no phone is attached", "USB debugging"),
    "several": (
        lambda server, phone: server.phones.update(SECOND=phone),
        None,
        OptionError,
        "2 phones are attached: R58M123ABC, SECOND",
        "--host SERIAL",
    ),
    "another": (lambda server, phone: None, "R58M", DeviceError, "no phone R58M is attached", "adb connect"),
    "unauthorized": (
        lambda server, phone: setattr(phone, "state", "unauthorized"),
        None,
        DeviceError,
        "takes no commands: unauthorized",
        "allow debugging",
    ),
    "offline": (
        lambda server, phone: setattr(phone, "state", "offline"),
        None,
        DeviceError,
        "takes no commands: offline",
        "reconnect offline",
    ),
    "no permissions": (
        lambda server, phone: setattr(
            phone, "state", "no permissions (user in plugdev group; are your udev rules wrong?)"
        ),
        None,
        DeviceError,
        "takes no commands: no permissions",
        "udev rules",
    ),
    "in its boot loader": (
        lambda server, phone: setattr(phone, "state", "bootloader"),
        None,
        DeviceError,
        "takes no commands: bootloader",
        "start its system",
    ),
    "old": (lambda server, phone: setattr(phone, "features", "cmd"), None, DeviceError, "no exit codes", "Android 7"),
    "no serial number": (lambda server, phone: None, "-d", OptionError, "no serial number", "adb devices"),
}


@pytest.mark.parametrize("state", STATES)
def test_a_phone_that_takes_no_commands_is_one_error(server, phone, state):
    change, serial, kind, words, hint = STATES[state]
    change(server, phone)
    with pytest.raises(kind, match=words) as caught:
        WAYS["adb"].open(options(host=serial))
    assert hint in str(caught.value.hint) and "\n" not in caught.value.what
    assert left(phone) == []


def test_one_of_several_is_named(server, phone):
    server.phones["SECOND"] = phone
    with opened(WAYS["adb"], options(host="SECOND")) as way:
        assert isinstance(way, Adb) and way.host == "SECOND"


def test_a_phone_without_python_is_told_how_to_get_one(phone, tmp_path):
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("cat", "mktemp", "rm", "mkdir"):
        (commands / name).symlink_to(str(shutil.which(name)))
    phone.path = str(commands)
    with pytest.raises(DeviceError, match="no Python on R58M123ABC") as caught:
        WAYS["adb"].open(options(python=None))
    assert "Termux" in str(caught.value.hint)
    with (
        pytest.raises(DeviceError, match="/none/python3 does not run there"),
        opened(WAYS["adb"], options(python="/none/python3")) as way,
    ):
        way.put(tmp_path, {})
    assert left(phone) == []


def test_without_the_client_the_way_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert WAYS["adb"].missing() == "adb: apt-get install adb"
