"""Every op as text, in the variants its attributes allow; shared by the tests of graph and engine."""

from __future__ import annotations

import numpy as np

from toolchain.graph import DType, Graph, Op, parse_graph

IMAGE = "input x: float32[2,4,7,6]\n"
PAIR = IMAGE + "input z: float32[2,4,7,6]\n"
ROWS = "input x: float32[3,5,8]\n"
NORM = "".join(f"constant {name}: float32[4]\n" for name in ("weight", "bias", "mean", "variance"))
BOOLEANS = "input x: bool[2,4,7]\ninput z: bool[2,4,7]\n"

ELEMENTWISE = (
    *("elu", "softplus", "mish", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "sin", "cos", "floor", "ceil", "round"),
    *("sign", "erf", "requantize"),
)
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
POSITIVE = {Op.LOG, Op.SQRT, Op.RSQRT, Op.POW, Op.DIV}
"""Ops that have no value, or none that is finite, for some operands."""


def recurrent(gates: int) -> str:
    """Weights and biases of a recurrent layer of 6 hidden channels."""
    rows = 6 * gates
    weights = f"constant w: float32[{rows},8]\nconstant r: float32[{rows},6]\n"
    return weights + f"constant b: float32[{rows}]\nconstant d: float32[{rows}]\n"


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
    "conv_transpose2d": IMAGE
    + "constant w: float32[6,4,3,3]\n"
    + "y = conv_transpose2d(x, w) stride=(2,2) padding=(1,1,1,1) activation=relu\noutput y",
    "conv_transpose2d output padding": IMAGE
    + "constant w: float32[3,4,4,3]\nconstant b: float32[3]\n"
    + "y = conv_transpose2d(x, w, b) stride=(2,3) padding=(1,0,1,2) output_padding=(1,2)\noutput y",
    "conv_transpose2d groups": IMAGE
    + "constant w: float32[6,2,3,2]\nconstant b: float32[6]\n"
    + "y = conv_transpose2d(x, w, b) groups=2 stride=(2,1) dilation=(2,3) padding=(0,1,1,2) activation=relu6\noutput y",
    "linear": "input x: float32[3,8]\nconstant w: float32[5,8]\nconstant b: float32[5]\n"
    + "y = linear(x, w, b) activation=relu6\noutput y",
    "linear over rows": ROWS + "constant w: float32[5,8]\ny = linear(x, w)\noutput y",
    "lstm": ROWS + recurrent(4) + "y = lstm(x, w, r, b, d)\noutput y",
    "lstm backwards": ROWS
    + recurrent(4)
    + "constant h: float32[1,6]\ninput c: float32[3,6]\ny = lstm(x, w, r, b, d, h, c) reverse=True\noutput y",
    "lstm cell state": ROWS
    + recurrent(4)
    + "constant h: float32[1,6]\nconstant c: float32[1,6]\n"
    + "y = lstm(x, w, r, b, d, h, c) gives=cell\noutput y",
    "gru": ROWS + recurrent(3) + "y = gru(x, w, r, b, d)\noutput y",
    "gru backwards": ROWS + recurrent(3) + "input h: float32[3,6]\ny = gru(x, w, r, b, d, h) reverse=True\noutput y",
    "rnn": ROWS + recurrent(1) + "y = rnn(x, w, r, b, d)\noutput y",
    "rnn backwards": ROWS
    + recurrent(1)
    + "constant h: float32[1,6]\ny = rnn(x, w, r, b, d, h) reverse=True nonlinearity=relu\noutput y",
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
    **{op: IMAGE + f"y = {op}(x)\noutput y" for op in ELEMENTWISE},
    **{op: PAIR + f"y = {op}(x, z)\noutput y" for op in ("div", "pow", "minimum", "maximum")},
    **{op: PAIR + f"y = {op}(x, z)\noutput y" for op in COMPARISONS},
    **{op: BOOLEANS + f"y = {op}(x, z)\noutput y" for op in ("logical_and", "logical_or")},
    "logical_not": "input x: bool[2,4,7]\ny = logical_not(x)\noutput y",
    "prelu": IMAGE + "constant slope: float32[4,1,1]\ny = prelu(x, slope)\noutput y",
    "gelu": IMAGE + "y = gelu(x)\noutput y",
    "gelu tanh": IMAGE + "y = gelu(x) approximate=True\noutput y",
    "clamp": IMAGE + "y = clamp(x) low=-0.7 high=1.3\noutput y",
    "clamp above": IMAGE + "y = clamp(x) low=-inf high=1.3\noutput y",
    "log_softmax": IMAGE + "y = log_softmax(x) axis=1\noutput y",
    "maximum constant": IMAGE + "constant c: float32[4,1,1]\ny = maximum(x, c)\noutput y",
    "where": "input m: bool[2,1,7,6]\n" + PAIR + "y = where(m, x, z)\noutput y",
    "cast": "input x: bool[2,4,7]\ny = cast(x) dtype=float32\noutput y",
    "cast to integers": "input x: bool[2,4,7]\ny = cast(x) dtype=int64\noutput y",
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
    "pad reflect": IMAGE + "y = pad(x) amounts=(0,0,1,2,0,0,3,5) mode=reflect\noutput y",
    "pad replicate": IMAGE + "y = pad(x) amounts=(0,0,1,1,0,0,0,1) mode=replicate\noutput y",
    "pad replicate far": IMAGE + "y = pad(x) amounts=(0,1,2,0,0,0,9,3) mode=replicate\noutput y",
    "resize": IMAGE + "y = resize(x) size=(14,12) mode=nearest\noutput y",
    "resize nearest odd": IMAGE + "y = resize(x) size=(3,11) mode=nearest\noutput y",
    "resize bilinear": IMAGE + "y = resize(x) size=(14,12) mode=bilinear\noutput y",
    "resize bilinear odd": IMAGE + "y = resize(x) size=(10,3) mode=bilinear\noutput y",
    "resize corners": IMAGE + "y = resize(x) size=(13,4) mode=bilinear align_corners=True\noutput y",
    "depth_to_space": "input x: float32[2,12,3,4]\ny = depth_to_space(x) block=2\noutput y",
    "depth_to_space channels last": "input x: float32[2,12,3,4]\n"
    + "y = depth_to_space(x) block=2 channels_first=False\noutput y",
    "space_to_depth": "input x: float32[2,3,6,4]\ny = space_to_depth(x) block=2\noutput y",
    "space_to_depth channels last": "input x: float32[2,3,6,4]\n"
    + "y = space_to_depth(x) block=2 channels_first=False\noutput y",
    "gather": IMAGE + "constant places: int32[3]\ny = gather(x, places) axis=1\noutput y",
    "gather windows": IMAGE + "constant windows: int32[2,3]\ny = gather(x, windows) axis=2\noutput y",
    "gather rows of a table": "input x: int64[2,5]\nconstant t: float32[4,8]\ny = gather(t, x) axis=0\noutput y",
    "gather_elements": IMAGE + "input i: int64[2,3,7,6]\ny = gather_elements(x, i) axis=1\noutput y",
    "gather_elements of rows": ROWS + "input i: int32[3,5,2]\ny = gather_elements(x, i) axis=2\noutput y",
    "expand": "input x: float32[1,4,1,6]\ny = expand(x) shape=(1,4,7,6)\noutput y",
    "expand booleans": "input x: bool[1,1,3]\ny = expand(x) shape=(1,5,3)\noutput y",
    "slice": IMAGE + "y = slice(x) axes=(1,3) starts=(1,0) stops=(4,6) steps=(1,2)\noutput y",
}


CONSTANTS = {
    "variance": np.array([0.3, 1.0, 2.5, 0.05], np.float32),
    "places": np.array([3, 0, 2], np.int32),
    "windows": np.array([[0, 5, 2], [6, 1, 1]], np.int32),
}
"""Constants that cannot be just anything."""
CASES |= {
    "layer_norm": ROWS + "constant w: float32[8]\nconstant b: float32[8]\ny = layer_norm(x, w, b) axes=(2,)\noutput y",
    "layer_norm of images": IMAGE + "y = layer_norm(x) axes=(2,3) epsilon=0.001\noutput y",
    "rms_norm": ROWS + "constant w: float32[8]\ny = rms_norm(x, w) axes=(2,)\noutput y",
    "matmul": "input x: float32[2,4,5]\ninput z: float32[2,5,3]\ny = matmul(x, z)\noutput y",
    "sum": IMAGE + "y = sum(x) axes=(2,3)\noutput y",
    "sum keepdim": IMAGE + "y = sum(x) axes=(1,) keepdim=True\noutput y",
    "reduce_max": IMAGE + "y = reduce_max(x) axes=(1,)\noutput y",
    "reduce_min": IMAGE + "y = reduce_min(x) axes=(1,3) keepdim=True\noutput y",
    "argmax": IMAGE + "y = argmax(x) axis=1\noutput y",
    "argmin keepdim": IMAGE + "y = argmin(x) axis=3 keepdim=True\noutput y",
    "cumsum": ROWS + "y = cumsum(x) axis=1\noutput y",
    "topk_values": ROWS + "y = topk_values(x) axis=2 count=3\noutput y",
    "topk_indices": ROWS + "y = topk_indices(x) axis=1 count=2\noutput y",
}


def op_of(case: str) -> Op:
    return Op(case.partition(" ")[0])


def case_graph(case: str) -> Graph:
    constants = {name: array for name, array in CONSTANTS.items() if f"constant {name}:" in CASES[case]}
    return parse_graph(CASES[case], constants)


def case_inputs(graph: Graph, batch: int | None = None, seed: int = 1) -> list[np.ndarray]:
    """Values on both sides of every activation's knees, positive for ops that ask for it; `batch` replaces axis 0."""
    random = np.random.default_rng(seed)
    positive = bool(POSITIVE & {node.op for node in graph.nodes})
    shapes = [((batch or v.type.shape[0]), *v.type.shape[1:]) for v in graph.inputs]
    drawn = [3 * random.standard_normal(shape) for shape in shapes]
    drawn = [np.abs(values) + 0.1 for values in drawn] if positive else drawn
    return [_of_type(values, value.type.dtype) for value, values in zip(graph.inputs, drawn, strict=True)]


def _of_type(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Booleans of both kinds; whole numbers that are indices of four places."""
    if dtype is DType.BOOL:
        return values > 0
    return values.astype(dtype.numpy) if dtype.is_float else (np.abs(values) % 4).astype(dtype.numpy)
