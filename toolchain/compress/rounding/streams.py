"""Two streams of activations side by side, the float model's and the quantized one's, carried through the graph part by
part, so that every layer learns from what the layers before it really give, and none is computed twice.

Only tensors still to be read are held: those of the quantized stream as the integers they are, those of the float
stream in float16 where they fit it. Samples are taken until `budget_bytes` would not hold the widest place of the
graph; the memory does not grow with the samples beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.evaluate import evaluate
from toolchain.engine.module import fake_quantize, rounded_activations
from toolchain.engine.run import as_tensors, runnable_batches, to_tensors
from toolchain.errors import SampleError
from toolchain.graph import DType, Graph, Node, mixes_samples
from toolchain.graph.cost import peak_activation_bytes
from toolchain.quantization import AffineParams, QuantizedGraph, dequantize, quantize

BUDGET_BYTES = 1 << 30
"""What both streams may hold."""

_STORED_BYTES = 4  # an element of both streams: float16 and, with room for what is not int8, another two

_HALF_RANGE = (1e-2, 3e4)


@dataclass(frozen=True)
class Stored:
    """A tensor as it is held, and how its values come back."""

    held: Tensor
    params: AffineParams | None = None

    def value(self) -> Tensor:
        if self.params is not None:
            scale, zero = float(self.params.scale.max()), float(self.params.zero_point.flat[0])
            return (self.held.float() - zero) * scale
        return self.held.float() if self.held.dtype is torch.float16 else self.held

    @classmethod
    def of(cls, value: Tensor, params: AffineParams | None = None) -> Stored:
        """`params` where the value lies on their grid."""
        if params is not None and params.dtype in (DType.INT8, DType.INT16):
            scale, zero = float(params.scale.max()), float(params.zero_point.flat[0])
            q = torch.clamp(torch.round(value / scale + zero), params.q_min, params.q_max)
            return cls(q.to(getattr(torch, params.dtype.value)), params)
        if value.dtype is torch.float32:
            size = float(value.abs().max()) if value.numel() else 0.0
            if _HALF_RANGE[0] < size < _HALF_RANGE[1]:
                return cls(value.half())
        return cls(value)


class Streams:
    """`real` and `rounded` hold, by tensor, one stored value a batch.

    `constants` are what the quantized stream computes with; whoever learns them puts the new ones in.
    """

    def __init__(
        self, model: QuantizedGraph, batches: Iterable[Sequence[np.ndarray]], budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self.graph = model.graph
        self.floats = as_tensors(model.graph.constants)
        self.constants = quantized_constants(model)
        self._params = model.params
        self._grids = rounded_activations(model.graph, model.params)
        self._last_use = {name: i for i, node in enumerate(self.graph.nodes) for name in node.inputs}
        self._index = {node.output: i for i, node in enumerate(self.graph.nodes)}
        self.real: dict[str, list[Stored]] = {name: [] for name in self.graph.input_names}
        self.rounded: dict[str, list[Stored]] = {name: [] for name in self.graph.input_names}
        self._units: list[tuple[int, int | None]] = []
        self._fill(runnable_batches(self.graph, batches), _affordable(self.graph, budget_bytes))
        if not self._units:
            raise SampleError("there is no sample to learn rounding from", hint="give some, or leave the rounding out")

    def _fill(self, batches: Iterable[Sequence[np.ndarray]], most: int) -> None:
        apart = mixes_samples(self.graph) is None
        left = most
        for number, batch in enumerate(batches):
            for name, tensor in zip(self.graph.input_names, to_tensors(batch), strict=True):
                cut = tensor[:left] if apart else tensor
                self.real[name].append(Stored.of(cut))
                self.rounded[name].append(self._store_rounded(name, self._round(name, cut)))
            rows = min(len(batch[0]), left) if apart else 1
            self._units += [(number, row if apart else None) for row in range(rows)]
            left -= len(batch[0])
            if left <= 0:
                break

    @property
    def units(self) -> int:
        """What can be read alone: samples, or whole batches of a graph that mixes their samples."""
        return len(self._units)

    def real_unit(self, name: str, unit: int) -> Tensor:
        return self.floats[name] if name in self.floats else self._unit(self.real[name], unit)

    def rounded_unit(self, name: str, unit: int) -> Tensor:
        return self.constants[name] if name in self.constants else self._unit(self.rounded[name], unit)

    def _unit(self, held: Sequence[Stored], unit: int) -> Tensor:
        batch, row = self._units[unit]
        stored = held[batch]
        return (stored if row is None else replace(stored, held=stored.held[row : row + 1])).value()

    @property
    def batches(self) -> int:
        return len(next(iter(self.real.values())))

    def fork(self) -> Streams:
        """The same place of the graph, to be carried on from there without moving this one."""
        other = object.__new__(Streams)
        other.__dict__.update(self.__dict__)
        other.real, other.rounded, other.constants = dict(self.real), dict(self.rounded), dict(self.constants)
        return other

    def real_value(self, name: str, batch: int) -> Tensor:
        return self.floats[name] if name in self.floats else self.real[name][batch].value()

    def rounded_value(self, name: str, batch: int) -> Tensor:
        return self.constants[name] if name in self.constants else self.rounded[name][batch].value()

    def advance(self, nodes: Iterable[Node], keep: frozenset[str] = frozenset()) -> None:
        """Carry both streams past `nodes`; what nobody reads later, and is not in `keep`, is let go."""
        with torch.no_grad():
            for node in nodes:
                real, rounded = [], []
                for batch in range(self.batches):
                    real.append(Stored.of(evaluate(node, [self.real_value(n, batch) for n in node.inputs])))
                    result = evaluate(node, [self.rounded_value(n, batch) for n in node.inputs])
                    rounded.append(self._store_rounded(node.output, self._round(node.output, result)))
                self.real[node.output], self.rounded[node.output] = real, rounded
                for name in {*node.inputs, node.output}:
                    if self._last_use.get(name, -1) <= self._index[node.output] and name not in keep:
                        self.real.pop(name, None)
                        self.rounded.pop(name, None)

    def hook(self) -> Callable[[str, Tensor], Tensor]:
        """Rounds activations as the quantized stream does."""
        return self._round

    def _round(self, name: str, value: Tensor) -> Tensor:
        params = self._grids.get(name)
        return value if params is None else fake_quantize(value, params)

    def _store_rounded(self, name: str, value: Tensor) -> Stored:
        return Stored.of(value, self._params.get(name))


def quantized_constants(model: QuantizedGraph, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Constants, all or those of `names`, as the integer graph computes with them, in float32."""
    names = model.graph.constants if names is None else names
    found: dict[str, np.ndarray] = {}
    for name in names:
        value = model.graph.constants[name]
        if name in model.corrections:
            value = value + model.corrections[name]
        if name in model.params:
            params = model.params[name]
            value = dequantize(quantize(value, params), params)
        found[name] = value
    return as_tensors(found)


def _affordable(graph: Graph, budget_bytes: int) -> int:
    """How many samples fit `budget_bytes` where the graph is widest; never fewer than one."""
    rows = max(graph.types[graph.input_names[0]].shape[:1] or (1,))
    widest = peak_activation_bytes(graph, _STORED_BYTES) / rows
    return max(int(budget_bytes / max(widest, 1)), rows)
