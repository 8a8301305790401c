"""Text form of a graph, one node a line, written and read back: what tests and reviews look at.

    input x: float32[1,3,8,8]
    constant conv.weight: float32[4,3,3,3]
    conv = conv2d(x, conv.weight) padding=(1,1,1,1) activation=relu  -> float32[1,4,8,8]  # conv at net.py:12
    output conv

Attributes at their defaults are left out. The values of constants are not part of the text: `parse_graph` takes them,
or draws them from a seeded normal distribution.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import numpy as np

from toolchain.graph.graph import Graph
from toolchain.graph.node import Node
from toolchain.graph.ops import SIGNATURES, Op
from toolchain.graph.types import Attribute, DType, TensorType, Value

_TYPE = re.compile(r"(\w+)\[([\d,]*)\]")
_NODE = re.compile(r"(?P<outputs>\S+) = (?P<op>\w+)\((?P<inputs>[^)]*)\)(?P<rest>.*)")
_ATTRIBUTE = re.compile(r"(\w+)=(\([^)]*\)|\S+)")


def format_graph(graph: Graph, *, sources: bool = True) -> str:
    """The graph as text; `sources` adds the user's module and line to each node."""
    lines = [f"input {value.name}: {value.type}" for value in graph.inputs]
    lines += [f"constant {name}: {graph.types[name]}" for name in graph.constants]
    lines += [_format_node(graph, node, sources) for node in graph.nodes]
    return "\n".join([*lines, f"output {', '.join(graph.outputs)}"]) + "\n"


def _format_node(graph: Graph, node: Node, sources: bool) -> str:
    defaults = SIGNATURES[node.op].attributes
    shown = [f"{k}={_format_attribute(v)}" for k, v in node.attributes.items() if v != defaults[k]]
    call = f"{node.output} = {node.op}({', '.join(node.inputs)})"
    line = f"{' '.join([call, *shown])}  -> {graph.types[node.output]}"
    return f"{line}  # {node.source}" if sources else line


def _format_attribute(value: Attribute) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(str, value))}{',' if len(value) == 1 else ''})"
    return str(value)


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None, *, seed: int = 0) -> Graph:
    """Read the text form. Raises ValueError that carries the offending line."""
    random = np.random.default_rng(seed)
    inputs: list[Value] = []
    outputs: tuple[str, ...] = ()
    nodes: list[Node] = []
    known = dict(constants or {})
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "input":
            name, _, kind = rest.partition(": ")
            inputs.append(Value(name, _parse_type(kind)))
        elif keyword == "constant":
            name, _, kind = rest.partition(": ")
            parsed = _parse_type(kind)
            known.setdefault(name, random.standard_normal(parsed.shape).astype(parsed.dtype.numpy))
        elif keyword == "output":
            outputs = tuple(rest.split(", "))
        else:
            nodes.append(_parse_node(line))
    return Graph(tuple(inputs), outputs, tuple(nodes), known)


def _parse_type(text: str) -> TensorType:
    match = _TYPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a tensor type: {text!r}")
    return TensorType(DType(match[1]), tuple(int(size) for size in match[2].split(",") if size))


def _parse_node(line: str) -> Node:
    match = _NODE.fullmatch(line)
    if match is None:
        raise ValueError(f"not a node: {line!r}")
    pairs = _ATTRIBUTE.findall(match["rest"].partition("->")[0])
    attributes = {key: _parse_attribute(value) for key, value in pairs}
    inputs = tuple(name.strip() for name in match["inputs"].split(","))
    return Node(Op(match["op"]), match["outputs"], inputs, (match["outputs"],), attributes)


def _parse_attribute(text: str) -> Attribute:
    for read in (ast.literal_eval, float):  # float knows inf, which is no literal
        try:
            value: Attribute = read(text)
        except (ValueError, SyntaxError):
            continue
        return value
    return text
