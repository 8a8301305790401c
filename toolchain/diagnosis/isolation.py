"""A graph in which some nodes are quantized and the others are not.

What is quantized of a node are its constants (weight, bias with its correction, operands) and its result. Constants are
the reals their integers stand for, results pass through the fake quantization of `engine.module`: all nodes quantized
is the network that recovery trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.evaluate import evaluate
from toolchain.engine.module import fake_quantize, rounded_activations
from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.graph import Graph, Node, Op
from toolchain.quantization import QuantizedGraph, dequantize


class FloatGraph:
    """The float graph with its constants as tensors; `values` gives every activation of a run."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = as_tensors(graph.constants)
        self._reached = _reached_nodes(graph)

    def values(self, inputs: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Every activation by name."""
        found: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> Tensor:
            found[name] = value
            return value

        run(self.graph, to_tensors(inputs), constants=self.constants, hook=keep)
        return found

    def given(self, node: Node, values: Mapping[str, Tensor]) -> list[Tensor]:
        """Inputs of `node`: float constants, and activations of `values`."""
        return [self.constants[name] if name in self.constants else values[name] for name in node.inputs]

    def outputs_after(self, name: str, value: Tensor, floats: Mapping[str, Tensor]) -> list[Tensor]:
        """The graph's outputs where the activation `name` is `value` and all that does not follow from it is as in
        `floats`: only the nodes behind it are run."""
        changed = {name: value}
        behind = list(_bits(self._reached[name]))
        last_use = {given: index for index in behind for given in self.graph.nodes[index].inputs}
        for index in behind:
            node = self.graph.nodes[index]
            given = [
                self.constants[n] if n in self.constants else changed[n] if n in changed else floats[n]
                for n in node.inputs
            ]
            changed[node.output] = evaluate(node, given)
            for used in set(node.inputs):
                if last_use[used] == index and used not in self.graph.outputs:
                    changed.pop(used, None)
        known: dict[str, Tensor] = {**self.constants, **floats, **changed}
        return [known[output] for output in self.graph.outputs]

    def work_behind(self, name: str) -> int:
        """How many nodes `outputs_after` runs."""
        return self._reached[name].bit_count()


class QuantizedNodes:
    """What each node of `model` is when it is quantized. Tensors are told by name, so that a model whose graph differs
    from the float one only by `requantize` nodes and copies of constants may be asked about it."""

    def __init__(self, model: QuantizedGraph) -> None:
        self.model = model
        self.rounded = rounded_activations(model.graph, model.params)
        self._floats = as_tensors(model.graph.constants)
        self._held: dict[str, Tensor] = {}
        self._makers = {name: self._maker(name) for name in model.graph.producers}

    def has_constants(self, name: str) -> bool:
        """Whether the node that makes `name` has quantized constants."""
        return any(self._is_changed(given) for given in self._inputs(name))

    def is_quantized(self, name: str) -> bool:
        """Whether anything of the activation `name` and of the node that makes it is quantized."""
        return self.has_constants(name) or bool(self._grids(name))

    def constants(self, node: Node) -> list[Tensor | None]:
        """The quantized constants of `node`, by place among its inputs; None for what is no constant."""
        names = self._inputs(node.output)
        return [self._constant(name) if name in self._floats else None for name in names]

    def result(self, node: Node, given: Sequence[Tensor]) -> Tensor:
        """Result of `node` for `given` activations (constants among them are ignored), not yet rounded."""
        own = self.constants(node)
        return evaluate(node, [value if held is None else held for value, held in zip(given, own, strict=True)])

    def round(self, name: str, value: Tensor) -> Tensor:
        """`value` on the grid of the activation `name`, if it has one of its own."""
        for grid in self._grids(name):
            value = fake_quantize(value, self.model.params[grid])
        return value

    def values(self, inputs: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Every activation by name, with all nodes quantized."""
        graph = self.model.graph
        found = {n: self.round(n, value) for n, value in zip(graph.input_names, to_tensors(inputs), strict=True)}
        for node in graph.nodes:
            held = [self._constant(name) if name in self._floats else found[name] for name in node.inputs]
            value = evaluate(node, held)
            params = self.rounded.get(node.output)
            found[node.output] = value if params is None else fake_quantize(value, params)
        return found

    def is_same(self, name: str, other: QuantizedNodes) -> bool:
        """Whether the activation `name`, and the node that makes it, are quantized alike in another model."""
        ours, theirs = self._inputs(name), other._inputs(name)
        grids = [model.params[grid] for model, found in self._both(name, other) for grid in found]
        half = len(grids) // 2
        if len(grids) % 2 or grids[:half] != grids[half:] or len(ours) != len(theirs):
            return False
        pairs = zip(ours, theirs, strict=True)
        return all(_is_same_constant(self.model, one, other.model, two) for one, two in pairs)

    def _both(self, name: str, other: QuantizedNodes) -> Iterator[tuple[QuantizedGraph, list[str]]]:
        yield self.model, self._grids(name)
        yield other.model, other._grids(name)

    def _maker(self, name: str) -> Node:
        """The node that computes `name`, behind which there may be a requantize of its own."""
        node = self.model.graph.producers[name]
        while node.op is Op.REQUANTIZE and node.inputs[0] in self.model.graph.producers:
            node = self.model.graph.producers[node.inputs[0]]
        return node

    def _inputs(self, name: str) -> tuple[str, ...]:
        return self._makers[name].inputs if name in self._makers else ()

    def _grids(self, name: str) -> list[str]:
        """Names of the tensors whose grids the activation is rounded to, in order."""
        maker = self._makers.get(name)
        names = [name] if maker is None or maker.output == name else [maker.output, name]
        return [grid for grid in names if grid in self.rounded]

    def _is_changed(self, name: str) -> bool:
        is_given = name in self.model.params or name in self.model.corrections
        return is_given and self.model.graph.is_constant(name)

    def _constant(self, name: str) -> Tensor:
        if not self._is_changed(name):
            return self._floats[name]
        if name not in self._held:
            self._held[name] = torch.from_numpy(np.asarray(_held_reals(self.model, name)))
        return self._held[name]


def _held_reals(model: QuantizedGraph, name: str) -> np.ndarray:
    """What the stored constant stands for, float32."""
    if name in model.params:
        return dequantize(model.integers[name], model.params[name])
    corrected: np.ndarray = (model.graph.constants[name] + model.corrections[name]).astype(np.float32)
    return corrected


def _is_same_constant(one: QuantizedGraph, first: str, other: QuantizedGraph, second: str) -> bool:
    constants = one.graph.constants
    if first not in constants or second not in other.graph.constants:
        return first not in constants and second not in other.graph.constants
    pairs = (
        (constants[first], other.graph.constants[second]),
        (one.corrections.get(first), other.corrections.get(second)),
    )
    return one.params.get(first) == other.params.get(second) and all(_is_equal(a, b) for a, b in pairs)


def _is_equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None or one is other:
        return one is other
    return np.array_equal(one, other)


def _reached_nodes(graph: Graph) -> dict[str, int]:
    """Activation -> the nodes that depend on it, one bit each."""
    place = {node.output: index for index, node in enumerate(graph.nodes)}
    reached: dict[str, int] = {}
    for name in reversed(graph.activations):
        found = 0
        for reader in graph.consumers.get(name, ()):
            found |= 1 << place[reader.output] | reached[reader.output]
        reached[name] = found
    return reached


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
