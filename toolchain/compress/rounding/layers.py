"""One layer's integers by the second order: its moments from the two streams, then error feedback and descent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from toolchain.compress.rounding.learned import Change, RoundedWeight
from toolchain.compress.rounding.moments import Moments, Window
from toolchain.compress.rounding.patches import Product
from toolchain.compress.rounding.second_order import (
    Grid,
    Objective,
    Rounded,
    choose_damping,
    round_matrix,
    round_with_scales,
    spread,
)
from toolchain.compress.rounding.streams import Streams
from toolchain.graph import Graph, Node
from toolchain.quantization import AffineParams, QuantizedGraph

LEAST_ROWS, ROWS_PER_COLUMN = 1 << 14, 16
"""Rows that moments are measured on, where there are more: at least so many, and so many for each input."""

RATIOS = tuple(round(1.0 - 0.05 * step, 2) for step in range(13))
"""Scales tried, as shares of the given one: clipping pays where there are few integers."""

CAUTIOUS = (0.1, 0.0)
"""Damping and share of the target where there is one sample only."""

WINDOWS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
"""What activations pass on."""

MOST_APART = 1 << 23
"""Elements of second moments up to which every output channel has its own."""

_BIAS_REACH = 2.0**30


@dataclass(frozen=True)
class LayerFact:
    """A layer's signal to rounding error before and after, in dB, on what it meets in the quantized network."""

    layer: str
    weight: str
    sqnr_before_db: float
    sqnr_after_db: float


@dataclass(frozen=True)
class Folds:
    """Moments of two halves of the samples, so that what is fitted to one can be judged by the other."""

    first: Moments
    second: Moments

    @classmethod
    def empty(cls, graph: Graph, weight: RoundedWeight) -> Folds:
        """For the layers of `weight`; one of few moments weighs the places of each output channel for itself."""
        node = weight.readers[0]
        product = Product.of(graph, node)
        is_rectified = node["activation"] in WINDOWS and len(node.inputs) == 3
        is_small = product.parts == 1 and product.shape[0] * product.columns**2 <= MOST_APART
        if is_rectified and is_small and not weight.is_shared:
            product = Product.of(graph, node, apart=True)
        return cls(Moments.empty(product), Moments.empty(product))

    def collect(self, streams: Streams, weight: RoundedWeight, readers: Iterable[Node], seed: int) -> None:
        """Take in the inputs of `readers`."""
        generator = torch.Generator().manual_seed(seed)
        for node in readers:
            product = replace(self.first.product, node=node)
            matrix = product.matrix(streams.floats[weight.name])
            window = self._window(streams, node) if product.apart else None
            rows = max(LEAST_ROWS, ROWS_PER_COLUMN * product.columns) // streams.batches
            for batch in range(streams.batches):
                inputs = streams.rounded_value(node.inputs[0], batch), streams.real_value(node.inputs[0], batch)
                for moments, halves in zip(self._halves(batch, len(inputs[0])), _cut(inputs), strict=False):
                    share = -(-rows * len(halves[0]) // len(inputs[0]))
                    for rounded, real in product.patches(*halves, rows=share, generator=generator):
                        moments.add(node.output, rounded, real, matrix, window)

    def _window(self, streams: Streams, node: Node) -> Window:
        low, high = WINDOWS[str(node["activation"])]
        return Window(low, high, streams.floats[node.inputs[2]].reshape(-1, 1))

    def _halves(self, batch: int, size: int) -> tuple[Moments, ...]:
        """Where the halves of a batch go; one that cannot be cut goes where its number says."""
        pair = (self.first, self.second)
        return pair if size > 1 else (pair[batch % 2],)


def _cut(tensors: tuple[Tensor, Tensor]) -> list[tuple[Tensor, ...]]:
    size = len(tensors[0])
    middle = (size + 1) // 2
    return [tuple(t[:middle] for t in tensors), tuple(t[middle:] for t in tensors)] if size > 1 else [tensors]


def learn_layer(
    model: QuantizedGraph, weight: RoundedWeight, folds: Folds, *, choose_scales: bool
) -> tuple[Change, LayerFact]:
    """New integers of a weight, its bias corrections, and what that gained over the model's own integers."""
    moments = folds.first.merged(folds.second)
    product, params = moments.product, model.params[weight.name]
    real = product.matrix(torch.from_numpy(model.graph.constants[weight.name].astype(np.float64)))
    with_bias = [node for node in weight.readers if len(node.inputs) == 3]
    centred = frozenset(node.output for node in with_bias)
    form = moments.form(centred)
    objective = Objective.of(real, form, *_chosen(real, folds, centred))
    grid = grid_of(product, params, weight.kept)
    start = product.matrix(torch.from_numpy(model.integers[weight.name].astype(np.float64)))
    found = round_matrix(objective, grid, start)
    if choose_scales and params.block is None:  # blocks are so small that clipping gains nothing
        found = _with_scales(objective, grid, found, product.per_group(_least_scales(model, weight, params)), params)
    if float(form.error(found.values, real).sum()) > float(form.error(start * spread(grid.scale), real).sum()):
        found = Rounded(start, grid.scale)
    change = Change(
        weight.name,
        product.weight(found.integers).numpy().astype(params.dtype.numpy),
        params if params.block is not None else _with_scale(product, params, found.scale),
        {n.inputs[2]: bias_correction(moments, n, found.values, real) for n in with_bias},
    )
    errors = (form.relative_error(d, real) for d in (start * spread(grid.scale), found.values))
    before, after = (float(-10 * np.log10(max(error, 1e-30))) for error in errors)
    return change, LayerFact(weight.readers[0].name, weight.name, before, after)


def _chosen(real: Tensor, folds: Folds, centred: frozenset[str]) -> tuple[float, float]:
    if not folds.first.readers or not folds.second.readers:
        return CAUTIOUS
    return choose_damping(real, (folds.first.form(centred), folds.second.form(centred)))


def grid_of(product: Product, params: AffineParams, kept: np.ndarray | None) -> Grid:
    """The integers of a weight; what a mask has pruned, or what is only filled up, stays 0."""
    mask = None if kept is None else product.matrix(torch.from_numpy(kept.astype(np.float64)))
    if params.block is None:
        return Grid(product.per_group(params.scale.reshape(-1)), params.q_min, params.q_max, mask)
    scale = product.matrix(torch.from_numpy(params.broadcast(params.scale, 2).astype(np.float64)))
    # of what a matrix is filled up with there is none
    return Grid(torch.where(scale > 0, scale, 1.0), params.q_min, params.q_max, mask)


def bias_correction(moments: Moments, node: Node, rounded: Tensor, real: Tensor) -> np.ndarray:
    """`W E[x] - D E[x^]` (C_out,): what makes the mean of the layer's result that of the float layer's."""
    mean_rounded, mean_real = moments.means(node.output)
    shift = (real @ mean_real[..., None] - rounded @ mean_rounded[..., None])[..., 0]
    correction: np.ndarray = moments.product.per_output(shift).numpy().astype(np.float32)
    return correction


def _with_scales(objective: Objective, grid: Grid, found: Rounded, least: Tensor, params: AffineParams) -> Rounded:
    """What was found, or better integers at other scales, none below `least` (G, O)."""
    tried = round_with_scales(objective, grid, RATIOS, least, shared=params.axis is None)
    one, other = objective.loss(found.integers, grid), objective.loss(tried.integers, replace(grid, scale=tried.scale))
    is_better = (other.sum() < one.sum()).expand_as(one) if params.axis is None else other < one
    integers = torch.where(is_better[..., None], tried.integers, found.integers)
    return Rounded(integers, torch.where(is_better, tried.scale, found.scale))


def _least_scales(model: QuantizedGraph, weight: RoundedWeight, params: AffineParams) -> np.ndarray:
    """(C_out,): scales at which the accumulator still holds the biases, and at most the given ones."""
    least = np.full(len(model.graph.constants[weight.name]), float(params.scale.max()) * 2.0**-20)
    for node in weight.readers:
        for name in node.inputs[2:]:
            if node.inputs[0] in model.params:
                bias = np.abs(model.graph.constants[name].astype(np.float64))
                least = np.maximum(least, bias / (model.params[node.inputs[0]].step * _BIAS_REACH))
    least = np.minimum(least, params.scale)
    return np.full_like(least, least.max()) if params.axis is None else least


def _with_scale(product: Product, params: AffineParams, scale: Tensor) -> AffineParams:
    values = product.per_output(scale).numpy() / product.parts
    return replace(params, scale=(values if params.axis is not None else values[0]).astype(np.float32))
