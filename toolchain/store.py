"""Finished stages by content address: a stage that has run for the same input and options is loaded, not run again.

An entry is written under a temporary name and renamed, so it is whole or absent, whenever the process dies. What a dead
process left behind is removed when a store is opened. A damaged entry is warned about and made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from toolchain.atomic import remove_leftovers, unfinished_folder
from toolchain.errors import OptionError
from toolchain.stages.states import Model, load


class Store:
    """A folder of finished stages. Raises OptionError where it cannot be written."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.root)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def load(self, key: str) -> Model | None:
        """The entry under `key`, or None where there is none (or a damaged one, after a warning)."""
        folder = self.root / key
        if not folder.is_dir():
            return None
        try:
            model = load(folder)
            if model.digest == (folder / "digest").read_text():
                return model
            reason = "its content has changed"
        except (OptionError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
        warnings.warn(f"stored stage {key[:12]} is damaged ({reason}) and is made again", stacklevel=2)
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def checkpoints(self, key: str) -> Path:
        """Where a stage may keep what it has reached on its way to `key`; it goes when the entry is saved."""
        return self.root / "checkpoints" / key

    def save(self, key: str, model: Model) -> None:
        """Write `model` under `key`; an entry already there stays."""
        self._save(key, model)
        shutil.rmtree(self.checkpoints(key), ignore_errors=True)

    def _save(self, key: str, model: Model) -> None:
        if (self.root / key).is_dir():
            return
        try:
            with unfinished_folder(self.root / key) as temporary:
                model.save(temporary)
                (temporary / "digest").write_text(model.digest)
        except OSError as error:
            # another process may have finished the same stage first
            if not (self.root / key).is_dir():
                raise _unwritable(self.root, error) from error


def entry_key(stage: str, options: Mapping[str, Any], input_digest: str) -> str:
    """Content address of a stage's result: what it was made from, how, and by which code."""
    text = json.dumps([stage, options, input_digest, code_digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_digest() -> str:
    """sha256 over the toolchain's own source and the versions of the libraries that compute."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    for name in ("torch", "numpy", "onnx", "flatbuffers"):
        digest.update(metadata.version(name).encode())
    return digest.hexdigest()


def _unwritable(folder: Path, error: OSError) -> OptionError:
    return OptionError(
        f"cannot write: {error.strerror or error}", where=str(folder), hint="free some space or choose another folder"
    )
