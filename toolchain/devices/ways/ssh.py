"""Any Linux board by the system's ssh: `--host user@board`, whatever ~/.ssh/config makes of it.

A tar of what differs goes through ssh, and Python, which is there anyhow, unpacks it: neither scp nor sftp need be. The
rest is `ways.shell`.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolchain.devices.ways.shell import LARGEST_RESULT, ShellWay
from toolchain.devices.ways.way import Options, Process, Ran, WayKind
from toolchain.errors import DeviceError, OptionError

_LOST = 255
"""What ssh leaves with where it, not the command, failed."""

_UNPACK = """
import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for member in archive:
        archive.extract(member)
"""


@dataclass
class Ssh(ShellWay):
    """A board, reached."""

    arguments: tuple[str, ...]

    @classmethod
    def open(cls, options: Options) -> Ssh:
        """Log in and make a folder there."""
        host, port = _address(options.host)
        limits = options.limits
        alive = max(1, round(limits.connect / 3))
        given = [
            *options.ssh,
            *(("-o", f"Port={port}") if port else ()),
            *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, round(limits.connect))}"),
            *("-o", f"ServerAliveInterval={alive}", "-o", "ServerAliveCountMax=3"),
        ]
        way = cls(host, options.python or "python3", limits, tuple(given))
        try:
            way.keep("/tmp", f"ssh {host} must log in without asking: a key, a known host")
        except BaseException:
            way.clean()
            raise
        return way

    def command(self, line: str) -> list[str]:
        return ["ssh", "-T", *self.arguments, "--", self.host, f"exec sh -c {shlex.quote(line)}"]

    def answer(self, ran: Ran) -> Ran | None:
        return None if ran.code == _LOST else ran

    def send(self, folder: Path, names: Sequence[str]) -> None:
        content = _archive(folder, names)
        process = Process.start(self.in_folder(self.python, "-c", _UNPACK), keep_input=True)
        seconds = self.limits.transfer(len(content))
        ran = self.reached(process.wait(seconds, f"sending to {self.host}", content=content))
        if ran.code:
            raise DeviceError(f"sending fails: {ran.last_line}", where=self.host)

    def fetch(self, name: str, to: Path) -> None:
        process = Process.start(self.command(f"exec cat {shlex.quote(f'{self.folder}/{name}')}"))
        content, ran = process.wait_bytes(self.limits.transfer(LARGEST_RESULT), f"fetching {name}")
        if self.reached(ran).code:
            raise DeviceError(f"{name} cannot be fetched: {ran.last_line}", where=self.host)
        try:
            to.write_bytes(content)
        except OSError as error:
            raise DeviceError(f"results cannot be kept: {error.strerror}", where=str(to)) from error


def _missing() -> str | None:
    return None if shutil.which("ssh") else "ssh: apt-get install openssh-client"


SSH = WayKind(
    "ssh", "any Linux board with Python and a runtime, by the system's ssh (--host)", _missing, Ssh.open, to_host=True
)


def _address(text: str | None) -> tuple[str, int | None]:
    """[user@]host[:port], an IPv6 address in brackets where it has a port."""
    if not text:
        raise OptionError("which board?", hint="--host user@board (HOST=user@board)")
    found = re.fullmatch(r"(?P<host>(?:[\w.+-]+@)?(?:\w[\w.-]*|\[[0-9a-fA-F:]+\]))(?::(?P<port>\d{1,5}))?", text)
    if found is None or int(found["port"] or 0) > 65535:
        raise OptionError(f"{text!r} is no [user@]host[:port]")
    return found["host"].replace("[", "").replace("]", ""), int(found["port"]) if found["port"] else None


def _archive(folder: Path, names: Sequence[str]) -> bytes:
    """A tar of the files, without owners and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            content = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
