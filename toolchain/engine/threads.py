"""One thread where results end up in files: sums in another order differ in the last bit, so that with as many
threads as
there are cores the same inputs would give other bytes on another machine. On a busy machine it is faster as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
