"""Every op as text, in the variants its attributes allow; shared by the tests of graph and engine."""

from __future__ import annotations

import numpy as np

from toolchain.graph import Graph, Op, parse_graph

IMAGE = "input x: float32[2,4,7,6]\n"
PAIR = IMAGE + "input z: float32[2,4,7,6]\n"
ROWS = "input x: float32[3,5,8]\n"
NORM = "".join(f"constant {name}: float32[4]\n" for name in ("weight", "bias", "mean", "variance"))

CASES: dict[str, str] = {
    "conv2d": IMAGE + "constant w: float32[6,4,3,3]\ny = conv2d(x, w)\noutput y",
    "conv2d asymmetric padding": IMAGE
    + "constant w: float32[6,4,3,3]\nconstant b: float32[6]\n"
    + "y = conv2d(x, w, b) stride=(2,1) padding=(0,1,2,0) activation=relu\noutput y",
    "conv2d groups": IMAGE
    + "constant w: float32[6,2,2,3]\nconstant b: float32[6]\n"
    + "y = conv2d(x, w, b) groups=2 dilation=(2,1) padding=(1,1,1,1) activation=relu6\noutput y",
    "depthwise_conv2d": IMAGE
    + "constant w: float32[4,1,3,3]\nconstant b: float32[4]\n"
    + "y = depthwise_conv2d(x, w, b) padding=(1,1,1,1)\noutput y",
    "depthwise_conv2d multiplier": IMAGE
    + "constant w: float32[12,1,3,2]\nconstant b: float32[12]\n"
    + "y = depthwise_conv2d(x, w, b) stride=(1,2) padding=(0,0,1,2) dilation=(1,2) activation=relu\noutput y",
    "linear": "input x: float32[3,8]\nconstant w: float32[5,8]\nconstant b: float32[5]\n"
    + "y = linear(x, w, b) activation=relu6\noutput y",
    "linear over rows": ROWS + "constant w: float32[5,8]\ny = linear(x, w)\noutput y",
    "batch_norm": IMAGE + NORM + "y = batch_norm(x, weight, bias, mean, variance) epsilon=0.001\noutput y",
    "batch_norm of vectors": "input x: float32[3,4]\n"
    + NORM
    + "y = batch_norm(x, weight, bias, mean, variance)\noutput y",
    "relu": IMAGE + "y = relu(x)\noutput y",
    "relu6": IMAGE + "y = relu6(x)\noutput y",
    "leaky_relu": IMAGE + "y = leaky_relu(x) slope=0.2\noutput y",
    "sigmoid": IMAGE + "y = sigmoid(x)\noutput y",
    "tanh": IMAGE + "y = tanh(x)\noutput y",
    "hardswish": IMAGE + "y = hardswish(x)\noutput y",
    "softmax": IMAGE + "y = softmax(x) axis=1\noutput y",
    "add": PAIR + "y = add(x, z)\noutput y",
    "add broadcast": IMAGE + "constant c: float32[4,1,1]\ny = add(x, c) activation=relu6\noutput y",
    "sub": PAIR + "y = sub(x, z) activation=relu\noutput y",
    "sub from constant": IMAGE + "constant c: float32[]\ny = sub(c, x)\noutput y",
    "mul": PAIR + "y = mul(x, z)\noutput y",
    "mul gate": IMAGE + "input z: float32[2,4,1,1]\ny = mul(x, z) activation=relu\noutput y",
    "max_pool2d": IMAGE + "y = max_pool2d(x) kernel_size=(2,2) stride=(2,2)\noutput y",
    "max_pool2d padding": IMAGE + "y = max_pool2d(x) kernel_size=(3,3) stride=(2,2) padding=(1,0,1,2)\noutput y",
    "avg_pool2d": IMAGE + "y = avg_pool2d(x) kernel_size=(3,2) stride=(1,2)\noutput y",
    "avg_pool2d padding": IMAGE + "y = avg_pool2d(x) kernel_size=(3,3) stride=(2,1) padding=(1,0,0,2)\noutput y",
    "mean": IMAGE + "y = mean(x) axes=(2,3)\noutput y",
    "mean keepdim": ROWS + "y = mean(x) axes=(1,) keepdim=True\noutput y",
    "reshape": IMAGE + "y = reshape(x) shape=(2,168)\noutput y",
    "reshape splits": ROWS + "y = reshape(x) shape=(3,5,2,4)\noutput y",
    "permute": IMAGE + "y = permute(x) axes=(0,2,3,1)\noutput y",
    "concat": PAIR + "y = concat(x, z, x) axis=1\noutput y",
    "concat with a constant": IMAGE + "constant c: float32[2,1,7,6]\ny = concat(x, c) axis=1\noutput y",
    "pad": IMAGE + "y = pad(x) amounts=(0,1,2,0,0,0,1,3) value=-0.5\noutput y",
    "pad with infinity": IMAGE + "y = pad(x) amounts=(0,0,1,1,0,0,1,1) value=-inf\noutput y",
    "slice": IMAGE + "y = slice(x) axes=(1,3) starts=(1,0) stops=(4,6) steps=(1,2)\noutput y",
}


def op_of(case: str) -> Op:
    return Op(case.partition(" ")[0])


def case_graph(case: str) -> Graph:
    constants = {"variance": np.array([0.3, 1.0, 2.5, 0.05], np.float32)} if "variance" in CASES[case] else {}
    return parse_graph(CASES[case], constants)


def case_inputs(graph: Graph, batch: int | None = None, seed: int = 1) -> list[np.ndarray]:
    """Values on both sides of every activation's knees; `batch` replaces axis 0."""
    random = np.random.default_rng(seed)
    shapes = [((batch or v.type.shape[0]), *v.type.shape[1:]) for v in graph.inputs]
    return [(3 * random.standard_normal(shape)).astype(np.float32) for shape in shapes]
