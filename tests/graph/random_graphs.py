"""Random small graphs for properties: blocks that folding has work with, and some that it must leave."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from toolchain.graph import Graph, parse_graph

CHANNELS, SIZE = 4, 6
_BLOCKS = (
    "conv",
    "grouped",
    "depthwise",
    "norm",
    "relu",
    "relu6",
    "tanh",
    "pad",
    "add",
    "branch",
    "concat",
    "reshape",
)


class _Writer:
    """Lines of a graph's text; `last` is the tensor that the next block reads, always of (2, 4, 6, 6)."""

    def __init__(self) -> None:
        self.lines = [f"input x: float32[2,{CHANNELS},{SIZE},{SIZE}]"]
        self.last = "x"
        self.made = ["x"]

    def constant(self, shape: str) -> str:
        name = f"k{len(self.lines)}"
        self.lines.append(f"constant {name}: float32[{shape}]")
        return name

    def node(self, call: str) -> str:
        name = f"n{len(self.lines)}"
        self.lines.append(f"{name} = {call}")
        return name

    def add(self, block: str) -> None:
        self.last = getattr(self, f"_{block}")(self.last)
        self.made.append(self.last)

    def _conv(self, x: str, groups: int = 1) -> str:
        weight, bias = self.constant(f"4,{CHANNELS // groups},3,3"), self.constant("4")
        return self.node(f"conv2d({x}, {weight}, {bias}) groups={groups} padding=(1,1,1,1)")

    def _grouped(self, x: str) -> str:
        return self._conv(x, groups=2)

    def _depthwise(self, x: str) -> str:
        return self.node(f"depthwise_conv2d({x}, {self.constant('4,1,3,3')}) padding=(1,1,1,1)")

    def _norm(self, x: str) -> str:
        vectors = [self.constant("4") for _ in range(4)]
        return self.node(f"batch_norm({x}, {', '.join(vectors)})")

    def _relu(self, x: str) -> str:
        return self.node(f"relu({x})")

    def _relu6(self, x: str) -> str:
        return self.node(f"relu6({x})")

    def _tanh(self, x: str) -> str:
        return self.node(f"tanh({x})")

    def _pad(self, x: str) -> str:
        padded = self.node(f"pad({x}) amounts=(0,0,1,0,0,0,1,2)")
        return self.node(f"conv2d({padded}, {self.constant('4,4,3,3')})")

    def _add(self, x: str) -> str:
        return self.node(f"add({x}, {self.made[len(self.made) // 2]})")

    def _branch(self, x: str) -> str:
        left, right = self._norm(self._conv(x)), self._conv(x)
        return self.node(f"mul({left}, {self._tanh(right)})")

    def _concat(self, x: str) -> str:
        both = self.node(f"concat({x}, {self.made[0]}) axis=1")
        return self.node(f"conv2d({both}, {self.constant('4,8,1,1')})")

    def _reshape(self, x: str) -> str:
        flat = self.node(f"reshape({x}) shape=(2,144)")
        same = self.node(f"reshape({flat}) shape=(2,2,72)")
        return self.node(f"reshape({same}) shape=(2,4,6,6)")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to eight blocks; one tensor on the way may be an output too, which folding must keep."""
    writer = _Writer()
    for block in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=8)):
        writer.add(block)
    early = draw(st.sampled_from(writer.made[1:]))
    outputs = dict.fromkeys([writer.last, *([early] if draw(st.booleans()) else [])])
    return _scaled(
        parse_graph("\n".join([*writer.lines, f"output {', '.join(outputs)}"]), seed=draw(st.integers(0, 99)))
    )


def _scaled(graph: Graph) -> Graph:
    """Weights that keep activations near 1, variances that are positive."""
    variances = {node.inputs[4] for node in graph.nodes if node.op == "batch_norm"}
    return graph.with_constants(
        {
            name: np.float32(0.5) + np.abs(array) if name in variances else array / np.float32(np.sqrt(array[0].size))
            for name, array in graph.constants.items()
        }
    )
