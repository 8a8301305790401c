"""Weights of transposed convolutions: `(C_out, C_in / groups, kH, kW)` in the graph, in ONNX
`(C_in, C_out / groups, kH, kW)`.

A file holds them as ONNX has them, but for one case: with groups, output channel c lies at `[:, c % (C_out / groups)]`
of one group's rows, so that a scale for each lies along no axis. Such a weight stays as the graph has it and is
reordered behind its DequantizeLinear; so does one that other ops read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from toolchain.graph import Graph, Op
from toolchain.graph.types import Shape
from toolchain.quantization import AffineParams


def transposed_kernels(graph: Graph, params: Mapping[str, AffineParams | None]) -> dict[str, int]:
    """Constants that the file holds with input channels first, and the groups they are made of."""
    found = {}
    for name in graph.constants:
        readers = graph.consumers.get(name, ())
        groups = {reader["groups"] for reader in readers if _is_kernel_of(reader.op, reader.inputs, name)}
        others = any(not _is_kernel_of(reader.op, reader.inputs, name) for reader in readers)
        if len(groups) == 1 and not others:
            (count,) = groups
            kind = params.get(name)
            if count == 1 or kind is None or kind.axis is None:
                found[name] = int(count)
    return found


def _is_kernel_of(op: Op, inputs: tuple[str, ...], name: str) -> bool:
    return op is Op.CONV_TRANSPOSE2D and inputs[1] == name


def inputs_first(weight: np.ndarray, groups: int) -> np.ndarray:
    """The weight as ONNX has it."""
    split, shape = regrouped(weight.shape, groups)
    return np.ascontiguousarray(weight.reshape(split).transpose(SWAP).reshape(shape))


SWAP = (0, 2, 1, 3, 4)


def regrouped(shape: Shape, groups: int) -> tuple[Shape, Shape]:
    """The shape in which features and channels of each group stand beside each other, and ONNX's."""
    features, fan_in, *kernel = shape
    split = (groups, features // groups, fan_in, *kernel)
    return split, (groups * fan_in, features // groups, *kernel)


def inputs_first_params(params: AffineParams | None) -> AffineParams | None:
    """Scales of a weight without groups, whose output channels are then its second axis."""
    return params if params is None or params.axis is None else replace(params, axis=1)
