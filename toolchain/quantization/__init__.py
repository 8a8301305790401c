"""Scheme, statistics, affine arithmetic and the integer specification. numpy only: importable on a device."""

from toolchain.quantization.affine import (
    AffineParams,
    asymmetric_params,
    dequantize,
    half,
    pack_int4,
    quantize,
    symmetric_params,
    unpack_int4,
)
from toolchain.quantization.assign import assign_params, refit_weights
from toolchain.quantization.groups import shared_groups
from toolchain.quantization.islands import find_float_nodes
from toolchain.quantization.quantized import QuantizedGraph, clamp_integers, clamp_is_implied
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.scheme import NUMBERS, Granularity, NumberFormat, Numbers, Reals, Scheme
from toolchain.quantization.statistics import TensorStatistics

__all__ = [
    "NUMBERS",
    "QUANTIZATION_RULES",
    "AffineParams",
    "Granularity",
    "Kind",
    "NumberFormat",
    "Numbers",
    "QuantizedGraph",
    "Reals",
    "Scheme",
    "TensorStatistics",
    "assign_params",
    "asymmetric_params",
    "clamp_integers",
    "clamp_is_implied",
    "dequantize",
    "find_float_nodes",
    "half",
    "pack_int4",
    "quantize",
    "refit_weights",
    "shared_groups",
    "symmetric_params",
    "unpack_int4",
]
