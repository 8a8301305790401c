"""What a way to a device is: put a folder there, run a file of it, get a file back, leave nothing behind.

A way is opened, used and cleaned, whatever happens between; it holds what it made on the device. Names of files are
relative to the folder that was put. Whatever goes wrong is a DeviceError: what, which device, what to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from toolchain.errors import DeviceError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long things may take, in seconds, and how often a transfer is tried. `bytes_per_second` is the slowest
    transfer that is still waited for, after `stall`."""

    connect: float = 15.0
    step: float = 60.0
    stall: float = 60.0
    run: float = 1800.0
    install: float = 900.0
    bytes_per_second: float = 100_000.0
    tries: int = 3

    def transfer(self, size: int) -> float:
        """The longest that sending `size` bytes may take."""
        return self.stall + size / self.bytes_per_second


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user says of the device. `host` is [user@]name[:port]; `python` what runs there; `ssh` further arguments
    of ssh; `requirements` what the fresh venv of this machine gets; `cpu` what is emulated. `tell` is given
    lines of progress."""

    host: str | None = None
    python: str | None = None
    ssh: tuple[str, ...] = ()
    cache: Path | None = None
    requirements: tuple[str, ...] = ()
    cpu: str | None = None
    limits: Limits = field(default_factory=Limits)
    tell: Callable[[str], None] = field(default=lambda _: None, compare=False)


@dataclass(frozen=True)
class Ran:
    """How a process ended: its exit code (negative: the signal it died of) and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last thing it said, which is the error."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class Way(Protocol):
    """One device, reached. `clean` may be called at any time, again too, and never raises."""

    def put(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Send the files named in `digests` (their sha256), and see that they arrived. Raises DeviceError."""
        ...

    def run(self, arguments: Sequence[str], *, seconds: float) -> Ran:
        """Run Python there with `arguments`, in the folder that was put, with a standard input that ends when this
        process does. Raises DeviceError where it does not end in time or the device is lost."""
        ...

    def get(self, name: str, to: Path) -> None:
        """Fetch a file that the run wrote. Raises DeviceError."""
        ...

    def clean(self) -> None:
        """Remove everything that was put or made there."""
        ...


@dataclass(frozen=True)
class WayKind:
    """An entry of the table: how a way is called and what it is. `missing` says in a line what must be installed before
    it can be used, None where nothing is; `open` reaches the device, raising DeviceError where it cannot, OptionError
    where the options say too little. `timed`: times and memory there are those of a device. `to_host`: it leads to the
    device that `Options.host` names."""

    name: str
    description: str
    missing: Callable[[], str | None] = field(repr=False)
    open: Callable[[Options], Way] = field(repr=False)
    timed: bool = True
    to_host: bool = False


@dataclass
class Process:
    """A process of this machine in a group of its own, so that what it started ends with it."""

    popen: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        keep_input: bool = False,
    ) -> Self:
        """Raises DeviceError where the program is not there. With `keep_input` its standard input stays open."""
        given = subprocess.PIPE if keep_input else subprocess.DEVNULL
        try:
            return cls(
                subprocess.Popen(
                    list(command),
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                )
            )
        except OSError as error:
            raise DeviceError(f"{command[0]} cannot be started: {error.strerror}") from error

    def wait(self, seconds: float, what: str, *, content: bytes | None = None) -> Ran:
        """Its end. Raises DeviceError, and ends it, where it takes longer."""
        return self.wait_bytes(seconds, what, content=content)[1]

    def wait_bytes(self, seconds: float, what: str, *, content: bytes | None = None) -> tuple[bytes, Ran]:
        """The same, and what it printed as bytes."""
        try:
            out, err = self._communicate(seconds, content)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"{what} took longer than {seconds:g} s", hint="is the device busy, or gone?") from error
        finally:
            self.end()
        return out, Ran(self.popen.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def _communicate(self, seconds: float, content: bytes | None) -> tuple[bytes, bytes]:
        if self.popen.stdin is None or content is not None:
            return self.popen.communicate(content, timeout=seconds)
        # its standard input must stay open until it ends, and `communicate` would close it
        held, self.popen.stdin = self.popen.stdin, None
        try:
            return self.popen.communicate(timeout=seconds)
        finally:
            with suppress(OSError):
                held.close()

    def errors(self) -> str:
        """End it; what it wrote to standard error."""
        self._kill()
        stream = self.popen.stderr
        said = stream.read() if stream is not None and not stream.closed else b""
        self.end()
        return said.decode(errors="replace")

    def end(self) -> None:
        """Kill what is left of it."""
        self._kill()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
