"""Element types of a file, looked at before Vela sees it.

Vela dies of a floating point exception on int4 weights, and takes a file that computes in float for one without work:
it ends well, with no operator on the NPU and a time of zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.backends.vela.operators import LAYERS, FileOperator
from toolchain.errors import UnsupportedError, raise_collected
from toolchain.graph import DType

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def check_dtypes(file: str, operators: Sequence[FileOperator]) -> None:
    """Raises UnsupportedError where weights are of 4 bits, where sums are left out by sparse storage, or where nothing
    of the file computes in integers."""
    narrow = [
        f"{operator.op} {operator.name}: {facts.name} is {facts.dtype}"
        for operator in operators
        for facts in operator.inputs
        if facts is not None and facts.dtype is DType.INT4
    ]
    raise_collected(
        UnsupportedError,
        f"{file} holds weights of 4 bits, which Ethos-U and its compiler do not take:",
        narrow,
        hint='numbers = "w8a8" in the quantize stage; a codebook of 16 values costs the NPU 4 bits a weight as well',
    )
    sparse = [
        facts.name for operator in operators for facts in operator.inputs if facts is not None and facts.is_sparse
    ]
    raise_collected(
        UnsupportedError,
        f"{file} stores weights without their zeros, which Vela ignores:",
        sparse,
        hint='sparse = "never" in the target or the export stage; the NPU\'s own encoding shortens zeros',
    )
    work = [operator for operator in operators if operator.op not in _CONVERSIONS]
    if work and not any(_computes_in_integers(operator) for operator in work):
        layers = [operator for operator in work if operator.op in LAYERS]
        weights = [operator.weight for operator in layers if operator.weight is not None]
        dynamic = bool(weights) and all(weight.dtype is DType.INT8 for weight in weights)
        what = "has integer weights but float activations (dynamic range)" if dynamic else "computes in float"
        raise UnsupportedError(
            f"{file} {what}: nothing of it would run on the NPU",
            hint='quantize activations as well: numbers = "w8a8" or "w8a16" in the quantize stage',
        )


def _computes_in_integers(operator: FileOperator) -> bool:
    tensors = (*operator.feature_maps, *operator.outputs)
    return not any(facts.dtype.is_float for facts in tensors)
