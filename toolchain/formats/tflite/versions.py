"""The lowest version of each operator that holds its semantics, and the runtime that first ran it.

Older runtimes refuse a version they do not know, so a file asks for no more than it needs. The rules follow
`tensorflow/lite/tools/versioning/op_version.cc`, the runtimes `runtime_version.cc` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from ai_edge_litert.schema_py_generated import ActivationFunctionType
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.formats.tflite.flatbuffer import Operand
from toolchain.graph import DType

_RUNTIMES: Final[dict[int, dict[int, str]]] = {
    Builtin.ABS: {1: "1.13.0", 2: "2.4.0"},
    Builtin.ADD: {1: "1.5.0", 2: "1.14.0", 4: "2.6.0"},
    Builtin.ARG_MAX: {1: "1.9.0", 2: "1.14.0"},
    Builtin.ARG_MIN: {1: "1.9.0", 2: "1.14.0"},
    Builtin.AVERAGE_POOL_2D: {1: "1.5.0", 2: "1.14.0"},
    Builtin.BATCH_MATMUL: {1: "2.3.0", 2: "2.3.0"},
    Builtin.BROADCAST_TO: {2: "2.5.0", 3: "2.5.0"},
    Builtin.CAST: {1: "1.5.0"},
    Builtin.CEIL: {1: "1.14.0"},
    Builtin.CONCATENATION: {1: "1.5.0", 2: "1.14.0"},
    Builtin.CONV_2D: {1: "1.5.0", 3: "1.14.0", 4: "2.3.0", 5: "2.4.0", 6: "2.9.0", 7: "2.11.0"},
    Builtin.COS: {1: "1.14.0"},
    Builtin.CUMSUM: {1: "2.4.0"},
    Builtin.DEPTHWISE_CONV_2D: {1: "1.5.0", 2: "1.12.0", 3: "1.14.0", 5: "2.3.0", 6: "2.3.0", 7: "2.11.0"},
    # version 2 says that int8 is meant, which version 1 computes as well; the reference kernels know 1 alone
    Builtin.DEPTH_TO_SPACE: {1: "2.1.0"},
    Builtin.DENSIFY: {1: "2.2.0"},
    Builtin.DEQUANTIZE: {1: "1.13.1", 2: "1.14.0", 3: "1.14.0", 5: "2.7.0", 6: "2.11.0"},
    Builtin.DIV: {1: "1.6.0", 2: "2.3.0"},
    Builtin.ELU: {1: "1.14.0"},
    Builtin.EQUAL: {1: "1.14.0"},
    Builtin.EXP: {1: "1.7.0", 2: "2.12.0"},
    Builtin.FLOOR: {1: "1.9.0"},
    Builtin.FULLY_CONNECTED: {
        **{1: "1.5.0", 4: "1.14.0", 5: "2.0.0", 7: "2.3.0", 12: "2.17.0"},
        # int4 weights: known since 2.11, but the kernel of 2.14 still refuses them beside int8 activations
        10: "2.15.0",
        # what TensorFlow calls LiteRT 2.1
        14: "2.21.0",
    },
    Builtin.GATHER: {1: "1.6.0", 2: "1.14.0", 3: "1.15.0"},
    Builtin.GELU: {1: "2.9.0", 2: "2.9.0"},
    Builtin.GREATER: {1: "1.14.0"},
    Builtin.GREATER_EQUAL: {1: "1.14.0"},
    Builtin.HARD_SWISH: {1: "1.15.0"},
    Builtin.LEAKY_RELU: {1: "1.13.1"},
    Builtin.LESS: {1: "1.14.0"},
    Builtin.LESS_EQUAL: {1: "1.14.0"},
    Builtin.LOG: {1: "1.14.0"},
    Builtin.LOGICAL_AND: {1: "1.11.0"},
    Builtin.LOGICAL_NOT: {1: "1.11.0"},
    Builtin.LOGICAL_OR: {1: "1.11.0"},
    Builtin.LOGISTIC: {1: "1.14.0", 2: "1.14.0"},
    Builtin.LOG_SOFTMAX: {1: "1.14.0", 2: "1.14.0"},
    Builtin.MAXIMUM: {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"},
    Builtin.MAX_POOL_2D: {1: "1.5.0", 2: "1.14.0"},
    Builtin.MEAN: {1: "1.6.0", 2: "1.14.0"},
    Builtin.MIRROR_PAD: {1: "1.13.1", 2: "2.3.0"},
    Builtin.MINIMUM: {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"},
    Builtin.MUL: {1: "1.5.0", 2: "1.14.0", 3: "1.15.0", 5: "2.6.0"},
    Builtin.NEG: {1: "1.9.0"},
    Builtin.NOT_EQUAL: {1: "1.14.0"},
    Builtin.PAD: {1: "1.5.0", 2: "1.14.0", 4: "2.6.0"},
    Builtin.PADV2: {1: "1.9.0", 2: "1.14.0", 4: "2.6.0"},
    Builtin.POW: {1: "1.10.0"},
    Builtin.PRELU: {1: "1.8.0"},
    Builtin.QUANTIZE: {1: "1.14.0"},
    Builtin.REDUCE_MAX: {1: "1.11.0", 2: "1.14.0"},
    Builtin.REDUCE_MIN: {1: "1.11.0", 2: "1.14.0"},
    Builtin.RELU: {1: "1.5.0", 2: "2.1.0"},
    Builtin.RELU6: {1: "1.5.0", 2: "1.14.0"},
    Builtin.RESHAPE: {1: "1.5.0"},
    Builtin.RESIZE_BILINEAR: {1: "1.7.0", 2: "1.14.0", 3: "2.2.0"},
    Builtin.RESIZE_NEAREST_NEIGHBOR: {1: "1.13.1", 2: "1.14.0", 3: "2.3.0"},
    Builtin.ROUND: {1: "1.14.0"},
    Builtin.RSQRT: {1: "1.10.0", 2: "2.5.0"},
    Builtin.SELECT_V2: {1: "2.2.0"},
    Builtin.SIGN: {1: "2.12.0"},
    Builtin.SIN: {1: "1.9.0"},
    Builtin.SLICE: {1: "1.14.0", 2: "1.14.0", 5: "2.5.0"},
    Builtin.SOFTMAX: {1: "1.5.0", 2: "1.14.0"},
    Builtin.SPACE_TO_DEPTH: {1: "1.5.0", 2: "1.14.0"},
    Builtin.SQRT: {1: "1.10.0"},
    Builtin.STRIDED_SLICE: {1: "1.6.0", 2: "1.14.0", 4: "2.2.0"},
    Builtin.SUB: {1: "1.6.0", 2: "1.14.0", 3: "2.3.0", 4: "2.4.0"},
    Builtin.SUM: {1: "1.10.0", 2: "1.15.0"},
    Builtin.TANH: {1: "1.14.0", 2: "1.14.0"},
    Builtin.TOPK_V2: {1: "1.7.0", 2: "1.14.0"},
    Builtin.TRANSPOSE: {1: "1.6.0", 2: "1.14.0", 4: "2.3.0", 6: "2.10.0"},
    Builtin.TRANSPOSE_CONV: {3: "2.3.0", 4: "2.13.0"},
    Builtin.UNIDIRECTIONAL_SEQUENCE_LSTM: {1: "1.13.1"},
    Builtin.UNIDIRECTIONAL_SEQUENCE_RNN: {1: "1.14.0"},
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


_HALF_ACTIVATIONS: Final = "2.15.0"
"""No version of an operator tells float16 activations; the kernels of 2.14 refuse them."""


def oldest_runtime(codes: Iterable[tuple[int, int]], *, is_half: bool = False) -> str:
    """The oldest runtime that knows every (operator, version), and float16 activations where the file `is_half`."""
    known = [_RUNTIMES[code][version] for code, version in codes] + ([_HALF_ACTIVATIONS] if is_half else [])
    return max(known, key=_numbers, default="1.5.0")


def _numbers(runtime: str) -> tuple[int, ...]:
    return tuple(map(int, runtime.split(".")))


_WEIGHTED_VERSIONS: Final = {
    (DType.INT8, DType.INT8): (3, 3, 4),
    (DType.INT8, DType.INT4): (7, 7, 10),
    (DType.INT16, DType.INT8): (4, 5, 7),
    (DType.FLOAT32, DType.INT8): (5, 6, 12),
    (DType.FLOAT32, DType.INT4): (5, 6, 12),
}
"""Versions of CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED, by the types of activations and weights."""


def _conv_2d(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if inputs[0].shape[3] != inputs[1].shape[3]:  # groups
        return 6
    return _WEIGHTED_VERSIONS.get((inputs[0].dtype, inputs[1].dtype), (1, 1, 1))[0]


def _depthwise_conv_2d(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if version := _WEIGHTED_VERSIONS.get((inputs[0].dtype, inputs[1].dtype), (0, 0, 0))[1]:
        return version
    return 2 if (options.dilationHFactor, options.dilationWFactor) != (1, 1) else 1


def _fully_connected(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if inputs[1].params is not None and inputs[1].params.block is not None:
        # the runtimes that know version 13 and no later one crash, or compute something else without a word
        return 14
    version = _WEIGHTED_VERSIONS.get((inputs[0].dtype, inputs[1].dtype), (1, 1, 1))[2]
    return max(version, 5) if options.keepNumDims else version


def _dequantize(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    if inputs[0].params is not None and inputs[0].params.axis is not None:
        return 5
    return {DType.INT4: 6, DType.INT16: 3, DType.FLOAT16: 3}.get(inputs[0].dtype, 0)


def _mul(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    left, right = (operand.params for operand in inputs)
    if left is None or right is None or output.params is None:
        return 5 if output.dtype is DType.INT64 else 1
    return 3 if left.step * right.step / output.params.step >= 1 else 2


def _sub(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return 4 if output.dtype is DType.INT64 else _wide_broadcast(3)(inputs, output, options)


def _wide_broadcast(version: int) -> Special:
    """Operands of unlike shapes and more than four axes."""
    return lambda inputs, output, options: (
        version if len(output.shape) > 4 and inputs[0].shape != inputs[1].shape else 0
    )


def _of_type(dtype: DType, version: int) -> Special:
    return lambda inputs, output, options: version if inputs[0].dtype is dtype else 0


def _above_rank_4(version: int) -> Special:
    return lambda inputs, output, options: version if len(inputs[0].shape) > 4 else 0


def _transpose(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return {5: 4, 6: 6}.get(len(inputs[0].shape), 0)


def _transpose_conv(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return 3 if options.fusedActivationFunction == ActivationFunctionType.NONE else 4


def _resize(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return 3 if options.halfPixelCenters else 0


def _broadcast_to(inputs: Sequence[Operand], output: Operand, options: Any) -> int:
    return 3 if inputs[0].dtype in (DType.INT8, DType.INT16) else 2


_SPECIAL: Final[dict[int, Special]] = {
    Builtin.BROADCAST_TO: _broadcast_to,
    Builtin.ADD: _of_type(DType.INT64, 4),
    Builtin.CONV_2D: _conv_2d,
    Builtin.DEPTHWISE_CONV_2D: _depthwise_conv_2d,
    Builtin.DEQUANTIZE: _dequantize,
    Builtin.DIV: _wide_broadcast(2),
    Builtin.FULLY_CONNECTED: _fully_connected,
    Builtin.MAXIMUM: _wide_broadcast(3),
    Builtin.MINIMUM: _wide_broadcast(3),
    Builtin.MUL: _mul,
    Builtin.SUB: _sub,
    Builtin.PAD: _above_rank_4(4),
    Builtin.PADV2: _above_rank_4(4),
    Builtin.SLICE: _above_rank_4(5),
    Builtin.STRIDED_SLICE: _above_rank_4(4),
    Builtin.RESIZE_BILINEAR: _resize,
    Builtin.RESIZE_NEAREST_NEIGHBOR: _resize,
    Builtin.TRANSPOSE: _transpose,
    Builtin.TRANSPOSE_CONV: _transpose_conv,
}
