"""An Android phone by the adb client (Debian package `adb`): `--host SERIAL` where several are attached.

    put     adb push of what differs, folder by folder, into a new folder under /data/local/tmp
    get     adb pull

The rest is `ways.shell`, by `adb shell`: shell protocol 2 (Android 7 and later) passes standard input and exit codes.
Python is looked for in the shell's PATH and where Termux keeps its own, which the shell may run on rooted phones only.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from toolchain.devices.ways.shell import LARGEST_RESULT, ShellWay
from toolchain.devices.ways.way import Limits, Options, Process, Ran, WayKind
from toolchain.errors import DeviceError, OptionError

_END: Final = "toolchain: end"
"""The last line of every command: without it the connection ended first, which some clients leave with 0 after."""

_TEMPORARY: Final = "/data/local/tmp"
_PYTHONS: Final = ("python3", "/data/data/com.termux/files/usr/bin/python3")
_NO_PYTHON: Final = (
    "--python names one that the adb shell may run: below /data/local/tmp, or Termux's on a rooted phone; without one, "
    "run run_bundle.py inside Termux and judge its results.json here"
)
_CURES: Final = {
    "unauthorized": "unlock the phone and allow debugging by this computer",
    "authorizing": "unlock the phone and allow debugging by this computer",
    "offline": "plug the cable in again, or: adb reconnect offline",
    "no permissions": "let this user at the USB device: Debian's android-sdk-platform-tools-common has the udev rules",
}


@dataclass
class Adb(ShellWay):
    """A phone, reached; `host` is its serial number."""

    @classmethod
    def open(cls, options: Options) -> Adb:
        """Choose the phone, find its Python, and make a folder there."""
        limits = options.limits
        way = cls(_chosen(options.host, _attached(limits)), options.python or "", limits)
        if "shell_v2" not in way._asked("features", "asking what it can").out.split():
            raise DeviceError("its adb passes no exit codes", where=way.host, hint="Android 7 or later is needed")
        way.python = way.python or way._found_python()
        try:
            way.keep(_TEMPORARY, f"adb -s {way.host} shell must make a folder in {_TEMPORARY}")
        except BaseException:
            way.clean()
            raise
        return way

    def command(self, line: str) -> list[str]:
        return [*self._adb("shell", "-T"), f"({line}); code=$?; echo {_END} >&2; exit $code"]

    def answer(self, ran: Ran) -> Ran | None:
        said, end, _ = ran.err.rpartition(_END)
        return replace(ran, err=said) if end else None

    def send(self, folder: Path, names: Sequence[str]) -> None:
        """One push a folder: it makes none on its way."""
        parents: dict[str, list[str]] = {}
        for name in names:
            parents.setdefault(str(PurePosixPath(self.folder, name).parent), []).append(str(folder / name))
        made = Process.start(self.command(f"mkdir -p {shlex.join(parents)}"))
        if (ran := self.reached(made.wait(self.limits.step, f"making folders on {self.host}"))).code:
            raise DeviceError(f"sending fails: {ran.last_line}", where=self.host)
        for parent, paths in parents.items():
            seconds = self.limits.transfer(sum(Path(path).stat().st_size for path in paths))
            process = Process.start([*self._adb("push"), *paths, f"{parent}/"])
            if (ran := process.wait(seconds, f"sending to {self.host}")).code:
                raise DeviceError(f"sending fails: {_error(ran)}", where=self.host)

    def fetch(self, name: str, to: Path) -> None:
        process = Process.start([*self._adb("pull"), f"{self.folder}/{name}", str(to)])
        ran = process.wait(self.limits.transfer(LARGEST_RESULT), f"fetching {name}")
        if ran.code:
            raise DeviceError(f"{name} cannot be fetched: {_error(ran)}", where=self.host)

    def _adb(self, *words: str) -> list[str]:
        return ["adb", "-s", self.host, *words]

    def _asked(self, word: str, what: str) -> Ran:
        ran = Process.start(self._adb(word)).wait(self.limits.connect, what)
        if ran.code:
            raise DeviceError(f"{self.host} cannot be reached: {_error(ran)}", where=self.host)
        return ran

    def _found_python(self) -> str:
        tries = "; ".join(f'{name} -c "" </dev/null >/dev/null 2>&1 && echo {name} && exit' for name in _PYTHONS)
        ran = Process.start(self.command(f"{tries}; exit 0")).wait(
            self.limits.step, f"looking for Python on {self.host}"
        )
        if self.reached(ran).out.strip() not in _PYTHONS:
            raise DeviceError(f"no Python on {self.host}", where=self.host, hint=_NO_PYTHON)
        return ran.out.strip()


def _error(ran: Ran) -> str:
    """What the client says is wrong; behind it comes how fast it was."""
    lines = [line for line in ran.err.splitlines() + ran.out.splitlines() if "error:" in line]
    return lines[0].rpartition("error: ")[2][:300] if lines else ran.last_line


def _attached(limits: Limits) -> dict[str, str]:
    """State by serial number, of every phone that adb knows. Raises DeviceError where adb itself fails."""
    ran = Process.start(["adb", "devices"]).wait(2 * limits.connect, "adb devices")
    if ran.code:
        raise DeviceError(f"adb devices fails: {ran.last_line}", hint="adb kill-server, then again")
    rows = [line.split(None, 1) for line in ran.out.partition("List of devices attached")[2].splitlines()]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _chosen(serial: str | None, attached: dict[str, str]) -> str:
    """The serial number of the phone that is meant. Raises OptionError where it is not clear, DeviceError where that
    phone takes no commands."""
    if serial is not None and not re.fullmatch(r"[\w\[][\w.:\[\]-]*", serial):
        raise OptionError(f"{serial!r} is no serial number", hint="adb devices lists them")
    names = ", ".join(attached)
    if not attached:
        hint = "allow USB debugging in its developer options, plug it in; adb devices must list it"
        raise DeviceError("no phone is attached", hint=hint)
    if serial is None and len(attached) > 1:
        raise OptionError(f"{len(attached)} phones are attached: {names}", hint="--host SERIAL (HOST=SERIAL) names one")
    found = serial or names
    if found not in attached:
        raise DeviceError(f"no phone {found} is attached", where=names, hint="adb connect HOST:PORT for one by network")
    state = attached[found]
    if state != "device":
        cure = next((cure for begin, cure in _CURES.items() if state.startswith(begin)), "start its system")
        raise DeviceError(f"{found} takes no commands: {state.partition(';')[0]}", where=found, hint=cure)
    return found


def _missing() -> str | None:
    return None if shutil.which("adb") else "adb: apt-get install adb"


ADB = WayKind(
    "adb",
    "an Android phone with Python and a runtime, by the adb client (--host SERIAL)",
    _missing,
    Adb.open,
    to_host=True,
)
