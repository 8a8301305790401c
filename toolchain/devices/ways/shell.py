"""A device with a POSIX shell and Python, reached through a client program that runs one command there: ssh, adb.

    keeper    d=$(mktemp -d); echo $d; cat; rm -rf $d     held open for as long as the way is
    put       python3 -c DIGESTS there; what differs is sent; again until nothing does
    run       cd d; python3 run_bundle.py --watch    ends there when the connection does
    clean     the keeper's input ends, and it removes its folder; if it was lost, rm -rf d

The folder goes even when this process is killed: its end of the keeper closes, and the device does the rest.
"""

from __future__ import annotations

import json
import re
import selectors
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.devices.ways.way import Limits, Process, Ran
from toolchain.errors import DeviceError

LARGEST_RESULT = 2**27
_FOLDER = re.compile(r"/[\w./-]+/toolchain\.\w{8}")

_KEEPER = (
    'd=$(mktemp -d "${{TMPDIR:-{temporary}}}/toolchain.XXXXXXXX") || exit 1; '
    'trap "" HUP PIPE; echo "$d"; cat >/dev/null; rm -rf "$d"'
)

_DIGESTS = """
import hashlib, json, os, sys
found = {}
for name in json.load(sys.stdin):
    if os.path.isfile(name):
        with open(name, "rb") as stream:
            found[name] = hashlib.sha256(stream.read()).hexdigest()
print(json.dumps(found))
"""


@dataclass
class ShellWay(ABC):
    """A device, reached: `host` is what errors call it, `folder` is there, `keeper` holds it."""

    host: str
    python: str
    limits: Limits
    folder: str = field(default="", kw_only=True)
    keeper: Process | None = field(default=None, repr=False, kw_only=True)

    @abstractmethod
    def command(self, line: str) -> list[str]:
        """The command of this machine that runs a line of shell there, its standard input and exit code passed on."""

    @abstractmethod
    def send(self, folder: Path, names: Sequence[str]) -> None:
        """Send files once; whether they arrived is checked by who asks. Raises DeviceError."""

    @abstractmethod
    def fetch(self, name: str, to: Path) -> None:
        """Fetch a file once. Raises DeviceError."""

    @abstractmethod
    def answer(self, ran: Ran) -> Ran | None:
        """How what was run there ended, by how the client did; None where the connection ended before."""

    def put(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Send what is not there as it should be, as often as `limits.tries`."""
        lost: DeviceError | None = None
        for _ in range(self.limits.tries):
            try:
                left = self.differing(digests)
                if not left:
                    return
                self.send(folder, left)
            except DeviceError as error:
                lost = error
        left = self.differing(digests)
        if left:
            why = "" if lost is None else f": {lost.what}"
            raise DeviceError(
                f"{len(left)} of {len(digests)} files did not arrive in {self.limits.tries} tries{why}",
                where=self.host,
                hint="see that the device has room, and that the connection holds",
            )

    def run(self, arguments: Sequence[str], *, seconds: float) -> Ran:
        process = Process.start(self._python(*arguments), keep_input=True)
        return self.reached(process.wait(seconds, f"the bundle on {self.host}"))

    def get(self, name: str, to: Path) -> None:
        """Fetch a file, again where the connection broke; what it is must be checked by its content."""
        lost: DeviceError | None = None
        for _ in range(self.limits.tries):
            try:
                return self.fetch(name, to)
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
                ran = keeper.wait(self.limits.connect, "cleaning")
                removed = self.reached(ran).code == 0
            except Exception:  # cleaning goes on whatever the keeper died of
                removed = False
            keeper.end()
            if removed:
                self.folder = ""
        if self.folder:
            self._remove()

    def keep(self, temporary: str, hint: str) -> None:
        """Make a folder there that goes with this process. Raises DeviceError with `hint` where it cannot be."""
        self.keeper = Process.start(self.command(_KEEPER.format(temporary=temporary)), keep_input=True)
        line = _first_line(self.keeper, 2 * self.limits.connect)
        if not _FOLDER.fullmatch(line):
            keeper, self.keeper = self.keeper, None
            ran = Ran(0, "", keeper.errors())
            why = line or (self.answer(ran) or ran).last_line or "no answer"
            raise DeviceError(f"{self.host} cannot be reached: {why}", where=self.host, hint=hint)
        self.folder = line

    def _remove(self) -> None:
        for _ in range(self.limits.tries):
            try:
                process = Process.start(self.command(f"rm -rf {shlex.quote(self.folder)}"))
                if process.wait(2 * self.limits.connect, "cleaning").code == 0:
                    self.folder = ""
                    return
            except DeviceError:
                continue

    def differing(self, digests: Mapping[str, str]) -> list[str]:
        """Files that are not there as they should be. Raises DeviceError, also where no Python runs there."""
        process = Process.start(self._python("-c", _DIGESTS), keep_input=True)
        asked = json.dumps(sorted(digests)).encode()
        ran = self.reached(process.wait(self.limits.step, f"checking files on {self.host}", content=asked))
        if ran.code:
            why = ran.last_line or f"exit code {ran.code}"
            raise DeviceError(f"{self.python} does not run there: {why}", where=self.host, hint="--python names it")
        try:
            found = json.loads(ran.out)
            return [name for name, digest in digests.items() if found.get(name) != digest]
        except (ValueError, AttributeError) as error:
            raise DeviceError(f"an answer that is none: {ran.out[:100]!r}", where=self.host) from error

    def reached(self, ran: Ran) -> Ran:
        """How a command ended there. Raises DeviceError where the connection did."""
        answer = self.answer(ran)
        if answer is None:
            why = f": {ran.last_line}" if ran.last_line else ""
            raise DeviceError(f"the connection was lost{why}", where=self.host, hint="run it again")
        return answer

    def in_folder(self, *words: str) -> list[str]:
        """The command that runs `words` in the folder there."""
        # the shell stays, to tell of a signal: the client would leave with the code of a lost connection
        return self.command(f"cd {shlex.quote(self.folder)} && {shlex.join(words)}; exit $?")

    def _python(self, *arguments: str) -> list[str]:
        return self.in_folder(self.python, *arguments)


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
