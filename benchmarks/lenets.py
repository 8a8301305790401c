"""LeNet-300-100 and LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition, 1998; as in Caffe),
MNIST in shifted batches, and a row of stages that trains: what `compress_lenet` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from compress_shop import Mnist
from torch import nn

from toolchain.compress.pruning.magnitude import weight_names
from toolchain.compress.recovery.objective import Objective, Task
from toolchain.compress.recovery.training import Training, train
from toolchain.engine.module import GraphModule
from toolchain.graph import Graph
from toolchain.samples import Batch
from toolchain.samples.digits import as_inputs

BATCH = 128
_PAD = 2


def lenet_300_100() -> nn.Module:
    """266,610 parameters."""
    layers = [nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers)


def lenet_5() -> nn.Module:
    """431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How a network is compressed: the share of weights kept of each layer, values a tensor, and epochs of each step.
    `shift` is by how many pixels training images are moved at most."""

    make: Callable[[], nn.Module]
    kept: tuple[float, ...]
    clusters: int
    most_error: float
    float_epochs: int
    prune_epochs: int
    cluster_epochs: int
    integer_epochs: int
    shift: int = 1

    def quick(self) -> Plan:
        epochs = {"float_epochs": 2, "prune_epochs": 3, "cluster_epochs": 1, "integer_epochs": 1}
        return Plan(**{**vars(self), **epochs})


@dataclass(frozen=True)
class ShiftedBatches:
    """epoch -> all training images in another order, each moved by up to `shift` pixels; the same for a seed."""

    mnist: Mnist
    shift: int
    seed: int = 0
    _padded: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def steps(self) -> int:
        return len(self.mnist.train_images) // BATCH

    def __call__(self, epoch: int) -> Iterator[Batch]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.mnist.train_images))
        moves = random.integers(_PAD - self.shift, _PAD + self.shift + 1, (len(order), 2))
        grid = np.arange(28)
        padded = self._images()
        for start in range(0, self.steps * BATCH, BATCH):
            chosen, moved = order[start : start + BATCH], moves[start : start + BATCH]
            rows, columns = (moved[:, axis, None] + grid for axis in (0, 1))
            images = padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
            yield Batch((as_inputs(images),), self.mnist.train_labels[chosen])

    def _images(self) -> np.ndarray:
        if not self._padded:
            self._padded.append(np.pad(self.mnist.train_images, ((0, 0), (_PAD, _PAD), (_PAD, _PAD))))
        return self._padded[0]


def learn(
    module: GraphModule,
    batches: ShiftedBatches,
    epochs: int,
    rate: float,
    teacher: Graph | None = None,
    kept: Mapping[str, float] | None = None,
) -> None:
    """Train on labels and, with a teacher, its soft classes; with `kept`, towards that share of each weight."""
    on_step = GradualPruning(module, kept) if kept else None
    soft = {"teacher": teacher, "temperature": 3.0, "alpha": 1.0} if teacher is not None else {}
    training = Training(epochs=epochs, learning_rate=rate, warmup=0.02, device="cpu")
    objective = Objective(task=Task.CROSS_ENTROPY, **soft)
    train(module, objective, batches, training, steps_per_epoch=batches.steps, on_step=on_step)


@dataclass(frozen=True)
class GradualPruning:
    """Masks by magnitude that tighten along a cubic (Zhu and Gupta, arXiv 1710.01878): at share u of the ramp a weight
    keeps `kept + (1 - kept) (1 - u)^3` of its elements."""

    module: GraphModule
    kept: Mapping[str, float]
    ramp: float = 0.6
    every: int = 50

    def __call__(self, step: int, steps: int) -> None:
        end = round(self.ramp * steps)
        if (step % self.every and step != end) or step > end:
            return
        left = (1 - step / max(end, 1)) ** 3
        weights = self.module.trained_constants()
        masks = {}
        for name, share in self.kept.items():
            sizes = np.abs(weights[name])
            count = max(round((share + (1 - share) * left) * sizes.size), 1)
            least = np.partition(sizes, sizes.size - count, axis=None)[sizes.size - count]
            masks[name] = (sizes >= least) & (sizes > 0)
        self.module.set_masks(masks)


def weights_of(graph: Graph) -> list[str]:
    """Names of the layers' weights in their order."""
    return list(weight_names(graph))


def error_percent(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of wrong classes of scores (N, C), in percent."""
    return float(100 * (scores.reshape(len(labels), -1).argmax(1) != labels).mean())


def module_from(module: nn.Module, graph: Graph) -> nn.Module:
    """`module` with the constants of `graph`, which was traced from it."""
    state = {name: torch.from_numpy(np.array(graph.constants[name])) for name in module.state_dict()}
    module.load_state_dict(state)
    return module.eval()
