"""How good a student is between epochs, on samples that it does not learn from where there are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.compress.recovery.teaching import Teacher, tensors_of
from toolchain.fidelity import Comparison, Metric, accuracy, is_classes
from toolchain.samples import Batch


@dataclass(frozen=True)
class Point:
    """What was measured after `epoch` (0: before training): SQNR and balanced SQNR in dB against the teacher and the
    share of samples with its class (None without one), the share of right classes (None without labels) and the
    user's score."""

    epoch: int
    sqnr_db: float | None = None
    balanced_db: float | None = None
    same_class: float | None = None
    accuracy: float | None = None
    score: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """The larger, the better: by score, else by right classes, else by SQNR, which breaks ties as well."""
        first = next((value for value in (self.score, self.accuracy, self.sqnr_db) if value is not None), 0.0)
        return first, self.sqnr_db or 0.0

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Point:
        return cls(**plain)


@dataclass(frozen=True)
class Validation:
    """`batches()` gives the samples anew; training ends early where `is_met`. `by_labels` lets right classes decide
    which epoch is best, where there are labels; a `metric` of the user's decides before all else."""

    batches: Callable[[], Iterable[Batch]]
    is_met: Callable[[Point], bool] = lambda point: False
    by_labels: bool = False
    metric: Metric | None = None

    def measure(self, module: nn.Module, teacher: Teacher, epoch: int) -> Point:
        """Run `module` over all batches."""
        compared = Comparison()
        outputs: list[list[np.ndarray]] = []
        labels: list[np.ndarray | None] = []
        with torch.no_grad():
            for batch in self.batches():
                made = _arrays(module(*tensors_of(batch, teacher.device)))
                targets = _arrays(teacher.outputs(batch))
                if targets:
                    compared.add(made, targets)
                outputs.append(made)
                labels.append(batch.labels)
        columns = [np.concatenate([np.atleast_1d(a) for a in column]) for column in zip(*outputs, strict=True)]
        given = [found for found in labels if found is not None]
        known = np.concatenate(given) if given and len(given) == len(labels) else None
        return self._point(epoch, compared, columns, known)

    def _point(self, epoch: int, compared: Comparison, outputs: list[np.ndarray], labels: np.ndarray | None) -> Point:
        right = None
        if self.by_labels and labels is not None and is_classes(outputs[0]):
            right = accuracy(outputs[0], labels)
        score = None if self.metric is None else float(self.metric(outputs, labels))
        if not compared.samples:
            return Point(epoch, accuracy=right, score=score)
        return Point(epoch, compared.sqnr_db, compared.balanced_db, compared.same_class, right, score)


def _arrays(outputs: Tensor | tuple[Tensor, ...]) -> list[np.ndarray]:
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.detach().cpu().numpy() for output in several]
