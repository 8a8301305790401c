"""Files and folders that are whole or absent, whenever the process dies: written under a temporary name, then renamed.

Temporary names carry the process's number, `.PID-xxxx.unfinished`, so that what a dead process left behind can be
told from what a living one is writing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".unfinished"


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=_SUFFIX, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; it takes `path`'s place when the block ends well. Raises OSError, also
    where `path` is there and not empty."""
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(), suffix=_SUFFIX, dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def scratch_folder(parent: Path) -> Path:
    """An empty folder in `parent` for the caller to remove; `remove_leftovers` does where that dies. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=_prefix(), suffix=_SUFFIX, dir=parent))


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes left unfinished in `folder`."""
    for path in folder.glob(f".*{_SUFFIX}"):
        owner = path.name.removeprefix(".").partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _prefix() -> str:
    return f".{os.getpid()}-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
