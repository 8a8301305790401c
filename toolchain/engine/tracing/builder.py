"""Collects nodes while an exported program is read, then names everything after the user's modules."""

from __future__ import annotations

import site
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from re import finditer
from typing import Any

import numpy as np
import torch
from torch import fx

from toolchain.engine.evaluate import evaluate
from toolchain.graph import DType, Graph, Node, Op, Source, TensorType, Value
from toolchain.graph.graph import unique_name
from toolchain.graph.shapes import SHAPE_RULES, result_dtype
from toolchain.graph.types import Attribute, Shape

_FRAME = r'File "(?P<file>[^"]+)", line (?P<line>\d+), in '
_TORCH = Path(torch.__file__).parent


class _Shapes(Mapping[str, Shape]):
    """The shapes of typed values."""

    def __init__(self, types: Mapping[str, TensorType]) -> None:
        self._types = types

    def __getitem__(self, name: str) -> Shape:
        return self._types[name].shape

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


class CannotLower(Exception):
    """An op the graph has no words for; the message says why. Collected by the tracer, never seen by a user."""


@dataclass
class GraphBuilder:
    """Values are named by their fx node while building; `finish` gives the names a user knows."""

    constants: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    source: Source = Source()
    wanted: tuple[TensorType, ...] = ()
    """What the exported program says of the results of the op being lowered."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that torch left open, by their symbols, once a rule has found them."""
    _known: dict[str, np.ndarray | None] = field(default_factory=dict)
    _rearranged: dict[tuple[str, Shape, tuple[int, ...], Shape], str] = field(default_factory=dict)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return _Shapes(self.types)

    def add(self, op: Op, *inputs: str, **attributes: Attribute) -> str:
        """Append a node; its result's (temporary) name."""
        name = f"%{len(self.nodes)}"
        given = [self.types[i] for i in inputs]
        try:
            node = Node(op, name, inputs, (name,), attributes, self.source)
            self.types[name] = TensorType(result_dtype(node, given), SHAPE_RULES[op](node, given))
        except (ValueError, IndexError) as error:
            raise CannotLower(str(error)) from error
        self.nodes.append(node)
        return name

    def constant(self, value: Any, name: str | None = None, dtype: DType = DType.FLOAT32) -> str:
        """Register an array (or a Python number, as `dtype`) under `name` or a name of its module's."""
        array = np.asarray(value, dtype.numpy) if isinstance(value, (int, float)) else np.asarray(value)
        wanted = name or ".".join(part for part in (self.source.module, "constant") if part)
        chosen = unique_name(wanted, self.constants)
        self.constants[chosen] = array
        self.types[chosen] = TensorType(DType.of(array), array.shape)
        return chosen

    def tensor(self, value: Any, dtype: DType) -> str:
        """A tensor of element type `dtype`: the one named `value`, cast where it is another, or a number."""
        if isinstance(value, (int, float)):
            return self.constant(value, dtype=dtype)
        return self.cast(str(value), dtype)

    def cast(self, name: str, dtype: DType) -> str:
        """`name` as `dtype`."""
        return name if self.types[name].dtype is dtype else self.add(Op.CAST, name, dtype=dtype.value)

    def producer(self, name: str) -> Node | None:
        """The node that made `name`; None for an input or constant."""
        return self.nodes[int(name[1:])] if name[:1] == "%" else None

    def value_of(self, name: str) -> np.ndarray | None:
        """What `name` holds where that does not depend on the inputs."""
        if name in self.constants or name in self._known:
            return self.constants.get(name, self._known.get(name))
        node = self.producer(name)
        given = [self.value_of(read) for read in node.inputs] if node is not None else [None]
        self._known[name] = None
        if node is not None and all(array is not None for array in given):
            with torch.no_grad():
                result = evaluate(node, [torch.from_numpy(np.array(array)) for array in given])
            self._known[name] = result.numpy()
        return self._known[name]

    def known(self, name: str, what: str) -> np.ndarray:
        """The value of `name`. Raises CannotLower, speaking of `what`, where it depends on the inputs."""
        value = self.value_of(name)
        if value is None:
            raise CannotLower(f"{what} must not depend on the input")
        return value

    def rearrange(self, weight: str, split: Shape, axes: tuple[int, ...], shape: Shape) -> str:
        """A weight reshaped to `split`, permuted by `axes` and reshaped to `shape`: at once where it is constant, so
        that it stays one constant under its own name."""
        if weight not in self.constants:
            return self.reshape(self.add(Op.PERMUTE, self.reshape(weight, split), axes=axes), shape)
        key = (weight, split, axes, shape)
        if key not in self._rearranged:
            array = self.constants[weight].reshape(split).transpose(axes).reshape(shape)
            self._rearranged[key] = self.constant(np.ascontiguousarray(array), weight)
        return self._rearranged[key]

    def _freed_names(self, outputs: Sequence[str]) -> dict[str, str]:
        """Rearranged constants -> the names of those they were made of, where nothing reads these any more."""
        read = {name for node in self.nodes for name in node.inputs} | set(outputs)
        wanted = {original: new for (original, *_), new in self._rearranged.items() if original not in read}
        return {new: original for original, new in wanted.items()}

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.add(Op.RESHAPE, name, shape=tuple(int(size) for size in shape))

    def finish(self, inputs: tuple[Value, ...], outputs: Sequence[str]) -> Graph:
        """The graph, each tensor named after the module that made it: `layer1.0.conv1`; where a module makes several,
        `layer1.0.add`, `layer1.0.add_1`, ..."""
        makers = Counter(node.source.module for node in self.nodes)
        taken = {value.name for value in inputs} | set(self.constants)
        names = self._freed_names(outputs)
        constants = {name: array for name, array in self.constants.items() if name not in names.values()}
        constants = {names.get(name, name): array for name, array in constants.items()}
        for node in self.nodes:
            module = node.source.module
            wanted = module if module and makers[module] == 1 else ".".join(part for part in (module, node.op) if part)
            names[node.output] = unique_name(wanted, taken)
            taken.add(names[node.output])
        renamed = [
            replace(
                node,
                name=names[node.output],
                inputs=tuple(names.get(i, i) for i in node.inputs),
                outputs=(names[node.output],),
            )
            for node in self.nodes
        ]
        return Graph(inputs, tuple(names.get(o, o) for o in outputs), tuple(renamed), constants)


def source_of(node: fx.Node) -> Source:
    """Deepest module path and the innermost line that is the user's, not torch's."""
    stack = node.meta.get("nn_module_stack") or {}
    module = next((path for path, _ in reversed(list(stack.values()))), "")
    frames = [(m["file"], int(m["line"])) for m in finditer(_FRAME, node.meta.get("stack_trace") or "")]
    file, line = next(((f, n) for f, n in reversed(frames) if not is_torch(f)), ("", 0))
    return Source(module.removeprefix("L['self']."), portable_path(file), line)


def is_torch(file: str) -> bool:
    """Whether a source file is torch's own (torchvision's is not)."""
    return Path(file).is_relative_to(_TORCH)


def portable_path(file: str) -> str:
    """A source file as it is written on any machine: relative to the working directory or to its package's folder."""
    roots = [Path.cwd(), *map(Path, site.getsitepackages()), *(Path(p) for p in sys.path if p)]
    matches = [str(Path(file).relative_to(root)) for root in roots if file and Path(file).is_relative_to(root)]
    return min(matches, key=len) if matches else Path(file).name
