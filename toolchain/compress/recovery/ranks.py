"""One process, or one of several that share each batch and take the mean of their gradients, through `accelerate`.

Several are there where a launcher says so in the environment (`WORLD_SIZE`): torchrun, `accelerate launch`, or the
recover stage itself. A library that is not there is only asked for then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.errors import OptionError
from toolchain.samples import Batch

T = TypeVar("T")


def launched_processes() -> int:
    """How many processes the environment says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Alone:
    """All there is."""

    is_first = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """What to call and what to step in place of the two."""
        return module, optimizer

    def share(self, batch: Batch) -> Batch:
        """This process's part of a batch."""
        return batch

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def mean(self, value: float) -> float:
        """Over all processes."""
        return value

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to all: they must not come to different decisions."""
        return make()


class Ranks(Alone):
    """One of several processes. Raises OptionError where `accelerate` is not installed."""

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            raise OptionError(
                "several processes train through accelerate, which is not installed",
                hint="pip install 'edge-toolchain[accelerate]', or set processes = 1",
            ) from error
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[unused])
        super().__init__(self._accelerator.device)
        self.is_first = self._accelerator.is_main_process

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        return self._accelerator.prepare(module, optimizer)  # type: ignore[no-any-return]

    def share(self, batch: Batch) -> Batch:
        count, rank, size = len(batch), self._accelerator.process_index, self._accelerator.num_processes
        # as many for each, so that the mean of gradients is that of the batch; of too few, some are taken twice
        rows = np.arange(rank, -(-count // size) * size, size) % count
        taken = {"inputs": tuple(array[rows] for array in batch.inputs)}
        numbers = getattr(batch, "numbers", None)
        taken |= {} if numbers is None else {"numbers": numbers[rows]}
        return replace(batch, **taken, labels=None if batch.labels is None else batch.labels[rows])

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def mean(self, value: float) -> float:
        return float(self._accelerator.reduce(torch.tensor(value, device=self.device), reduction="mean"))

    def from_first(self, make: Callable[[], T]) -> T:
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [make() if self.is_first else None]
        broadcast_object_list(told)
        return told[0]  # type: ignore[no-any-return]


def find_ranks(device: torch.device) -> Alone:
    """As the environment says."""
    return Ranks(device) if launched_processes() > 1 else Alone(device)
