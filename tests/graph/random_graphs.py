"""Random small graphs for properties: blocks that folding has work with, and some that it must leave."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from toolchain.graph import Graph, parse_graph

CHANNELS, SIZE = 4, 6
MOST_BLOCKS = 8


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

    def _transposed(self, x: str) -> str:
        weight, bias = self.constant("4,4,3,3"), self.constant("4")
        return self.node(f"conv_transpose2d({x}, {weight}, {bias}) padding=(1,1,1,1)")

    def _attention(self, x: str) -> str:
        rows = self.node(f"reshape({x}) shape=(2,4,36)")
        columns = self.node(f"permute({rows}) axes=(0,2,1)")
        scores = self.node(f"softmax({self.node(f'matmul({rows}, {columns})')}) axis=2")
        return self.node(f"reshape({self.node(f'matmul({scores}, {rows})')}) shape=(2,4,6,6)")

    def _linear(self, x: str) -> str:
        weight, bias = self.constant("6,6"), self.constant("6")
        return self.node(f"linear({x}, {weight}, {bias}) activation=relu")

    def _layer_norm(self, x: str) -> str:
        return self.node(f"layer_norm({x}) axes=(3,) epsilon=0.01")

    def _smooth(self, x: str) -> str:
        return self.node(f"gelu({self.node(f'hardswish({x})')})")

    def _float_chain(self, x: str) -> str:
        grown = self.node(f"exp({self.node(f'tanh({x})')})")
        return self.node(f"log({self.node(f'sqrt({grown})')})")

    def _clamp(self, x: str) -> str:
        return self.node(f"clamp({x}) low=-1.0 high=1.5")

    def _prelu(self, x: str) -> str:
        return self.node(f"prelu({x}, {self.constant('4,1,1')})")

    def _pools(self, x: str) -> str:
        largest = self.node(f"max_pool2d({x}) kernel_size=(3,3) padding=(1,1,1,1)")
        return self.node(f"avg_pool2d({largest}) kernel_size=(3,3) padding=(1,1,1,1)")

    def _resize(self, x: str, mode: str = "nearest") -> str:
        small = self.node(f"max_pool2d({x}) kernel_size=(2,2) stride=(2,2)")
        return self.node(f"resize({small}) size=(6,6) mode={mode}")

    def _bilinear(self, x: str) -> str:
        return self._resize(x, "bilinear")

    def _shuffle(self, x: str) -> str:
        weight, bias = self.constant("16,4,3,3"), self.constant("16")
        deep = self.node(f"conv2d({x}, {weight}, {bias}) stride=(2,2) padding=(1,1,1,1)")
        return self.node(f"depth_to_space({deep}) block=2")

    def _gate(self, x: str) -> str:
        mean = self.node(f"mean({x}) axes=(2,3) keepdim=True")
        return self.node(f"mul({x}, {self.node(f'sigmoid({mean})')})")

    def _largest(self, x: str) -> str:
        return self.node(f"sub({x}, {self.node(f'reduce_max({x}) axes=(1,) keepdim=True')})")

    def _choice(self, x: str) -> str:
        other = self.made[0]
        return self.node(f"where({self.node(f'greater({x}, {other})')}, {x}, {other})")

    def _extremes(self, x: str) -> str:
        return self.node(f"maximum({self.node(f'minimum({x}, {self.made[0]})')}, {self.made[-1]})")

    def _quotient(self, x: str) -> str:
        below = self.node(f"add({self.node(f'abs({x})')}, {self.node(f'sigmoid({x})')})")
        return self.node(f"div({x}, {below})")

    def _halves(self, x: str) -> str:
        first = self.node(f"slice({x}) axes=(1,) starts=(0,) stops=(2,) steps=(1,)")
        second = self.node(f"slice({x}) axes=(1,) starts=(2,) stops=(4,) steps=(1,)")
        return self.node(f"concat({second}, {first}) axis=1")

    def _swap(self, x: str) -> str:
        swapped = self.node(f"permute({x}) axes=(0,1,3,2)")
        return self.node(f"add({swapped}, {x})")

    def _total(self, x: str) -> str:
        return self.node(f"add({x}, {self.node(f'sum({x}) axes=(1,) keepdim=True')})")

    def _reshape(self, x: str) -> str:
        flat = self.node(f"reshape({x}) shape=(2,144)")
        same = self.node(f"reshape({flat}) shape=(2,2,72)")
        return self.node(f"reshape({same}) shape=(2,4,6,6)")


_BLOCKS = tuple(
    name.removeprefix("_") for name, value in vars(_Writer).items() if name[:1] == "_" != name[1:2] and callable(value)
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to eight blocks; one tensor on the way may be an output too, which folding must keep."""
    writer = _Writer()
    for block in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=MOST_BLOCKS)):
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
            name: np.float32(0.5) + np.abs(array) if name in variances else array / np.float32(np.sqrt(_fan_in(array)))
            for name, array in graph.constants.items()
        }
    )


def _fan_in(array: np.ndarray) -> int:
    return int(array[0].size) if array.ndim in (2, 4) else 4
