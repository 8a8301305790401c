"""Let an ONNX file take any batch.

One graph is written for two batches. What differs between the two files follows the batch: axis 0 of in- and outputs
and of the tensors between becomes the symbol `batch`, the batch in the shape of a Reshape becomes -1 (worked out), in
that of an Expand 1 (as it comes). Anything else that differs cannot follow, and is refused.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.graph import BATCHES

Written: TypeAlias = tuple[ModelProto, dict[str, np.ndarray]]
"""A model, and the values of the large constants that it only names."""

SYMBOL = "batch"
"""The name of axis 0."""

_INFERRED = {"Reshape": -1, "Expand": 1}
"""Ops whose second input is a shape, and what stands in it for the batch that comes."""


def follow_batch(one: Written, other: Written) -> None:
    """Make `one` take any batch; the two hold one graph, written for the two `BATCHES`.

    Raises UnsupportedError that names every node which cannot follow.
    """
    (first, large), (second, others) = one, other
    findings = _node_differences(first, second) or _follow_constants(first, second)
    findings += [f"the constant {name} holds the batch" for name in large if not _equal(large[name], others.get(name))]
    raise_collected(
        UnsupportedError, "this model cannot take a dynamic batch in ONNX:", findings, hint="leave out dynamic_batch"
    )
    for value in (*first.graph.input, *first.graph.output, *first.graph.value_info):
        size = value.type.tensor_type.shape.dim[0]
        assert size.dim_value == BATCHES[0], value.name
        size.dim_param = SYMBOL


def has_dynamic_batch(proto: ModelProto) -> bool:
    """Whether axis 0 of the file's inputs has no fixed size."""
    shapes = [value.type.tensor_type.shape.dim for value in proto.graph.input]
    return bool(shapes) and all(len(shape) and shape[0].HasField("dim_param") for shape in shapes)


def _node_differences(first: ModelProto, second: ModelProto) -> list[str]:
    if len(first.graph.node) != len(second.graph.node):
        return ["other nodes are written for another batch"]
    pairs = zip(first.graph.node, second.graph.node, strict=True)
    return [f"{_label(one)}: is written otherwise for another batch" for one, other in pairs if one != other]


def _follow_constants(first: ModelProto, second: ModelProto) -> list[str]:
    others = {tensor.name: tensor for tensor in second.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in first.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for tensor in first.graph.initializer:
        other = others.get(tensor.name)
        if other is None or tensor != other:
            found += [
                f"{_label(node)}: its constant {tensor.name} holds the batch"
                for node in readers.get(tensor.name, ())
                if other is None or not _follow(tensor, other, node)
            ]
    return found


def _follow(tensor: TensorProto, other: TensorProto, node: NodeProto) -> bool:
    """Exchange the batch in the shape that `node` reads, where it takes what stands for any."""
    inferred = _INFERRED.get(node.op_type)
    if inferred is None or node.input[1] != tensor.name or list(tensor.dims) != list(other.dims):
        return False
    sizes, others = numpy_helper.to_array(tensor), numpy_helper.to_array(other)
    differs = sizes != others
    if np.count_nonzero(differs) != 1 or (node.op_type == "Expand" and not differs[0]):
        return False
    tensor.raw_data = np.where(differs, inferred, sizes).astype("<i8").tobytes()
    return True


def _equal(values: np.ndarray, others: np.ndarray | None) -> bool:
    return others is not None and (values is others or np.array_equal(values, others))


def _label(node: NodeProto) -> str:
    return f"{node.op_type} {node.name}"
