"""The process that a lone file runs in: `python -m toolchain.comparison.child`.

It is told format, content and the data beside on standard input, answers with the runtime's name, and then answers
every sample with its outputs. A message is 8 bytes of length and a payload (`encode_arrays`, JSON for all else). What
native code prints goes to standard error, so that nothing comes between the messages.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeAlias

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError

Run: TypeAlias = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]

_LENGTH = struct.Struct("<Q")


def write_message(stream: BinaryIO, payload: bytes) -> None:
    """Raises OSError where nobody reads."""
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def read_message(stream: BinaryIO) -> bytes:
    """Raises EOFError where the other process has ended."""
    header = stream.read(_LENGTH.size)
    if len(header) != _LENGTH.size:
        raise EOFError
    payload = stream.read(size := _LENGTH.unpack(header)[0])
    if len(payload) != size:
        raise EOFError
    return payload


def encode_arrays(arrays: Sequence[np.ndarray]) -> bytes:
    """Arrays as an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue()


def decode_arrays(payload: bytes) -> list[np.ndarray]:
    """What `encode_arrays` was given."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        return [archive[f"arr_{place}"] for place in range(len(archive.files))]


def main() -> None:
    """Serve until standard input ends."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    try:
        name, run = _load(read_message(given).decode(), read_message(given), read_message(given))
        write_message(answers, name.encode())
        while True:
            write_message(answers, encode_arrays(run(decode_arrays(read_message(given)))))
    except EOFError:
        return
    except ToolchainError as error:
        _tell(answers, error)
    except MemoryError:
        _tell(answers, UnsupportedError("the file asks for more memory than there is"))


def _tell(answers: BinaryIO, error: ToolchainError) -> None:
    plain = {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
    write_message(answers, b"!" + json.dumps(plain).encode())


def _load(kind: str, content: bytes, data: bytes) -> tuple[str, Run]:
    if kind == "onnx":
        return "onnxruntime", _onnx(content, data or None)
    from toolchain.formats.tflite import TfliteRunner

    runner = TfliteRunner(content)
    return runner.name, runner.run


def _onnx(content: bytes, data: bytes | None) -> Run:
    from toolchain.formats.onnx.reader import parse_onnx
    from toolchain.formats.onnx.session import load_session, run_session, takes_unsigned

    proto = parse_onnx(content, data)
    constants = {tensor.name for tensor in proto.graph.initializer}
    # files of the first versions list their constants among the inputs
    inputs = [value.name for value in proto.graph.input if value.name not in constants]
    outputs = [value.name for value in proto.graph.output]
    session = load_session(content, 1, unsigned=takes_unsigned(proto), data=data)

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return run_session(session, outputs, dict(zip(inputs, arrays, strict=True)))

    return run


def _limit_memory() -> None:
    """A damaged shape asks for any amount: let it fail here, and not by taking the machine's memory. No core files."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (physical, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
