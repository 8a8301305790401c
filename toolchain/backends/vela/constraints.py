"""The compiler's own tables of constraints (`regor.tflite_operator_constraints`) as checks of one operator.

A table maps an operator's name to sentences; an operator that is not in it runs on the CPU. Each sentence that can fail
for what the TFLite writer writes has a check here, found by its beginning; numbers are read from the sentence, so that
one check serves every device. Sentences that always hold (`ALWAYS`) are named too: a test holds this list against the
tables, so that a new sentence of a new version is seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from toolchain.backends.vela.operators import FileOperator
from toolchain.backends.vela.shape_constraints import SHAPE_CHECKS
from toolchain.graph import DType

Check: TypeAlias = Callable[[FileOperator, str], str | None]
"""What is wrong with the operator by the sentence, or None."""

ALWAYS: Final = (
    "Only the first dimension of tensors can be dynamic",  # files for these devices have static shapes
    "Operations must have at least one",  # held by the reader
    "Quantization scale of any tensor must be positive",  # held by the reader
    "FullyConnected weights must be on the form",  # two axes are
    "num_splits must match",
    "Axis attribute is not supported",  # REVERSE_V2, which the writer has no use for
    *("Variable handle tensors", "Shape tensor must be constant", "Index tensor"),  # nor for variables and SCATTER_ND
    *("Implicit gate", "Peephole", "Projection", "Gate normalization"),  # an LSTM of integers is written step by step
)

_DTYPES: Final = {"Int8": DType.INT8, "UInt8": DType.UINT8, "Int16": DType.INT16}
_NAMES: Final = {"ARG_MAX": "ARGMAX"}  # where the tables do not speak as the file's schema does
_WIDE: Final = {"32": DType.INT32, "64": DType.INT64}


def find_clashes(operator: FileOperator, table: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Why the operator runs on the CPU, by the table of a device; nothing where it runs on the NPU."""
    sentences = table.get(_NAMES.get(operator.op, operator.op))
    if sentences is None:
        yield f"the NPU has no {operator.op}"
        return
    for sentence in sentences:
        check = check_of(sentence)
        why = check(operator, sentence) if check else None
        if why:
            yield why


def check_of(sentence: str) -> Check | None:
    """The check of a sentence; None where it always holds, or is not known."""
    return next((check for beginning, check in CHECKS.items() if sentence.startswith(beginning)), None)


def is_known(sentence: str) -> bool:
    """Whether the sentence is checked, or always holds."""
    return check_of(sentence) is not None or sentence.startswith(ALWAYS)


def _tensors(operator: FileOperator) -> list[tuple[str, DType]]:
    return [(facts.name, facts.dtype) for facts in (*operator.feature_maps, *operator.outputs)]


def _feature_map_dtypes(operator: FileOperator, sentence: str) -> str | None:
    known = {word.lower() for word in re.findall(r'"(\w+)"', sentence)}
    wrong = [(name, dtype) for name, dtype in _tensors(operator) if dtype.value.lower() not in known]
    return f"{wrong[0][0]} is {wrong[0][1]}, the NPU computes in {', '.join(sorted(known))}" if wrong else None


def _no_scalars(operator: FileOperator, sentence: str) -> str | None:
    found = [facts.name for facts in (*operator.feature_maps, *operator.outputs) if not facts.shape]
    return f"{found[0]} has no axes" if found else None


def _no_wide(operator: FileOperator, sentence: str) -> str | None:
    wide = _WIDE[sentence[:2]]
    return next((f"{name} is {dtype}" for name, dtype in _tensors(operator) if dtype is wide), None)


def _no_channel_scales(operator: FileOperator, sentence: str) -> str | None:
    found = [facts.name for facts in operator.feature_maps if facts.axis is not None]
    return f"{found[0]} has a scale a channel" if found else None


def _zero_points(operator: FileOperator, sentence: str) -> str | None:
    for facts in operator.feature_maps:
        if facts.dtype not in (DType.INT8, DType.UINT8) and any(facts.zero_point):
            return f"{facts.name} of {facts.dtype} has a zero point of {facts.zero_point[0]}"
    return None


def _has_params(operator: FileOperator, sentence: str) -> str | None:
    for facts in (*operator.feature_maps, *operator.outputs):
        if not facts.scale and facts.dtype in _DTYPES.values():  # whole numbers of 32 bits are taken as they are
            return f"{facts.name} has no scale and zero point"
    return None


def _constant_parameters(operator: FileOperator, sentence: str) -> str | None:
    beyond = operator.inputs[len(operator.feature_maps) :]
    found = [facts.name for facts in beyond if facts is not None and not facts.is_constant]
    return f"{found[0]} is computed, the NPU takes a constant" if found else None


def _weights_of_8_bits(operator: FileOperator, sentence: str) -> str | None:
    weight = operator.weight
    if weight is None or not weight.is_constant or weight.dtype in (DType.INT8, DType.UINT8):
        return None
    return f"{weight.name} is {weight.dtype}"


def _weight_sums(operator: FileOperator, sentence: str) -> str | None:
    weight = operator.values[1]
    limits = [int(number) for number in re.findall(r"exceed (\d+)", sentence)]
    if weight is None or len(limits) != 2:
        return None
    axis = 3 if operator.op == "DEPTHWISE_CONV_2D" else 0
    channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    largest = int(np.abs(channels.astype(np.int64)).sum(axis=1).max(initial=0))
    limit = limits[operator.feature_maps[0].dtype is DType.INT16]
    return (
        f"the magnitudes of a channel's weights add up to {largest:,}, at most {limit:,}" if largest > limit else None
    )


def _bias(operator: FileOperator) -> tuple[str, DType, bool] | None:
    facts = operator.inputs[-1] if len(operator.inputs) > 2 else None
    if facts is None or operator.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return None
    if operator.op == "TRANSPOSE_CONV" and len(operator.inputs) < 4:
        return None
    return facts.name, facts.dtype, facts.is_constant


def _bias_in_channels(operator: FileOperator, sentence: str) -> str | None:
    bias = operator.inputs[-1]
    if _bias(operator) is None or bias is None or all(size == 1 for size in bias.shape[:-1]):
        return None
    return f"{bias.name} is of shape {list(bias.shape)}"


def _bias_constant(operator: FileOperator, sentence: str) -> str | None:
    bias = _bias(operator)
    return f"{bias[0]} is computed, the NPU takes a constant" if bias and not bias[2] else None


def _bias_dtype(operator: FileOperator, sentence: str) -> str | None:
    bias = _bias(operator)
    return f"{bias[0]} is {bias[1]}" if bias and bias[1] not in (DType.INT32, DType.INT64) else None


def _bias_size(operator: FileOperator, sentence: str) -> str | None:
    bias, values = _bias(operator), operator.values[-1]
    limit = int(sentence.rsplit(" ", 1)[1])
    if bias is None or bias[1] is not DType.INT64 or values is None or np.abs(values).max(initial=0) < limit:
        return None
    return f"{bias[0]} holds {int(np.abs(values).max()):,}, it must be smaller than {limit:,}"


def _named_dtypes(operator: FileOperator, sentence: str) -> str | None:
    """`must be Int8 or Int16`, of inputs or also of what is made."""
    known = [dtype for word, dtype in _DTYPES.items() if re.search(rf"\b{word}\b", sentence)]
    tensors = _tensors(operator) if "OFM" in sentence else _tensors(operator)[:1]
    wrong = [f"{name} is {dtype}" for name, dtype in tensors if dtype not in known]
    return f"{wrong[0]}, the NPU computes {operator.op} in {' or '.join(map(str, known))}" if wrong else None


def _same_params(operator: FileOperator, sentence: str) -> str | None:
    made = operator.outputs[0]
    other = [f for f in operator.feature_maps if (f.scale, f.zero_point) != (made.scale, made.zero_point)]
    return f"{other[0].name} has another scale or zero point than {made.name}" if other else None


CHECKS: Final[dict[str, Check]] = {
    "Feature-map dataTypes must be one of": _feature_map_dtypes,
    "Tensors must have constant shape": _no_scalars,
    "32-bit feature-maps are not supported": _no_wide,
    "64-bit feature-maps are not supported": _no_wide,
    "Per-axis quantization is not supported": _no_channel_scales,
    "Zero-points must be 0": _zero_points,
    "IFM Zero-points must be in the range": _zero_points,
    "OFM Zero-points must be in the range": lambda operator, sentence: None,  # int8 and int16 lie within
    "Input(s), Output and Weight tensors must have quantization parameters": _has_params,
    "Parameter tensors must be constant": _constant_parameters,
    "Params tensor must be Int32 or Int64": lambda operator, sentence: None,  # the writer writes int32
    "Weight tensors must be 8-bit precision": _weights_of_8_bits,
    "Weigth sum constraints": _weight_sums,
    "Bias values must be stored in the channel axis": _bias_in_channels,
    "Bias tensors must be constant": _bias_constant,
    "Bias tensors precision must be Int32 or Int64": _bias_dtype,
    "Int64 bias must be smaller than": _bias_size,
    "IFM and OFM datatypes must match": _named_dtypes,
    "IFM must be Int8 or Int16": _named_dtypes,
    "IFM precision must be one of": _named_dtypes,
    "Both Input quantization parameters must match": _same_params,
    **SHAPE_CHECKS,
}
"""By the beginning of the sentence."""
