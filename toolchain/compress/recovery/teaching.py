"""What a teacher says of a batch.

Outputs of samples with numbers can be computed once and kept. That is done in one pass before training, always in the
same order: a result may hang on its batch in the last bit, and a run that goes on after it was killed must find the
same targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from toolchain.compress.recovery.batches import NumberedBatch
from toolchain.compress.recovery.objective import Objective, Targets
from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.graph import Graph, mixes_samples
from toolchain.samples import Batch

_KEPT_BYTES = 2**28


def own_memory(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies where torch wants its tensors. Arrays lie where they happened to be read to, and kernels may sum in
    another order there: the last bit would differ from run to run."""
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}


def tensors_of(batch: Batch, device: torch.device) -> list[Tensor]:
    """The inputs of `batch` on the device, in memory of their own."""
    return [tensor.to(device, copy=True) for tensor in to_tensors(batch.inputs)]


class Teacher:
    """Targets of batches on `device`, as an objective asks for them."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self._objective = objective
        self.device = device
        teacher = objective.teacher
        self._module = teacher.to(device) if isinstance(teacher, nn.Module) else None
        self._graph = teacher if isinstance(teacher, Graph) else None
        self._constants = {}
        if self._graph is not None:
            self._constants = own_memory(as_tensors(self._graph.constants), device)
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._room = _KEPT_BYTES if self._can_keep() else 0

    def targets(self, batch: Batch, inputs: Sequence[Tensor]) -> Targets:
        """What `batch` is to be taught; `inputs` are its arrays on the device."""
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(self.device)
        if self._objective.teacher is None:
            return Targets(labels=labels)
        numbers = batch.numbers.tolist() if isinstance(batch, NumberedBatch) else []
        if numbers and all(number in self._kept for number in numbers):
            columns = zip(*(self._kept[number] for number in numbers), strict=True)
            return Targets(tuple(torch.stack(column) for column in columns), labels=labels)
        outputs, features = self._answer(inputs)
        return Targets(outputs, features, labels)

    def keep(self, batches: Iterable[Batch]) -> None:
        """Compute the outputs of numbered batches and keep them, as far as they are small."""
        if self._room and self._objective.teacher is not None:
            for batch in batches:
                if not isinstance(batch, NumberedBatch) or not self._keep(batch.numbers.tolist(), self.outputs(batch)):
                    return

    def outputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the teacher says of `batch`, on the device."""
        return self.targets(batch, tensors_of(batch, self.device)).outputs

    def _answer(self, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        wanted = {theirs: ours for ours, theirs in self._objective.features.items()}
        features: dict[str, Tensor] = {}

        def hook(name: str, value: Tensor) -> Tensor:
            if name in wanted:
                features[wanted[name]] = value
            return value

        with torch.no_grad():
            if self._graph is not None:
                outputs = run(self._graph, inputs, constants=self._constants, hook=hook if wanted else None)
                return tuple(outputs), features
            assert self._module is not None
            given = self._module.eval()(*inputs)
            return tuple(given) if isinstance(given, (tuple, list)) else (given,), features

    def _can_keep(self) -> bool:
        """Where samples are apart, what is said of one does not hang on its batch."""
        return not self._objective.features and (self._graph is None or mixes_samples(self._graph) is None)

    def _keep(self, numbers: Sequence[int], outputs: Sequence[Tensor]) -> bool:
        size = sum(output.nbytes for output in outputs)
        if size > self._room or any(not output.ndim or len(output) != len(numbers) for output in outputs):
            return False
        self._room -= size
        for row, number in enumerate(numbers):
            self._kept[number] = tuple(output[row] for output in outputs)
        return True
