"""The lowest version of each operator that holds its semantics, and the runtime that first ran it.

Older runtimes refuse a version they do not know, so a file asks for no more than it needs. The rules follow
`tensorflow/lite/tools/versioning/op_version.cc`, the runtimes `runtime_version.cc` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.graph import DType

_RUNTIMES: Final[dict[int, dict[int, str]]] = {
    Builtin.ADD: {1: "1.5.0", 2: "1.14.0"},
    Builtin.AVERAGE_POOL_2D: {1: "1.5.0", 2: "1.14.0"},
    Builtin.CONCATENATION: {1: "1.5.0", 2: "1.14.0"},
    Builtin.CONV_2D: {1: "1.5.0", 3: "1.14.0", 6: "2.9.0"},
    Builtin.DEPTHWISE_CONV_2D: {1: "1.5.0", 2: "1.12.0", 3: "1.14.0"},
    Builtin.DEQUANTIZE: {1: "1.13.1", 2: "1.14.0"},
    Builtin.FULLY_CONNECTED: {1: "1.5.0", 4: "1.14.0", 5: "2.0.0"},
    Builtin.HARD_SWISH: {1: "1.15.0"},
    Builtin.LEAKY_RELU: {1: "1.13.1"},
    Builtin.LOGISTIC: {1: "1.14.0", 2: "1.14.0"},
    Builtin.MAX_POOL_2D: {1: "1.5.0", 2: "1.14.0"},
    Builtin.MEAN: {1: "1.6.0", 2: "1.14.0"},
    Builtin.MUL: {1: "1.5.0", 2: "1.14.0", 3: "1.15.0"},
    Builtin.PAD: {1: "1.5.0", 2: "1.14.0", 4: "2.6.0"},
    Builtin.PADV2: {1: "1.9.0", 2: "1.14.0", 4: "2.6.0"},
    Builtin.QUANTIZE: {1: "1.14.0"},
    Builtin.RELU: {1: "1.5.0", 2: "2.1.0"},
    Builtin.RELU6: {1: "1.5.0", 2: "1.14.0"},
    Builtin.RESHAPE: {1: "1.5.0"},
    Builtin.SLICE: {1: "1.14.0", 2: "1.14.0", 5: "2.5.0"},
    Builtin.SOFTMAX: {1: "1.5.0", 2: "1.14.0"},
    Builtin.STRIDED_SLICE: {1: "1.6.0", 2: "1.14.0", 4: "2.2.0"},
    Builtin.SUB: {1: "1.6.0", 2: "1.14.0", 3: "2.3.0"},
    Builtin.TANH: {1: "1.14.0", 2: "1.14.0"},
    Builtin.TRANSPOSE: {1: "1.6.0", 2: "1.14.0", 4: "2.3.0", 6: "2.10.0"},
}

Special: TypeAlias = Callable[[Sequence[Operand], Operand, Any], int]


def lowest_version(code: int, inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    """Version of the operator `code` over these operands."""
    special = _SPECIAL.get(code)
    version = special(inputs, output, options) if special else 0
    if version:
        return version
    # version 2 is int8 wherever there is one; elsewhere int8 came with the operator or does not matter
    return 2 if inputs[0].dtype is DType.INT8 and 2 in _RUNTIMES[code] else 1


def oldest_runtime(codes: Iterable[tuple[int, int]]) -> str:
    """The oldest runtime that knows every (operator, version)."""
    return max((_RUNTIMES[code][version] for code, version in codes), key=_numbers, default="1.5.0")


def _numbers(runtime: str) -> tuple[int, ...]:
    return tuple(map(int, runtime.split(".")))


def _conv_2d(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if inputs[0].shape[3] != inputs[1].shape[3]:  # groups
        return 6
    return 3 if inputs[0].dtype is DType.INT8 else 1


def _depthwise_conv_2d(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if inputs[0].dtype is DType.INT8:
        return 3
    return 2 if (options.dilationHFactor, options.dilationWFactor) != (1, 1) else 1


def _fully_connected(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if options.keepNumDims:
        return 5
    return 4 if inputs[0].dtype is DType.INT8 else 1


def _mul(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    left, right = (operand.params for operand in inputs)
    if left is None or right is None or output.params is None:
        return 1
    return 3 if left.step * right.step / output.params.step >= 1 else 2


def _sub(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return 3 if len(output.shape) > 4 and inputs[0].shape != inputs[1].shape else 0


def _above_rank_4(version: int) -> Special:
    return lambda inputs, output, options: version if len(inputs[0].shape) > 4 else 0


def _transpose(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return {5: 4, 6: 6}.get(len(inputs[0].shape), 0)


_SPECIAL: Final[dict[int, Special]] = {
    Builtin.CONV_2D: _conv_2d,
    Builtin.DEPTHWISE_CONV_2D: _depthwise_conv_2d,
    Builtin.FULLY_CONNECTED: _fully_connected,
    Builtin.MUL: _mul,
    Builtin.SUB: _sub,
    Builtin.PAD: _above_rank_4(4),
    Builtin.PADV2: _above_rank_4(4),
    Builtin.SLICE: _above_rank_4(5),
    Builtin.STRIDED_SLICE: _above_rank_4(4),
    Builtin.TRANSPOSE: _transpose,
}
