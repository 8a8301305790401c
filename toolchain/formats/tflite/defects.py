"""Kernels known to give wrong results or to end the process: a file that would meet one is not run there."""

from __future__ import annotations

from toolchain.formats.tflite.parse import Operator, ParsedModel
from toolchain.graph import DType

# the sum of exponentials, in which the largest counts 1, has 9 bits before RoundingDivideByPOT asserts
_SOFTMAX_TERMS = 511


def known_defects(model: ParsedModel, kernels: str, package: str) -> list[str]:
    """One line for each operator that `kernels` of `package` cannot be trusted with."""
    if kernels != "reference":
        return []
    found = [f"SOFTMAX over {n} int8 values can end the process" for n in _long_softmaxes(model)]
    if package == "tflite_runtime" and any(_is_ranked_per_channel_linear(model, o) for o in model.operators):
        found.append("FULLY_CONNECTED with one scale a channel is wrong for inputs of rank 3 and more")
    return found


def _long_softmaxes(model: ParsedModel) -> list[int]:
    inputs = [model.tensors[o.inputs[0]] for o in model.operators if o.name == "SOFTMAX"]
    return [t.shape[-1] for t in inputs if t.dtype is DType.INT8 and t.shape[-1] > _SOFTMAX_TERMS]


def _is_ranked_per_channel_linear(model: ParsedModel, operator: Operator) -> bool:
    if operator.name != "FULLY_CONNECTED":
        return False
    weight, result = model.tensors[operator.inputs[1]], model.tensors[operator.outputs[0]]
    return weight.axis is not None and len(result.shape) != 2
