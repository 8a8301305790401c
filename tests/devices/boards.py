"""A board that the ssh way can reach: an sshd on the loopback, for whoever runs the tests, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain.devices.ways import Limits, Options

QUICK = Limits(connect=5, step=20, run=60, tries=2)


@dataclass(frozen=True)
class Board:
    """`temporary` is what mktemp uses there, `daemon` the process that listens."""

    port: int
    folder: Path
    temporary: Path
    daemon: int

    def options(self, limits: Limits = QUICK, python: str = sys.executable, key: str = "user_key") -> Options:
        given = ("-F", "none", "-i", str(self.folder / key), "-o", "IdentitiesOnly=yes")
        known = ("-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes")
        host = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        return Options(host=host, python=python, ssh=(*given, *known), limits=limits)

    def left(self, seconds: float = 5.0) -> list[str]:
        """What is still there, as soon as nothing is, or after so long."""
        until = time.monotonic() + seconds
        while (names := sorted(path.name for path in self.temporary.iterdir())) and time.monotonic() < until:
            time.sleep(0.02)
        return names

    def sessions(self) -> list[int]:
        """The processes of sshd that hold connections, all behind the one that listens."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, fields = stat.read_text().partition("(")[2].rsplit(")", 1)
                parents[int(stat.parent.name)] = (name, int(fields.split()[1]))
        found, kin = [], {self.daemon}
        while kin:
            kin = {pid for pid, (name, parent) in parents.items() if parent in kin and name.startswith("sshd")}
            found += sorted(kin)
        return found

    def python(self, name: str, script: str) -> str:
        """An interpreter there that does something else first, in sh; `$REAL` is the true one."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nREAL="{sys.executable}"\n{script}\nexec "$REAL" "$@"\n')
        path.chmod(0o755)
        return str(path)


@contextmanager
def running_board(folder: Path) -> Iterator[Board]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here: apt-get install openssh-server")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates privileges
    for key in ("host_key", "user_key", "other_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    temporary = folder / "tmp"
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPasswordAuthentication no\nUsePAM no\n"
        f"KbdInteractiveAuthentication no\nMaxStartups 100\nSetEnv TMPDIR={temporary}\n"
    )
    log = folder / "log"
    command = [sshd, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as daemon:
        try:
            _wait_for(port, daemon, log)
            yield Board(port, folder, temporary, daemon.pid)
        finally:
            daemon.terminate()


def _wait_for(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        if daemon.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip()[-200:]}")
        time.sleep(0.02)
    pytest.skip("sshd does not listen")
