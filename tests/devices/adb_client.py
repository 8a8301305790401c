"""Stands in for the adb client where that is not installed: devices, features, shell -T, push and pull.

python3 adb_client.py [-s SERIAL] devices | features | shell -T COMMAND | push FILE... FOLDER/ | pull FILE TO
"""

import os
import socket
import struct
import sys
import threading
from pathlib import Path

PACKET = struct.Struct("<BI")


def exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = connection.recv(size - len(content))
        if not piece:
            raise EOFError
        content += piece
    return content


def asked(connection: socket.socket, request: str) -> None:
    connection.sendall(f"{len(request):04x}{request}".encode())
    if exactly(connection, 4) != b"OKAY":
        sys.exit(f"error: {exactly(connection, int(exactly(connection, 4), 16)).decode()}")


def text(connection: socket.socket, request: str) -> str:
    asked(connection, request)
    return exactly(connection, int(exactly(connection, 4), 16)).decode()


def shell(connection: socket.socket, command: str) -> int:
    asked(connection, f"shell,v2,raw:{command}")

    def pass_on() -> None:
        while piece := os.read(0, 4096):
            connection.sendall(PACKET.pack(0, len(piece)) + piece)
        connection.sendall(PACKET.pack(4, 0))

    threading.Thread(target=pass_on, daemon=True).start()
    while True:
        try:
            kind, size = PACKET.unpack(exactly(connection, PACKET.size))
            content = exactly(connection, size)
        except (EOFError, OSError):
            return 255
        if kind == 3:
            return content[0]
        os.write(kind, content)


def push(connection: socket.socket, paths: list[str], to: str) -> int:
    asked(connection, "sync:")
    for path in paths:
        name = f"{to}{Path(path).name},33188".encode()
        connection.sendall(b"SEND" + struct.pack("<I", len(name)) + name)
        with Path(path).open("rb") as stream:
            while piece := stream.read(2**16):
                connection.sendall(b"DATA" + struct.pack("<I", len(piece)) + piece)
        connection.sendall(b"DONE" + struct.pack("<I", 0))
        word, size = struct.unpack("<4sI", exactly(connection, 8))
        if word != b"OKAY":
            sys.exit(f"adb: error: failed to copy '{path}': remote {exactly(connection, size).decode()}")
    return 0


def pull(connection: socket.socket, path: str, to: str) -> int:
    asked(connection, "sync:")
    connection.sendall(b"RECV" + struct.pack("<I", len(path)) + path.encode())
    with Path(to).open("wb") as stream:
        while (header := struct.unpack("<4sI", exactly(connection, 8)))[0] == b"DATA":
            stream.write(exactly(connection, header[1]))
    return 0


def main(words: list[str]) -> int:
    serial = words[1] if words[:1] == ["-s"] else ""
    command, *rest = words[2:] if serial else words
    with socket.create_connection(("127.0.0.1", int(os.environ["ANDROID_ADB_SERVER_PORT"]))) as connection:
        if command == "devices":
            print("List of devices attached\n" + text(connection, "host:devices"))
            return 0
        if command == "features":
            print(text(connection, f"host-serial:{serial}:features").replace(",", "\n"))
            return 0
        asked(connection, f"host:transport:{serial}")
        if command == "shell":
            return shell(connection, rest[1])
        return push(connection, rest[:-1], rest[-1]) if command == "push" else pull(connection, *rest)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except (EOFError, OSError) as error:
        sys.exit(f"adb: error: {error or 'closed'}")
    sys.stdout.flush()
    os._exit(code)
