"""What importances measure on samples: sizes of activations, and derivatives of the loss or of the outputs.

For one pass (a batch, or one sample) with loss L the derivative along a weight is

    d_w = w dL/dw                        to first order what L changes by where w becomes zero, with its sign

L is the cross-entropy where samples have labels and the first output has a score for each class; else L = v . y with a
random sign v for each output and outputs of norm 1, so that E d_w^2 is the expected square of the outputs' change
(Hutchinson's estimator, as in `compress.fisher`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.compress.channels.groups import ChannelGroup
from toolchain.engine.run import as_tensors, run, runnable_batches, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.graph import Graph, Op, mixes_samples
from toolchain.samples import Batch


@dataclass(frozen=True, eq=False)
class Moments:
    """Along one axis `(C,)` of an activation: mean |x|, mean x^2 and the share of values that are not zero."""

    magnitude: np.ndarray
    square: np.ndarray
    active: np.ndarray


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an importance knows beside the weights.

    `moments` by (activation, axis); `weights`, the mean over passes of d_w^2 by constant, and `channels` `(size,)`, the
    mean over passes of (sum_w d_w)^2 by group name; `seed` of what is drawn.
    """

    moments: Mapping[tuple[str, int], Moments] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0


def measure_moments(
    graph: Graph, wanted: Iterable[tuple[str, int]], batches: Iterable[Batch]
) -> dict[tuple[str, int], Moments]:
    """Moments along each `wanted` (activation, axis), in one streaming pass."""
    axes: dict[str, list[int]] = {}
    for tensor, axis in dict.fromkeys(wanted):
        axes.setdefault(tensor, []).append(axis)
    sums: dict[tuple[str, int], np.ndarray] = {}
    seen: dict[tuple[str, int], int] = {}

    def hook(name: str, value: Tensor) -> Tensor:
        for axis in axes.get(name, ()):
            others = [a for a in range(value.dim()) if a != axis]
            parts = (value.abs(), value.square(), (value != 0).to(value.dtype))
            total = np.stack([part.sum(others, dtype=torch.float64).numpy() for part in parts])
            sums[name, axis] = sums.get((name, axis), 0) + total
            seen[name, axis] = seen.get((name, axis), 0) + value.numel() // value.shape[axis]
        return value

    constants = as_tensors(graph.constants)
    with torch.inference_mode(), one_thread():
        for inputs in runnable_batches(graph, (batch.inputs for batch in batches)):
            run(graph, to_tensors(inputs), constants=constants, hook=hook)
    return {key: Moments(*(total / seen[key])) for key, total in sums.items()}


def measure_changes(
    graph: Graph, groups: Sequence[ChannelGroup], batches: Iterable[Batch], *, each_sample: bool, seed: int = 0
) -> Evidence:
    """The `weights` and `channels` of an Evidence. A pass is a batch, or with `each_sample` one sample of it (where the
    graph does not mix its samples). Costs a forward and a backward run a pass."""
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, np.ndarray] = {}
    channels = {group.name: np.zeros(group.size) for group in groups}
    count = 0
    with one_thread():
        for batch in _passes(graph, batches, each_sample):
            changes = _derivatives(graph, batch, random)
            for name, change in changes.items():
                weights[name] = weights.get(name, 0) + change**2
            for group in groups:
                channels[group.name] += _along(group, changes) ** 2
            count += 1
    count = max(count, 1)
    weights = {name: total / count for name, total in weights.items()}
    return Evidence(weights=weights, channels={name: total / count for name, total in channels.items()}, seed=seed)


def _passes(graph: Graph, batches: Iterable[Batch], each_sample: bool) -> Iterator[Batch]:
    apart = mixes_samples(graph) is None
    for batch in batches:
        if not apart:
            yield from (Batch(tuple(inputs), None) for inputs in runnable_batches(graph, [batch.inputs]))
        elif each_sample:
            for row in range(len(batch)):
                labels = None if batch.labels is None else batch.labels[row : row + 1]
                yield Batch(tuple(array[row : row + 1] for array in batch.inputs), labels)
        else:
            yield batch


def _derivatives(graph: Graph, batch: Batch, random: torch.Generator) -> dict[str, np.ndarray]:
    """d_w of every float constant that is no statistic of a batch norm."""
    statistics = {name for node in graph.nodes if node.op is Op.BATCH_NORM for name in node.inputs[3:]}
    constants = as_tensors(graph.constants)
    leaves = {
        name: tensor.clone().requires_grad_()
        for name, tensor in constants.items()
        if tensor.is_floating_point() and name not in statistics
    }
    outputs = run(graph, to_tensors(batch.inputs), constants={**constants, **leaves})
    loss = task_loss(graph, outputs, batch.labels)
    if loss is None:
        loss = _random_projection(outputs, random)
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    pairs = ((name, leaf, gradient) for (name, leaf), gradient in zip(leaves.items(), found, strict=True))
    return {n: (leaf.detach().double() * g.double()).numpy() for n, leaf, g in pairs if g is not None}


def task_loss(graph: Graph, outputs: Sequence[Tensor], labels: np.ndarray | None) -> Tensor | None:
    """Cross-entropy of the first output `(N, classes)`, whatever the graph ends with; None where there is none."""
    scores = outputs[0]
    if labels is None or scores.dim() != 2 or len(labels) != len(scores) or labels.max(initial=0) >= scores.shape[1]:
        return None
    last = graph.producers.get(graph.outputs[0])
    if last is not None and last.op is Op.SOFTMAX:
        scores = scores.clamp_min(1e-30).log()
    return F.cross_entropy(scores, torch.from_numpy(np.asarray(labels, np.int64)))


def _random_projection(outputs: Sequence[Tensor], random: torch.Generator) -> Tensor:
    loss = torch.zeros(())
    for output in (output for output in outputs if output.requires_grad):
        signs = torch.randint(0, 2, output.shape, generator=random) * 2.0 - 1.0
        norm = output.detach().double().square().sum().clamp_min(1e-30).sqrt().float()
        loss = loss + (output * signs).sum() / norm / len(outputs) ** 0.5
    return loss


def _along(group: ChannelGroup, changes: Mapping[str, np.ndarray]) -> np.ndarray:
    """`(size,)`: the sum of d_w over everything that goes with each channel."""
    total = np.zeros(group.size)
    for cut in group.cuts:
        if cut.tensor in changes:
            rows = np.moveaxis(changes[cut.tensor], cut.axis, 0)
            total += rows.reshape(len(rows), -1).sum(1)[cut.indices].sum(1)
    return total
