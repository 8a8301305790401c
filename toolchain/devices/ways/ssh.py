"""Any Linux board by the system's ssh: `--host user@board`, whatever ~/.ssh/config makes of it.

    keeper    ssh host 'd=$(mktemp -d); echo $d; cat; rm -rf $d'     held open for as long as the way is
    put       ssh host 'python3 -c DIGESTS'; a tar of what differs through ssh; again until nothing does
    run       ssh host 'cd d; python3 run_bundle.py --watch'    ends there when the connection does
    get       ssh host 'cat d/results.json'
    clean     the keeper's input ends, and it removes its folder; if it was lost, ssh host 'rm -rf d'

Python is there anyhow, and unpacks the tar and hashes files; neither scp nor sftp need be. The folder goes even when
this process is killed: its end of the keeper closes, and the device does the rest.
"""

from __future__ import annotations

import io
import json
import re
import selectors
import shlex
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.devices.ways.way import Limits, Options, Process, Ran, WayKind
from toolchain.errors import DeviceError, OptionError

_LOST = 255
"""What ssh leaves with where it, not the command, failed."""

_KEEPER = (
    'd=$(mktemp -d "${TMPDIR:-/tmp}/toolchain.XXXXXXXX") || exit 1; '
    'trap "" HUP PIPE; echo "$d"; cat >/dev/null; rm -rf "$d"'
)
_LARGEST_RESULT = 2**27
_FOLDER = re.compile(r"/[\w./-]+/toolchain\.\w{8}")

_DIGESTS = """
import hashlib, json, os, sys
found = {}
for name in json.load(sys.stdin):
    if os.path.isfile(name):
        with open(name, "rb") as stream:
            found[name] = hashlib.sha256(stream.read()).hexdigest()
print(json.dumps(found))
"""

_UNPACK = """
import sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for member in archive:
        archive.extract(member)
"""


@dataclass
class Ssh:
    """A board, reached: `folder` is there, `keeper` holds it."""

    host: str
    arguments: tuple[str, ...]
    python: str
    limits: Limits
    folder: str = ""
    keeper: Process | None = field(default=None, repr=False)

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
        way = cls(host, tuple(given), options.python or "python3", limits)
        try:
            way._keep()
        except BaseException:
            way.clean()
            raise
        return way

    def put(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Send what is not there as it should be, as often as `limits.tries`."""
        lost: DeviceError | None = None
        for _ in range(self.limits.tries):
            try:
                left = self._differing(digests)
                if not left:
                    return
                self._send(folder, left)
            except DeviceError as error:
                lost = error
        left = self._differing(digests)
        if left:
            why = "" if lost is None else f": {lost.what}"
            raise DeviceError(
                f"{len(left)} of {len(digests)} files did not arrive in {self.limits.tries} tries{why}",
                where=self.host,
                hint="see that the device has room, and that the connection holds",
            )

    def run(self, arguments: Sequence[str], *, seconds: float) -> Ran:
        process = Process.start(self._python(*arguments), keep_input=True)
        return self._reached(process.wait(seconds, f"the bundle on {self.host}"))

    def get(self, name: str, to: Path) -> None:
        """Fetch a file, again where the connection broke; what it is must be checked by its content."""
        lost: DeviceError | None = None
        for _ in range(self.limits.tries):
            try:
                _write_whole(to, self._read(name))
                return
            except DeviceError as error:
                lost = error
        assert lost is not None
        raise lost

    def clean(self) -> None:
        keeper, self.keeper = self.keeper, None
        if keeper is not None:
            held = keeper.popen.stdin
            try:
                if held is not None:
                    held.close()
                    keeper.popen.stdin = None
                removed = keeper.popen.wait(self.limits.connect) == 0
            except Exception:  # cleaning goes on whatever the keeper died of
                removed = False
            keeper.end()
            if removed:
                self.folder = ""
        if self.folder:
            self._remove()

    def _keep(self) -> None:
        self.keeper = Process.start(self._ssh(_KEEPER), keep_input=True)
        line = _first_line(self.keeper, 2 * self.limits.connect)
        if not _FOLDER.fullmatch(line):
            keeper, self.keeper = self.keeper, None
            raise DeviceError(
                f"{self.host} cannot be reached: {line or keeper.last_words() or 'no answer'}",
                where=self.host,
                hint=f"ssh {self.host} must log in without asking: a key, a known host",
            )
        self.folder = line

    def _remove(self) -> None:
        for _ in range(self.limits.tries):
            try:
                process = Process.start(self._ssh(f"rm -rf {shlex.quote(self.folder)}"))
                if process.wait(2 * self.limits.connect, "cleaning").code == 0:
                    self.folder = ""
                    return
            except DeviceError:
                continue

    def _differing(self, digests: Mapping[str, str]) -> list[str]:
        process = Process.start(self._python("-c", _DIGESTS), keep_input=True)
        asked = json.dumps(sorted(digests)).encode()
        ran = self._reached(process.wait(self.limits.step, f"checking files on {self.host}", content=asked))
        if ran.code:
            why = ran.last_line or f"exit code {ran.code}"
            raise DeviceError(f"{self.python} does not run there: {why}", where=self.host, hint="--python names it")
        try:
            found = json.loads(ran.out)
            return [name for name, digest in digests.items() if found.get(name) != digest]
        except (ValueError, AttributeError) as error:
            raise DeviceError(f"an answer that is none: {ran.out[:100]!r}", where=self.host) from error

    def _send(self, folder: Path, names: Sequence[str]) -> None:
        content = _archive(folder, names)
        process = Process.start(self._python("-c", _UNPACK), keep_input=True)
        seconds = self.limits.transfer(len(content))
        ran = self._reached(process.wait(seconds, f"sending to {self.host}", content=content))
        if ran.code:
            raise DeviceError(f"sending fails: {ran.last_line}", where=self.host)

    def _read(self, name: str) -> bytes:
        process = Process.start(self._ssh(f"exec cat {shlex.quote(f'{self.folder}/{name}')}"))
        content, ran = process.wait_bytes(self.limits.transfer(_LARGEST_RESULT), f"fetching {name}")
        if self._reached(ran).code:
            raise DeviceError(f"{name} cannot be fetched: {ran.last_line}", where=self.host)
        return content

    def _reached(self, ran: Ran) -> Ran:
        if ran.code == _LOST:
            why = f": {ran.last_line}" if ran.last_line else ""
            raise DeviceError(f"the connection was lost{why}", where=self.host, hint="run it again")
        return ran

    def _ssh(self, command: str) -> list[str]:
        return ["ssh", "-T", *self.arguments, "--", self.host, f"exec sh -c {shlex.quote(command)}"]

    def _python(self, *arguments: str) -> list[str]:
        # the shell stays, to tell of a signal: ssh would leave with the code of a lost connection
        return self._ssh(f"cd {shlex.quote(self.folder)} && {shlex.join([self.python, *arguments])}; exit $?")


def _missing() -> str | None:
    return None if shutil.which("ssh") else "ssh: apt-get install openssh-client"


SSH = WayKind("ssh", "any Linux board with Python and a runtime, by the system's ssh (--host)", _missing, Ssh.open)


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


def _write_whole(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DeviceError(f"results cannot be kept: {error.strerror}", where=str(path)) from error


def _first_line(process: Process, seconds: float) -> str:
    """The first line that it prints; empty where it ends or `seconds` pass before."""
    stream, content, until = process.popen.stdout, b"", time.monotonic() + seconds
    assert stream is not None
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while b"\n" not in content and selector.select(max(0.0, until - time.monotonic())):
            piece = stream.read1(4096)  # type: ignore[attr-defined]
            if not piece:
                break
            content += piece
    return content.decode(errors="replace").partition("\n")[0].strip()
