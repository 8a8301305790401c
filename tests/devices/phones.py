"""Phones that the adb way can reach: an adb server on the loopback that speaks the host protocol, each phone a folder.

    host:version, host:devices, host-serial:SERIAL:features, host:transport:SERIAL, host:tport:serial:SERIAL
    shell,v2,raw:COMMAND    packets of id (0 input, 1 output, 2 error, 3 exit, 4 end of input), length, content
    sync:                   STAT, SEND with DATA and DONE, RECV, QUIT

As adbd does, it sends SIGHUP and closes the input of a command whose connection has gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import NoReturn

INPUT, OUTPUT, ERROR, EXIT, END_OF_INPUT = range(5)
PACKET = struct.Struct("<BI")


class Gone(Exception):
    """The other end has closed."""


@dataclass
class Phone:
    """`temporary` is what mktemp uses there, `path` where commands are; `sent` counts bytes that came, `room` those
    there is room for; `during` is called with every piece that comes, and may wait, or raise Gone."""

    temporary: Path
    state: str = "device"
    features: str = "shell_v2,cmd"
    path: str = os.environ["PATH"]
    sent: int = 0
    room: float = float("inf")
    during: Callable[[Phone], None] = lambda _: None


@dataclass
class Server:
    """Phones by their serial numbers."""

    port: int
    phones: dict[str, Phone] = field(default_factory=dict)
    connections: set[socket.socket] = field(default_factory=set)

    def unplug(self) -> None:
        """All phones are gone, and what went on with them."""
        self.phones.clear()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    """One socket: requests of four hex digits and as many bytes, until a service takes it over."""

    server: _Listener

    def handle(self) -> None:
        self.server.known.connections.add(self.request)
        with contextlib.suppress(Gone, OSError):
            phone: Phone | None = None
            while True:
                phone = self._answer(self._request(), phone)

    def finish(self) -> None:
        self.server.known.connections.discard(self.request)

    def _request(self) -> str:
        return _exactly(self.request, int(_exactly(self.request, 4), 16)).decode()

    def _answer(self, request: str, phone: Phone | None) -> Phone | None:
        phones = self.server.known.phones
        if request == "host:version":
            self._okay("0029")
        elif request in ("host:devices", "host:devices-l"):
            self._okay("".join(f"{serial}\t{phone.state}\n" for serial, phone in phones.items()))
        elif request.startswith("host-serial:") and request.endswith(":features"):
            self._okay(self._phone(request.split(":", 1)[1].removesuffix(":features")).features)
        elif request.startswith(("host:transport:", "host:tport:serial:")):
            found = self._phone(request.removeprefix("host:transport:").removeprefix("host:tport:serial:"))
            self.request.sendall(b"OKAY" + (struct.pack("<Q", 1) if "tport" in request else b""))
            return found
        elif phone is not None and request.startswith("shell,v2"):
            self.request.sendall(b"OKAY")
            _run(self.request, phone, request.split(":", 1)[1])
            raise Gone
        elif phone is not None and request == "sync:":
            self.request.sendall(b"OKAY")
            _sync(self.request, phone)
        else:
            self._fail(f"no such request: {request}")
        return phone

    def _phone(self, serial: str) -> Phone:
        phone = self.server.known.phones.get(serial)
        if phone is None or phone.state != "device":
            self._fail(f"device '{serial}' not found" if phone is None else f"device {phone.state}")
        assert phone is not None
        return phone

    def _okay(self, text: str) -> NoReturn:
        self.request.sendall(b"OKAY" + f"{len(text):04x}{text}".encode())
        raise Gone

    def _fail(self, text: str) -> NoReturn:
        self.request.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())
        raise Gone


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    known: Server


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = connection.recv(min(size - len(content), 2**16))
        if not piece:
            raise Gone
        content += piece
    return content


def _run(connection: socket.socket, phone: Phone, command: str) -> None:
    """A command of the shell, its streams in packets."""
    env = {**os.environ, "TMPDIR": str(phone.temporary), "PATH": phone.path}
    child = Popen(["/bin/sh", "-c", command], stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env, start_new_session=True)
    sending = threading.Lock()

    def pass_on(kind: int, stream) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := stream.read1(4096):
                with sending:
                    connection.sendall(PACKET.pack(kind, len(piece)) + piece)

    def take_in() -> None:
        try:
            while True:
                kind, size = PACKET.unpack(_exactly(connection, PACKET.size))
                content = _exactly(connection, size)
                with contextlib.suppress(OSError, ValueError):
                    if kind == INPUT:
                        child.stdin.write(content)
                        child.stdin.flush()
                    elif kind == END_OF_INPUT:
                        child.stdin.close()
        except (Gone, OSError):
            with contextlib.suppress(ProcessLookupError, OSError):
                child.send_signal(signal.SIGHUP)
                child.stdin.close()

    streams = ((OUTPUT, child.stdout), (ERROR, child.stderr))
    readers = [threading.Thread(target=pass_on, args=given, daemon=True) for given in streams]
    threading.Thread(target=take_in, daemon=True).start()
    for reader in readers:
        reader.start()
    code = child.wait()
    for reader in readers:
        reader.join(5)
    with contextlib.suppress(OSError):
        # a signal is told as shells do
        connection.sendall(PACKET.pack(EXIT, 1) + bytes([code if code >= 0 else 128 - code]))


def _sync(connection: socket.socket, phone: Phone) -> None:
    while True:
        word, size = _exactly(connection, 4), struct.unpack("<I", _exactly(connection, 4))[0]
        if word == b"QUIT":
            raise Gone
        path = _exactly(connection, size).decode()
        if word == b"STAT":
            found = Path(path).stat() if Path(path).exists() else None
            facts = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
            connection.sendall(b"STAT" + struct.pack("<III", *facts))
        elif word == b"SEND":
            _receive(connection, phone, Path(path.rpartition(",")[0]))
        elif word == b"RECV":
            content = Path(path).read_bytes()
            for at in range(0, len(content), 2**16):
                piece = content[at : at + 2**16]
                connection.sendall(b"DATA" + struct.pack("<I", len(piece)) + piece)
            connection.sendall(b"DONE" + struct.pack("<I", 0))


def _receive(connection: socket.socket, phone: Phone, path: Path) -> None:
    failed = ""
    with path.open("wb", buffering=0) as stream:
        while True:
            word, size = _exactly(connection, 4), struct.unpack("<I", _exactly(connection, 4))[0]
            if word == b"DONE":
                break
            content = _exactly(connection, size)
            phone.sent += size
            phone.during(phone)
            if phone.sent <= phone.room:
                stream.write(content)
            else:
                failed = "write failed: No space left on device"
    if failed:
        connection.sendall(b"FAIL" + struct.pack("<I", len(failed)) + failed.encode())
    else:
        connection.sendall(b"OKAY" + struct.pack("<I", 0))


@contextmanager
def running_server() -> Iterator[Server]:
    """A server without phones yet."""
    with _Listener(("127.0.0.1", 0), _Connection) as listener:
        listener.known = Server(listener.server_address[1])
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield listener.known
        finally:
            listener.shutdown()
