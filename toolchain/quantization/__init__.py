"""Scheme, statistics, affine arithmetic and the integer specification. numpy only: importable on a device."""

from toolchain.quantization.affine import AffineParams, asymmetric_params, dequantize, quantize, symmetric_params
from toolchain.quantization.assign import assign_params, refit_weights, shared_groups
from toolchain.quantization.quantized import QuantizedGraph, clamp_integers, clamp_is_implied
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.scheme import Granularity, Scheme
from toolchain.quantization.statistics import TensorStatistics

__all__ = [
    "QUANTIZATION_RULES",
    "AffineParams",
    "Granularity",
    "Kind",
    "QuantizedGraph",
    "Scheme",
    "TensorStatistics",
    "assign_params",
    "asymmetric_params",
    "clamp_integers",
    "clamp_is_implied",
    "dequantize",
    "quantize",
    "refit_weights",
    "shared_groups",
    "symmetric_params",
]
