"""Inputs made from the network alone, to calibrate where there are no samples.

A batch norm remembers the mean mu and the deviation sigma of what it read in training. Inputs x are moved by Adam until
every norm reads that again (ZeroQ, Cai et al., arXiv 2001.00281, equation 3; here relative to sigma, channel by
channel), and, where the outputs can be read as scores of classes, until each input is of a class drawn for it
(DeepInversion, Yin et al., arXiv 1912.08795), without which all inputs look like the same average:

    loss(x) = mean over norms of  mean_c ((mean_c - mu_c) / sigma_c)^2 + mean_c (deviation_c / sigma_c - 1)^2
              + CLASS_WEIGHT * cross_entropy(f(x), drawn classes)

An input is gain_c * (u + offset_c) with u of mean 0 and deviation 1; gain and offset are learned, for no statistic is
told about the input itself. Of pictures (one or three channels) u is smooth and bounded: its amplitudes fall as
1 / frequency (Field, J. Opt. Soc. Am. A 4, 1987) and it ends at `BOUND` deviations, which is half the range of pixels
over their deviation on ImageNet, 0.5 / 0.226. Without the bound, Gaussian tails take most of the input's grid.

A network without batch norms says nothing about its inputs: they are drawn as they are commonly given to networks, with
mean 0 and deviation 1 (LeCun et al., Efficient BackProp, 1998, section 4.3), or with those of the example inputs where
these vary. Whether the user's inputs look like that cannot be known from here. Token ids are drawn uniformly below the
rows of the table they index; other whole numbers and booleans stay what they are in the example inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, inf, isfinite, pi

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.run import as_tensors, run
from toolchain.engine.threads import one_thread
from toolchain.graph import Graph, Node, Op, TensorType, mixes_samples
from toolchain.graph.cost import total_macs
from toolchain.progress import SILENT, Progress

STEPS, FEWEST_STEPS = 30, 10
LEARNING_RATE = 0.1
CLASS_WEIGHT = 0.05
BOUND = 2.2

BUDGET_MACS = 10**12
"""Multiply-adds that all steps may take, about two minutes on one core; a step is three runs of the network."""

DRAWN, FEWEST, MOST = 150, 12, 96
"""How many inputs are made: without batch norms; with them, at least and at most."""

_GROUP_ELEMENTS = 160_000_000
_SCALES = tuple(4.0**power for power in range(-2, 5))
_MOVES = frozenset({Op.RESHAPE, Op.PERMUTE, Op.SLICE, Op.EXPAND, Op.CONCAT, Op.CAST})


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Inputs `(N, ...)`, an array for each of the graph's; how many batch norms they were matched to, and the mean
    distance from these (the loss without its class term) before and after. 0 norms: the inputs were drawn only."""

    inputs: tuple[np.ndarray, ...]
    norms: int = 0
    distance_before: float = 0.0
    distance_after: float = 0.0

    def __str__(self) -> str:
        count = f"{len(self.inputs[0])} synthetic inputs"
        if not self.norms:
            return f"{count}, drawn at random: the model has no batch norm that tells what real ones look like"
        moved = f"{self.distance_before:.2g} before, {self.distance_after:.2g} after"
        return f"{count}, matched to the statistics of {self.norms} batch norms (distance {moved})"


def affordable_inputs(graph: Graph) -> int:
    """How many inputs `synthesise` makes of `graph` within its budget."""
    if not _norms(graph):
        return DRAWN
    return int(min(max(BUDGET_MACS // (3 * max(total_macs(graph), 1) * STEPS), FEWEST), MOST))


def synthesise(
    graph: Graph, examples: Sequence[np.ndarray], count: int, *, seed: int = 0, progress: Progress = SILENT
) -> Synthesis:
    """`count` inputs for `graph`, whose batch norms are not folded yet.

    `examples` are an array of the right shape for each input; they tell mean and deviation where their values vary, and
    the values of what is neither real nor a token id. Deterministic for a seed; memory is that of a few samples.
    """
    random = torch.Generator().manual_seed(seed)
    norms, size = _norms(graph), _group_size(graph, count)
    steps = int(min(max(BUDGET_MACS // (3 * max(total_macs(graph), 1) * count), FEWEST_STEPS), STEPS))
    total = -(-count // size) * steps
    ticks = progress.track(range(total), description="match batch norms", total=total) if norms else iter(())
    groups = []
    with one_thread():
        for _ in range(0, count, size):
            group = _group(graph, examples, size, random)
            if norms:
                group.match(norms, steps, ticks)
            groups.append(group)
    next(ticks, None)  # a bar ends when what it counts is used up
    columns = zip(*(group.arrays() for group in groups), strict=True)
    inputs = tuple(np.concatenate(column)[:count] for column in columns)
    before = float(np.mean([group.distance_before for group in groups]))
    after = float(np.mean([group.distance_after for group in groups]))
    return Synthesis(inputs, len(norms), before, after)


def index_bounds(graph: Graph) -> dict[str, int]:
    """Inputs that index a constant table, unchanged but for their shape, and the rows of the smallest such table."""
    found: dict[str, int] = {}
    origins = {v.name: {v.name} for v in graph.inputs if not v.type.dtype.is_float and v.type.dtype.numpy != np.bool_}
    for node in graph.nodes:
        if node.op is Op.GATHER and graph.is_constant(node.inputs[0]):
            rows = graph.types[node.inputs[0]].shape[int(node["axis"])]
            for origin in origins.get(node.inputs[1], ()):
                found[origin] = min(rows, found.get(origin, rows))
        elif node.op in _MOVES:
            origins[node.output] = set().union(*(origins.get(name, set()) for name in node.inputs))
    return found


class _Source:
    """What one input of the graph is made of: fixed values, or a pattern with its gain and offset a channel, which are
    learned. `scale` stretches all of it."""

    def __init__(self, kind: TensorType, size: int, random: torch.Generator, example: np.ndarray, rows: int) -> None:
        shape = (size, *kind.shape[1:])
        self.fixed: Tensor | None = None
        if not kind.dtype.is_float:
            drawn = torch.randint(0, rows, shape, generator=random).numpy() if rows else np.broadcast_to(example, shape)
            self.fixed = torch.from_numpy(drawn.astype(kind.dtype.numpy))
        varies = kind.dtype.is_float and float(example.std()) > 0
        self.mean, self.scale = (float(example.mean()), float(example.std())) if varies else (0.0, 1.0)
        self.pattern = torch.randn(shape, generator=random)
        self.gain, self.offset = (torch.zeros(1, *shape[1:2], *(1 for _ in shape[2:])) for _ in range(2))
        self.amplitudes = _amplitudes(*shape[2:]) if len(shape) == 4 and shape[1] in (1, 3) else None

    @property
    def learned(self) -> list[Tensor]:
        return [] if self.fixed is not None else [self.pattern, self.gain, self.offset]

    def value(self) -> Tensor:
        if self.fixed is not None:
            return self.fixed
        u = self.pattern
        if self.amplitudes is not None:
            u = torch.fft.irfft2(torch.fft.rfft2(u) * self.amplitudes, s=u.shape[2:])
        if u.numel() > self.offset.numel():
            u = u - u.mean((0, *range(2, u.dim())), keepdim=True)
        u = u / u.square().mean().sqrt().clamp_min(1e-12)
        u = u if self.amplitudes is None else u.clamp(-BOUND, BOUND)
        return self.mean + self.scale * self.gain.exp() * (u + self.offset)


@dataclass
class _Group:
    """Inputs that are moved together: the statistics of a norm are over all of them."""

    graph: Graph
    sources: Sequence[_Source]
    classes: Tensor | None
    distance_before: float = 0.0
    distance_after: float = 0.0

    def arrays(self) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(source.value().numpy() for source in self.sources)

    def match(self, norms: Mapping[str, Node], steps: int, ticks: Iterator[int]) -> None:
        """Move the inputs; they stay where they were if that brings them no nearer."""
        constants = as_tensors(self.graph.constants)
        with torch.no_grad():
            self._find_scale(norms, constants)
            self.distance_before = float(self._losses(norms, constants)[0])
        learned = [tensor.requires_grad_() for source in self.sources for tensor in source.learned]
        started = [tensor.detach().clone() for tensor in learned]
        optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * cos(pi * step / steps))
        for _ in range(steps):
            next(ticks, None)
            optimizer.zero_grad()
            distance, miss = self._losses(norms, constants)
            (distance + CLASS_WEIGHT * miss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            self.distance_after = float(self._losses(norms, constants)[0])
            if not self.distance_after < self.distance_before:
                self.distance_after = self.distance_before
                for tensor, before in zip(learned, started, strict=True):
                    tensor.copy_(before)

    def _find_scale(self, norms: Mapping[str, Node], constants: Mapping[str, Tensor]) -> None:
        """Adam walks too slowly from a deviation of 1 to one of 64, as of pixels up to 255."""
        given = [source.scale for source in self.sources]
        found: dict[float, float] = {}
        for factor in _SCALES:
            self._stretch(given, factor)
            distance = float(self._losses(norms, constants)[0])
            found[factor] = distance if isfinite(distance) else inf
        self._stretch(given, min(found, key=found.__getitem__))

    def _stretch(self, given: Sequence[float], factor: float) -> None:
        for source, scale in zip(self.sources, given, strict=True):
            source.scale = scale * factor

    def _losses(self, norms: Mapping[str, Node], constants: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The distance from the norms and the cross-entropy of the drawn classes, 0 where there are none."""
        distances: list[Tensor] = []

        def look(name: str, value: Tensor) -> Tensor:
            distances.extend(_distance(norms[name], value, constants) for _ in range(name in norms))
            return value

        outputs = run(self.graph, [source.value() for source in self.sources], constants=constants, hook=look)
        miss = torch.zeros(()) if self.classes is None else F.cross_entropy(outputs[0], self.classes)
        return torch.stack(distances).mean(), miss


def _group(graph: Graph, examples: Sequence[np.ndarray], size: int, random: torch.Generator) -> _Group:
    bounds = index_bounds(graph)
    sources = [
        _Source(value.type, size, random, example[:1], bounds.get(value.name, 0))
        for value, example in zip(graph.inputs, examples, strict=True)
    ]
    result = graph.types[graph.outputs[0]]
    if not result.dtype.is_float or result.rank != 2 or result.shape[1] < 2:
        return _Group(graph, sources, None)
    return _Group(graph, sources, torch.randint(0, result.shape[1], (size,), generator=random))


def _group_size(graph: Graph, count: int) -> int:
    """As many inputs as memory takes: what a step computes is kept for its way back."""
    if mixes_samples(graph) is not None:
        return graph.inputs[0].type.shape[0]
    kept = sum(graph.types[name].elements for name in graph.activations)
    return min(max(_GROUP_ELEMENTS // kept, 4), MOST, count)


def _norms(graph: Graph) -> dict[str, Node]:
    """Batch norms whose statistics are known and that real inputs reach, by the tensor they read."""
    moved = {value.name for value in graph.inputs if value.type.dtype.is_float}
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if moved & set(node.inputs):
            moved.add(node.output)
            if node.op is Op.BATCH_NORM and all(graph.is_constant(name) for name in node.inputs[3:5]):
                found[node.inputs[0]] = node
    return found


def _distance(norm: Node, value: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
    """How far channels `(N, C, ...)` are from what `norm` remembers, squared and relative to its deviations."""
    mean, variance = (constants[name] for name in norm.inputs[3:5])
    places = (0, *range(2, value.dim()))
    wanted = (variance + norm["epsilon"]).sqrt()
    found = (value.var(places, unbiased=False) + norm["epsilon"]).sqrt()
    distance: Tensor = ((value.mean(places) - mean) / wanted).square().mean() + (found / wanted - 1).square().mean()
    return distance


def _amplitudes(height: int, width: int) -> Tensor:
    """1 / frequency for the half spectrum of a picture; the mean is as strong as the slowest wave."""
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    falling: Tensor = 1 / (rows.square() + columns.square()).sqrt().clamp_min(1 / max(height, width))
    return falling
