"""The operators of a TFLite file as the NPU's rules speak of them: tensors, attributes, multiply-accumulates.

Multiply-accumulates come from the shapes in the bytes, so that operators on the CPU count as well:

    CONV_2D, DEPTHWISE_CONV_2D   elements of the result x kernel height x width x input channels of a filter
    TRANSPOSE_CONV               elements of the input x kernel height x width x output channels
    FULLY_CONNECTED              elements of the result x features of the input
    BATCH_MATMUL                 elements of the result x the axis that is summed over

All others have none: what they add or multiply is no product of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from toolchain.formats.artifact import TensorFacts
from toolchain.formats.tflite.parse import ParsedModel, parse

_WINDOW: Final = {"padding": "Padding", "stride_h": "StrideH", "stride_w": "StrideW"}
_DILATION: Final = {"dilation_h": "DilationHFactor", "dilation_w": "DilationWFactor"}
_POOL: Final = _WINDOW | {"kernel_h": "FilterHeight", "kernel_w": "FilterWidth"}
_RESIZE: Final = {"align_corners": "AlignCorners", "half_pixel_centers": "HalfPixelCenters"}

_ATTRIBUTES: Final[dict[str, tuple[Any, Mapping[str, str]]]] = {
    "CONV_2D": (schema.Conv2DOptions, _WINDOW | _DILATION),
    "DEPTHWISE_CONV_2D": (schema.DepthwiseConv2DOptions, _WINDOW | _DILATION),
    "TRANSPOSE_CONV": (schema.TransposeConvOptions, _WINDOW),
    "MAX_POOL_2D": (schema.Pool2DOptions, _POOL),
    "AVERAGE_POOL_2D": (schema.Pool2DOptions, _POOL),
    "RESIZE_BILINEAR": (schema.ResizeBilinearOptions, _RESIZE),
    "RESIZE_NEAREST_NEIGHBOR": (schema.ResizeNearestNeighborOptions, _RESIZE),
    "BATCH_MATMUL": (schema.BatchMatMulOptions, {"transposed": "AdjX"}),
    "GATHER": (schema.GatherOptions, {"axis": "Axis", "batch_dims": "BatchDims"}),
}
VALID: Final = int(schema.Padding.VALID)

LAYERS: Final = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 0, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 2}
"""Operators with a weight (input 1) and a bias, and which input is their feature map."""

ARITHMETIC: Final = frozenset(
    {
        *("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"),
        *("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"),
    }
)
"""Operators that compute element by element from two tensors."""

_ALL_INPUTS: Final = 1 << 30
_FEATURE_MAPS: Final = {
    **dict.fromkeys(("CONCATENATION", "PACK"), _ALL_INPUTS),
    **dict.fromkeys((*ARITHMETIC, "PRELU", "LOGICAL_AND", "LOGICAL_OR", "BATCH_MATMUL"), 2),
    **dict.fromkeys(("SELECT", "SELECT_V2"), 3),
}
"""How many of an operator's first inputs are feature maps; one where nothing is said."""


@dataclass(frozen=True)
class FileOperator:
    """One operator of the file; `inputs` and `values` are None where an input is left out, values also where it is no
    constant."""

    op: str
    inputs: tuple[TensorFacts | None, ...]
    outputs: tuple[TensorFacts, ...]
    values: tuple[np.ndarray | None, ...] = field(repr=False, default=())
    attributes: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The tensor it makes, as Vela names it."""
        return self.outputs[0].name

    @property
    def feature_maps(self) -> tuple[TensorFacts, ...]:
        """Inputs that are no weights and no parameters."""
        if self.op in LAYERS:
            found = self.inputs[LAYERS[self.op] : LAYERS[self.op] + 1]
        elif self.op == "SPLIT":
            found = self.inputs[1:2]
        else:
            found = self.inputs[: _FEATURE_MAPS.get(self.op, 1)]
        return tuple(facts for facts in found if facts is not None)

    @property
    def weight(self) -> TensorFacts | None:
        """The weight of a layer, constant or not."""
        return self.inputs[1] if self.op in LAYERS else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        made, source = prod(self.outputs[0].shape), self.feature_maps[0].shape
        if self.weight is not None:
            shape = self.weight.shape
            if self.op == "DEPTHWISE_CONV_2D":
                return made * prod(shape[1:3])
            if self.op == "TRANSPOSE_CONV":
                return prod(source) * shape[0] * prod(shape[1:3])
            return made * prod(shape[1:])
        if self.op == "BATCH_MATMUL":
            return made * source[-2 if self.attributes.get("transposed") else -1]
        return 0


def read_operators(content: bytes) -> tuple[FileOperator, ...]:
    """The operators in the file's order. Raises OptionError where the file is damaged, UnsupportedError where it is
    beyond the toolchain."""
    model = parse(content)
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    return tuple(_operator(model, graph.Operators(index), index, content) for index in range(len(model.operators)))


def _operator(model: ParsedModel, stored: Any, index: int, content: bytes) -> FileOperator:
    operator = model.operators[index]
    attributes = {}
    if operator.name in _ATTRIBUTES and stored.BuiltinOptions() is not None:
        kind, fields = _ATTRIBUTES[operator.name]
        options = kind()
        options.Init(content, stored.BuiltinOptions().Pos)
        attributes = {name: int(getattr(options, method)()) for name, method in fields.items()}
    inputs = tuple(None if at < 0 else model.tensors[at] for at in operator.inputs)
    values = tuple(model.values.get(at) for at in operator.inputs)
    return FileOperator(operator.name, inputs, tuple(model.tensors[at] for at in operator.outputs), values, attributes)
