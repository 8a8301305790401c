"""Let the batch of a TFLite file be chosen where it is loaded.

One graph is written for two batches. What differs between the two files follows the batch: a size `k n` along an axis
of a tensor becomes -1 in its shape signature, the same size of a RESHAPE or SLICE becomes -1, which the interpreter
works out anew for every batch, and the same end of a STRIDED_SLICE is masked. Anything else that differs cannot
follow, and is refused.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import BuiltinOperator as Builtin

from toolchain.errors import UnsupportedError, raise_collected
from toolchain.formats.tflite.flatbuffer import ModelBuilder
from toolchain.graph import BATCHES

FIXED: Final = {
    Builtin.TRANSPOSE_CONV: "takes the whole size of its result, batch included, as a constant",
    Builtin.BROADCAST_TO: "takes the whole shape of its result, batch included, as a constant",
}
"""Operators that hold the batch in a constant for which TFLite knows no value that stands for any batch."""

_INFERRED: Final = {Builtin.RESHAPE: 1, Builtin.SLICE: 2}
"""Operators that take -1 for a size, and the input that holds the sizes."""

_END: Final = 2
"""The input of STRIDED_SLICE that says where it ends."""

_CODE_NAMES: Final = {code: name for name, code in vars(Builtin).items() if isinstance(code, int)}


def follow_batch(first: ModelBuilder, second: ModelBuilder, batch: int) -> None:
    """Make `first` take any batch; `first` and `second` hold one graph written for the two `BATCHES`, and `batch` is
    what the file is given as its shape until it is resized.

    Raises UnsupportedError that names every operator which cannot follow.
    """
    findings = _differences(first, second)
    if not findings:
        findings = [found for at in range(len(first.operators)) if (found := _follow(first, second, at))]
    raise_collected(
        UnsupportedError, "this model cannot take a dynamic batch in TFLite:", findings, hint="leave out dynamic_batch"
    )
    for tensor, other in zip(first.tensors, second.tensors, strict=True):
        _sign(tensor, other, batch)


def _differences(first: ModelBuilder, second: ModelBuilder) -> list[str]:
    """Where the two files are not the same operators on the same tensors."""
    if first.codes != second.codes or len(first.operators) != len(second.operators):
        return ["other operators are written for another batch"]
    if [(t.name, t.type, len(t.shape)) for t in first.tensors] != [
        (t.name, t.type, len(t.shape)) for t in second.tensors
    ]:
        return ["other tensors are written for another batch"]
    found = []
    for one, other in zip(first.operators, second.operators, strict=True):
        wiring = [(o.opcodeIndex, [*o.inputs], [*o.outputs], _plain(o.builtinOptions)) for o in (one, other)]
        if wiring[0] != wiring[1]:
            found.append(f"{_label(first, one)}: is written otherwise for another batch")
    return found


def _plain(options: Any) -> dict[str, Any]:
    """An operator's options, but for the shape of a RESHAPE, which its second input tells as well."""
    if options is None or isinstance(options, schema.ReshapeOptionsT):
        return {}
    return {key: np.asarray(value).tolist() for key, value in vars(options).items()}


def _follow(first: ModelBuilder, second: ModelBuilder, at: int) -> str | None:
    """Exchange the constants of an operator that hold the batch; or why that cannot be done."""
    operator = first.operators[at]
    code = first.codes[operator.opcodeIndex][0]
    for position, index in enumerate(operator.inputs):
        if index < 0 or not first.tensors[index].buffer:
            continue
        one, other = (builder.values(index) for builder in (first, second))
        if np.array_equal(one, other):
            continue
        if code == Builtin.STRIDED_SLICE and position == _END:
            # an axis that follows the batch is taken whole: to its end, wherever that is
            ends = one.view(np.int32) != other.view(np.int32)
            operator.builtinOptions.endMask |= sum(1 << int(axis) for axis in np.flatnonzero(ends))
            first.exchange_values(index, np.where(ends, 0, one.view(np.int32)).astype(np.int32))
            continue
        if _INFERRED.get(code) != position:
            return f"{_label(first, operator)}: {FIXED.get(code, 'reads a constant that holds the batch')}"
        sizes, others = one.view(np.int32), other.view(np.int32)
        if code == Builtin.RESHAPE and np.count_nonzero(sizes != others) != 1:
            return f"{_label(first, operator)}: the batch is in several axes of its result"
        inferred = np.where(sizes != others, -1, sizes).astype(np.int32)
        first.exchange_values(index, inferred)
        if isinstance(operator.builtinOptions, schema.ReshapeOptionsT):
            operator.builtinOptions.newShape = inferred
    return None


def _sign(tensor: Any, other: Any, batch: int) -> None:
    """The shape signature of a tensor, and its shape for `batch`: `k n` for a batch of n."""
    differs = tensor.shape != other.shape
    if differs.any():
        tensor.shapeSignature = np.where(differs, -1, tensor.shape).astype(np.int32)
        factors = (other.shape - tensor.shape) // (BATCHES[1] - BATCHES[0])
        tensor.shape = np.where(differs, factors * batch, tensor.shape).astype(np.int32)


def _label(builder: ModelBuilder, operator: Any) -> str:
    code = builder.codes[operator.opcodeIndex][0]
    return f"{_CODE_NAMES.get(code, code)} {builder.tensors[operator.outputs[0]].name}"
