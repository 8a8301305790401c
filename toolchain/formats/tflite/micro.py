"""The operators that tflite-micro has kernels for, by the names of the schema.

The value is the method of `MicroMutableOpResolver` that adds the kernel to a firmware. Source: tflite-micro,
tensorflow/lite/micro/micro_mutable_op_resolver.h, as compiled into its Python package 0.dev20261023182759, which a test
asks.
"""

from __future__ import annotations

from typing import Final

_AS_WRITTEN: Final = (
    *("Abs", "Add", "AddN", "ArgMax", "ArgMin", "BroadcastArgs", "BroadcastTo", "Cast", "Ceil"),
    *("Concatenation", "Cos", "DepthToSpace", "Dequantize", "Div", "DynamicUpdateSlice", "Elu", "EmbeddingLookup"),
    *("Equal", "Exp", "ExpandDims", "Fill", "Floor", "FloorDiv", "FloorMod", "FullyConnected", "Gather", "GatherNd"),
    *("Greater", "GreaterEqual", "HardSwish", "LeakyRelu", "Less", "LessEqual", "Log", "LogSoftmax", "LogicalAnd"),
    *("LogicalNot", "LogicalOr", "Logistic", "Maximum", "Mean", "Minimum", "MirrorPad", "Mul", "Neg", "NotEqual"),
    *("Pack", "Pad", "Prelu", "Quantize", "ReduceAll", "ReduceMax", "ReduceMin", "Relu", "Relu6", "Reshape"),
    *("ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2", "Round", "Rsqrt", "SelectV2", "Shape", "Sin", "Slice"),
    *("Softmax", "SpaceToDepth", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze", "StridedSlice"),
    *("Sub", "Sum", "Svdf", "Tanh", "Transpose", "TransposeConv", "Unpack", "ZerosLike"),
)


def _schema_name(written: str) -> str:
    starts = [at for at, letter in enumerate(written) if at and letter.isupper()]
    parts = [written[start:stop] for start, stop in zip([0, *starts], [*starts, None], strict=True)]
    return "_".join(parts).upper()


KERNELS: Final[dict[str, str]] = {
    **{_schema_name(name): f"Add{name}" for name in _AS_WRITTEN},
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "BATCH_TO_SPACE_ND": "AddBatchToSpaceNd",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_NORMALIZATION": "AddL2Normalization",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
