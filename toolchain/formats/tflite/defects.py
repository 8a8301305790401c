"""Kernels known to give wrong results or to end the process: a file that would meet one is not run there."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.formats.tflite.parse import Operator, ParsedModel
from toolchain.graph import DType

# the sum of exponentials, in which the largest counts 1, has 9 bits before RoundingDivideByPOT asserts
_SOFTMAX_TERMS = 511


def known_defects(model: ParsedModel, kernels: str, package: str) -> list[str]:
    """One line for each operator that `kernels` of `package` cannot be trusted with."""
    found = [f"RESIZE_BILINEAR of int8 to {size} reads between the wrong pixels" for size in _drifting_resizes(model)]
    # the XNNPACK of tflite-runtime leaves int8 resizes to the plain kernel
    if kernels == "xnnpack":
        return found if package == "tflite_runtime" else []
    if kernels == "builtin":
        return found
    if any(facts.block is not None for facts in model.tensors):
        found.append("FULLY_CONNECTED with scales of blocks takes them for others")
    found += [f"SOFTMAX over {n} int8 values can end the process" for n in _long_softmaxes(model)]
    if package == "tflite_runtime" and any(_is_ranked_per_channel_linear(model, o) for o in model.operators):
        found.append("FULLY_CONNECTED with one scale a channel is wrong for inputs of rank 3 and more")
    return found


def _drifting_resizes(model: ParsedModel) -> list[tuple[int, ...]]:
    """Results of int8 resizes whose step, kept in 10 binary places, adds up to another pixel."""
    found = []
    for operator in model.operators:
        source, result = (model.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        if operator.name == "RESIZE_BILINEAR" and source.dtype is DType.INT8:
            # version 3 is that of half pixels, the versions before align corners or the first pixels
            corner = 0 if operator.version >= 3 else 1
            if resize_drifts(source.shape[1:3], result.shape[1:3], corner):
                found.append(result.shape[1:3])
    return found


def resize_drifts(before: Sequence[int], after: Sequence[int], corner: int) -> bool:
    """Whether the step between pixels of an int8 resize from height and width `before` to `after` is no multiple of
    2^-10; `corner` is 1 where corners are aligned."""
    return any(n > 1 and ((m - corner) << 10) % (n - corner) for m, n in zip(before, after, strict=True))


def _long_softmaxes(model: ParsedModel) -> list[int]:
    inputs = [model.tensors[o.inputs[0]] for o in model.operators if o.name == "SOFTMAX"]
    return [t.shape[-1] for t in inputs if t.dtype is DType.INT8 and t.shape[-1] > _SOFTMAX_TERMS]


def _is_ranked_per_channel_linear(model: ParsedModel, operator: Operator) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    weight, result = model.tensors[operator.inputs[1]], model.tensors[operator.outputs[0]]
    return weight.axis is not None and len(result.shape) != 2
