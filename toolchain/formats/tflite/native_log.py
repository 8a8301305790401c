"""Keep a native library's notices from standard error; its warnings and errors still arrive there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_STDERR: Final = 2


@contextmanager
def without_notices() -> Iterator[None]:
    """Drop lines that begin with `INFO:` from what native code writes to standard error inside the block."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as written:
        _flush()
        os.dup2(written.fileno(), _STDERR)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, _STDERR)
            written.seek(0)
            lines = [line for line in written if not line.startswith(b"INFO:")]
            os.write(kept, b"".join(lines))
            os.close(kept)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
