"""Second moments of a layer's input, from one streaming pass: all that layer-wise rounding needs to know of the
samples.

With x what the float layer reads and x^ what the quantized one reads, the error of weights D is

    E |D x^ + c - (W x + b)|^2 = sum_o (d_o - w*_o) H (d_o - w*_o)^T + rest,      c = b + W E[x] - D E[x^],
    H = Cov(x^, x^),      W* = W + W (Cov(x, x^) - H) (H + damping)^-1

so that learning needs H, the cross moment and two means, whatever the number of samples. Without a bias the moments are
taken about zero. Of rows that a wide image has more than needed, a seeded part is taken.

Where a ReLU or ReLU6 follows, an error in what it cuts off costs nothing: there a place counts `OUTSIDE` for an output
channel, and H is that channel's own (the Gauss-Newton form of the error behind the activation).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolchain.compress.rounding.patches import Product

OUTSIDE = 0.1
"""Weight of a place whose result the activation cuts off."""

_MARGIN = 0.2
_CHUNK_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class Window:
    """Where an activation passes results on: `low` to `high` after `bias` (G, O) is added."""

    low: float
    high: float
    bias: Tensor

    def weights(self, results: Tensor) -> Tensor:
        """(G, O, n): 1 where a result of the float layer, or one a little off, reaches what comes after; else
        `OUTSIDE`."""
        shifted = results + self.bias[..., None]
        margin = _MARGIN * shifted.std(2, keepdim=True, correction=0)
        inside = (shifted > self.low - margin) & (shifted < self.high + margin)
        return torch.where(inside, 1.0, OUTSIDE)


@dataclass
class ReaderMoments:
    """Weighted sums of one reader of a weight: `mass` (G,) of the weights, `rounded` and `real` (G, K) of the two
    inputs, `results` (G, O) of the float layer."""

    mass: Tensor
    rounded: Tensor
    real: Tensor
    results: Tensor

    def merged(self, other: ReaderMoments) -> ReaderMoments:
        return ReaderMoments(
            self.mass + other.mass,
            self.rounded + other.rounded,
            self.real + other.real,
            self.results + other.results,
        )


@dataclass
class Moments:
    """Moments of one weight over all its readers.

    `square` and `cross` (G, K, K) float64: sums of x^ x^^T and of x^ x^T, the rounded and the real input, over `rows`;
    `power` of the float layer's results; `readers` by output of the node.
    """

    product: Product
    square: Tensor
    cross: Tensor
    rows: int = 0
    power: float = 0.0
    readers: dict[str, ReaderMoments] = field(default_factory=dict)

    @classmethod
    def empty(cls, product: Product) -> Moments:
        groups, columns = product.groups * product.parts, product.columns
        zeros = torch.zeros(groups, columns, columns, dtype=torch.float64)
        return cls(product, zeros, zeros.clone())

    def add(self, reader: str, rounded: Tensor, real: Tensor, weight: Tensor, window: Window | None = None) -> None:
        """Take in patches `(G, K, n)` of both inputs; `weight` is the float layer's matrix. With a `window` every
        output channel is a group and weighs the places for itself."""
        self.rows += rounded.shape[2]
        results = (weight.reshape(len(real), -1, weight.shape[2]) @ real).reshape(*weight.shape[:2], -1)
        weights = None if window is None else window.weights(results)
        groups = len(weight)
        chunk = max(_CHUNK_ELEMENTS // max(rounded.shape[1] * rounded.shape[2], 1), 1) if groups > 1 else 1
        sums = []
        for start in range(0, groups, chunk):
            part = slice(start, start + chunk)
            x, y = self._spread(rounded, part), self._spread(real, part)
            ours, theirs = (x, y) if weights is None else (x * weights[part], y * weights[part])
            self.square[part] += ours @ x.transpose(1, 2)
            self.cross[part] += ours @ y.transpose(1, 2)
            # float32 sums are pairwise, and far faster than those that widen each element
            sums.append((ours.sum(2).double(), theirs.sum(2).double()))
        own_rounded, own_real = (torch.cat(column) for column in zip(*sums, strict=True))
        weighed = results if weights is None else results * weights
        mass = torch.full((groups,), float(rounded.shape[2])) if weights is None else weights[:, 0].sum(1)
        own = ReaderMoments(mass.double(), own_rounded, own_real, weighed.sum(2).double())
        self.readers[reader] = self.readers[reader].merged(own) if reader in self.readers else own
        self.power += float((weighed * results).sum(dtype=torch.float64))

    def _spread(self, patches: Tensor, part: slice = slice(None)) -> Tensor:
        """Patches of the input's groups for the groups of the output."""
        groups, times = len(patches), self.product.groups * self.product.parts // len(patches)
        if times == 1:
            return patches[part]
        index = torch.arange(groups * times)[part] // times
        return patches.expand(len(index), -1, -1) if groups == 1 else patches[index]

    def merged(self, other: Moments) -> Moments:
        """Moments of the samples of both."""
        readers = dict(self.readers)
        for name, own in other.readers.items():
            readers[name] = readers[name].merged(own) if name in readers else own
        square, cross = self.square + other.square, self.cross + other.cross
        return Moments(self.product, square, cross, self.rows + other.rows, self.power + other.power, readers)

    def form(self, centred: frozenset[str]) -> Form:
        """Per-row averages, about the mean for the readers in `centred`, which have a bias to put it right."""
        square, cross, power = self.square.clone(), self.cross.clone(), self.power
        for own in (self.readers[name] for name in centred if name in self.readers):
            share = own.rounded / own.mass[:, None]
            square -= share[:, :, None] * own.rounded[:, None, :]
            cross -= share[:, :, None] * own.real[:, None, :]
            power -= float((own.results.square() / own.mass[:, None]).sum())
        return Form(square / self.rows, cross / self.rows, power / self.rows)

    def means(self, reader: str) -> tuple[Tensor, Tensor]:
        """E[x^] and E[x] `(G, K)` of one reader, weighed as the places were."""
        own = self.readers[reader]
        return own.rounded / own.mass[:, None], own.real / own.mass[:, None]


@dataclass(frozen=True)
class Form:
    """`square` H and `cross` (G, K, K), `power` E|y|^2 of the float layer."""

    square: Tensor
    cross: Tensor
    power: float

    def error(self, rounded: Tensor, real: Tensor) -> Tensor:
        """(G, O): squared error of weights `rounded` (G, O, K), less what does not depend on them."""
        return ((rounded @ self.square - 2 * real @ self.cross.transpose(1, 2)) * rounded).sum(-1)

    def relative_error(self, rounded: Tensor, real: Tensor) -> float:
        """E|D x^ - W x|^2 / E|W x|^2."""
        return max(float(self.error(rounded, real).sum()) + self.power, 0.0) / max(self.power, 1e-300)
