"""Collects nodes while an exported program is read, then names everything after the user's modules."""

from __future__ import annotations

import site
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from re import finditer
from typing import Any

import numpy as np
import torch
from torch import fx

from toolchain.graph import Graph, Node, Op, Source, Value
from toolchain.graph.graph import unique_name
from toolchain.graph.types import Attribute, Shape

_FRAME = r'File "(?P<file>[^"]+)", line (?P<line>\d+), in '
_TORCH = Path(torch.__file__).parent


class CannotLower(Exception):
    """An op the graph has no words for; the message says why. Collected by the tracer, never seen by a user."""


@dataclass
class GraphBuilder:
    """Values are named by their fx node while building; `finish` gives the names a user knows."""

    constants: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    source: Source = Source()

    def add(self, op: Op, *inputs: str, **attributes: Attribute) -> str:
        """Append a node; its result's (temporary) name."""
        from toolchain.graph.shapes import SHAPE_RULES
        from toolchain.graph.types import DType, TensorType

        name = f"%{len(self.nodes)}"
        node = Node(op, name, inputs, (name,), attributes, self.source)
        given = [TensorType(DType.FLOAT32, self.shapes[i]) for i in inputs]
        try:
            self.shapes[name] = SHAPE_RULES[op](node, given)
        except (ValueError, IndexError) as error:
            raise CannotLower(str(error)) from error
        self.nodes.append(node)
        return name

    def constant(self, value: Any, name: str | None = None) -> str:
        """Register an array (or a Python number, as float32) under `name` or a name of its module's."""
        array = np.asarray(value, np.float32) if isinstance(value, (int, float)) else np.asarray(value)
        wanted = name or ".".join(part for part in (self.source.module, "constant") if part)
        chosen = unique_name(wanted, self.constants)
        self.constants[chosen] = array
        self.shapes[chosen] = array.shape
        return chosen

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        return self.add(Op.RESHAPE, name, shape=tuple(int(size) for size in shape))

    def finish(self, inputs: tuple[Value, ...], outputs: Sequence[str]) -> Graph:
        """The graph, each tensor named after the module that made it: `layer1.0.conv1`; where a module makes several,
        `layer1.0.add`, `layer1.0.add_1`, ..."""
        makers = Counter(node.source.module for node in self.nodes)
        taken = {value.name for value in inputs} | set(self.constants)
        names: dict[str, str] = {}
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
        return Graph(inputs, tuple(names.get(o, o) for o in outputs), tuple(renamed), self.constants)


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
