"""Where a training run keeps what it has reached: one safetensors file with JSON in its header, whole or absent.

The file says what it belongs to. One that is damaged, or belongs to something else, is passed over, and training starts
anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolchain.atomic import remove_leftovers, unfinished_file
from toolchain.errors import OptionError

State: TypeAlias = tuple[dict[str, Tensor], dict[str, Any]]

EVERY_S = 20.0
"""Seconds between checkpoints. How often they are written changes nothing of what comes out."""

_FILE = "training.safetensors"


@dataclass
class Checkpoint:
    """A file in `folder`; `belongs_to` is the digest of everything that determines the run."""

    folder: Path
    belongs_to: str
    _written: float = field(default_factory=time.monotonic, repr=False)

    def save_soon(self, state: Callable[[], State]) -> None:
        """Write `state()` where it is time to. Raises OptionError where the folder cannot be written."""
        if time.monotonic() - self._written >= EVERY_S:
            self.save(state())
            self._written = time.monotonic()

    def save(self, state: State) -> None:
        """Write now. Raises OptionError where the folder cannot be written."""
        tensors, plain = state
        metadata = {"state": json.dumps(plain), "belongs_to": self.belongs_to}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            with unfinished_file(self.folder / _FILE) as temporary:
                save_file(
                    {name: t.detach().cpu().contiguous() for name, t in _apart(tensors).items()}, temporary, metadata
                )
        except (OSError, SafetensorError) as error:
            raise OptionError(
                f"cannot write a checkpoint: {error}", where=str(self.folder), hint="free some space"
            ) from error

    def load(self) -> State | None:
        """What was written last, or None where there is nothing of this run."""
        try:
            with safe_open(self.folder / _FILE, "pt") as found:
                metadata = found.metadata() or {}
                if metadata.get("belongs_to") != self.belongs_to:
                    return None
                return {name: found.get_tensor(name) for name in found.keys()}, json.loads(metadata["state"])  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return None


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors takes no two tensors of one memory."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.data_ptr() if tensor.numel() else -1
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart
