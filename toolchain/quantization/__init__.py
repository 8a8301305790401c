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
from toolchain.quantization.blocks import block_notes, block_sizes
from toolchain.quantization.groups import shared_groups
from toolchain.quantization.islands import find_float_nodes
from toolchain.quantization.quantized import (
    QuantizedGraph,
    clamp_integers,
    clamp_is_implied,
    dequantize_outputs,
    quantize_inputs,
)
from toolchain.quantization.range_methods import RangeMethod, choose_range, mse_weight_bounds
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
    "RangeMethod",
    "Reals",
    "Scheme",
    "TensorStatistics",
    "assign_params",
    "asymmetric_params",
    "block_notes",
    "block_sizes",
    "choose_range",
    "clamp_integers",
    "clamp_is_implied",
    "dequantize",
    "dequantize_outputs",
    "find_float_nodes",
    "half",
    "mse_weight_bounds",
    "pack_int4",
    "quantize",
    "quantize_inputs",
    "refit_weights",
    "shared_groups",
    "symmetric_params",
    "unpack_int4",
]
