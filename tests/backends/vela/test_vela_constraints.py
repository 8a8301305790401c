"""Each check of the compiler's sentences, on both sides of what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolchain.backends.vela.constraints import CHECKS, check_of, find_clashes, is_known
from toolchain.backends.vela.operators import FileOperator
from toolchain.formats.artifact import TensorFacts
from toolchain.graph import DType

VALID, SAME = 1, 0


def tensor(*shape: int, dtype: DType = DType.INT8, **given: Any) -> TensorFacts:
    found = {"name": "t", "is_constant": False, "scale": (0.5,), "zero_point": (0,), **given}
    return TensorFacts(dtype=dtype, shape=shape, **found)


def operator(op: str, *inputs: TensorFacts | np.ndarray, made: TensorFacts | None = None, **attributes: int) -> Any:
    """An array among the inputs is a constant of its values."""
    known = {np.dtype("int8"): DType.INT8, np.dtype("int32"): DType.INT32, np.dtype("int64"): DType.INT64}
    facts = tuple(
        tensor(*one.shape, dtype=known[one.dtype], is_constant=True) if isinstance(one, np.ndarray) else one
        for one in inputs
    )
    values = tuple(one if isinstance(one, np.ndarray) else None for one in inputs)
    return FileOperator(op, facts, (made or tensor(1, 4, 4, 8),), values, attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


IMAGE = tensor(1, 8, 8, 8)
WEIGHT, BIAS = np.ones((8, 3, 3, 8), np.int8), np.zeros(8, np.int32)
LINE = tensor(1, 1, 8, 8)
CONV = {"padding": VALID, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}
CORNERS = {"align_corners": 1, "half_pixel_centers": 0}
HALVES = {"align_corners": 0, "half_pixel_centers": 1}


def conv(weight: Any = WEIGHT, bias: Any = BIAS, image: TensorFacts = IMAGE, **attributes: int) -> FileOperator:
    return operator("CONV_2D", image, weight, bias, **{**CONV, **attributes})


def resize(
    after: int, op: str = "RESIZE_BILINEAR", width: int | None = None, image: TensorFacts = IMAGE, **attributes: int
) -> FileOperator:
    return operator(op, image, ints(after, after), made=tensor(1, after, width or after, 8), **attributes)


U55_BILINEAR = "IF not (IFM H == IFM W == 1) AND not ...:\n - IF half pixel centers:\n - needs 2x - 2x/4x/8x"
U55_NEAREST = "IF NOT (IFM H == IFM W == 1) AND NOT ...: one of: 2x/4x/8x"
SUMS = "Weigth sum constraints:\n - 8-bit: cannot exceed 100\n - 16-bit: cannot exceed 50"
MATMUL = "IF Matmul or (FC with dynamic weights): "
WIDE = tensor(1, 8, 8, 70000)
PAIRS: list[tuple[str, FileOperator, FileOperator]] = [
    ('Feature-map dataTypes must be one of {"INT8"}', conv(), conv(image=tensor(1, 8, 8, 8, dtype=DType.FLOAT32))),
    ("64-bit feature-maps are", conv(), operator("ABS", tensor(4, dtype=DType.INT64))),
    ("32-bit feature-maps are", conv(), operator("ABS", tensor(4, dtype=DType.INT32))),
    ("Tensors must have constant shape", conv(), operator("ABS", IMAGE, made=tensor())),
    ("Per-axis quantization is", conv(), operator("ABS", tensor(1, 2, axis=1, scale=(1.0, 2.0), zero_point=(0, 0)))),
    ("Zero-points must be 0", conv(), operator("ABS", tensor(2, dtype=DType.INT16, zero_point=(3,)))),
    ("Input(s), Output and Weight tensors must have quant", conv(), operator("ABS", tensor(2, scale=()))),
    ("Parameter tensors must be constant", operator("PAD", IMAGE, ints(1)), operator("PAD", IMAGE, tensor(4, 2))),
    ("Weight tensors must be 8-bit precision", conv(), conv(np.ones((8, 3, 3, 8), np.int32))),
    (SUMS, conv(), conv(2 * WEIGHT)),
    (SUMS, conv(WEIGHT[:, :2, :2]), conv(image=tensor(1, 8, 8, 8, dtype=DType.INT16))),
    ("Bias values must be stored in the channel axis", conv(), conv(bias=np.zeros((8, 2), np.int32))),
    ("Bias tensors must be constant", conv(), conv(bias=tensor(8, dtype=DType.INT32))),
    ("Bias tensors precision must be Int32 or Int64", conv(), conv(bias=np.zeros(8, np.int8))),
    ("Int64 bias must be smaller than 9", conv(bias=np.full(8, 8)), conv(bias=np.full(8, -9))),
    ("IFM and OFM datatypes must match, and must be Int8", conv(), operator("ELU", tensor(2, dtype=DType.INT16))),
    ("IFM must be Int8 or Int16", conv(), operator("RSQRT", tensor(2, dtype=DType.INT32))),
    ("Both Input quantization parameters", conv(), operator("MINIMUM", IMAGE, tensor(1, 8, 8, 8, scale=(0.4,)))),
    ("Kernel stride must be in the range (1,3)", conv(stride_h=3), conv(stride_w=4)),
    ("Stride>3 is only supported IF", conv(stride_h=4), conv(stride_h=4, padding=SAME)),
    ("Stride>3 is only supported IF", conv(stride_h=3, dilation_h=2), conv(stride_h=4, dilation_h=2)),
    ("Kernel constraints", conv(kernel_h=9), conv(kernel_w=9, padding=SAME)),
    ("kernel product must be less", conv(kernel_h=256), conv(kernel_h=257)),
    ("IFM and OFM shapes must match", operator("ELU", IMAGE, made=IMAGE), operator("ELU", IMAGE)),
    (MATMUL + "Reduced axis", operator("BATCH_MATMUL", IMAGE, IMAGE), operator("BATCH_MATMUL", WIDE, IMAGE)),
    (MATMUL + "OFM depth", conv(), operator("BATCH_MATMUL", IMAGE, IMAGE, made=WIDE)),
    (MATMUL + "IFM precision", conv(), operator("BATCH_MATMUL", tensor(2, 2, dtype=DType.INT16), tensor(2, 2))),
    ("The product of IFM width and height", operator("SOFTMAX", IMAGE), operator("SOFTMAX", tensor(1, 256, 256, 2))),
    ("Batch must be 1", operator("MEAN", IMAGE, ints(1)), operator("MEAN", tensor(2, 8, 8, 8), ints(1))),
    ("Reduction over depth is only", operator("MEAN", IMAGE, ints(1, 2)), operator("MEAN", IMAGE, ints(-1))),
    ("Reduced axis must be less than 8.", operator("MEAN", tensor(7, 8), ints(0)), operator("MEAN", IMAGE, ints(1))),
    ("Amount of reduced elements cannot exceed: 9(Int8)", operator("MEAN", IMAGE, ints(1)),
     operator("MEAN", IMAGE, ints(1, 2))),
    ("Slice must represent a volume", operator("STRIDED_SLICE", IMAGE, ints(0), ints(9), ints(1, 2, 2, 1)),
     operator("STRIDED_SLICE", IMAGE, ints(0), ints(9), ints(1, 1, 1, 2))),
    ("Slice must represent a volume", operator("STRIDED_SLICE", IMAGE),
     operator("STRIDED_SLICE", IMAGE, ints(0), ints(9), ints(1, -1, 1, 1))),
    ("IFM depth must be less than or equal to 127", operator("ARG_MAX", IMAGE), operator("ARG_MAX", tensor(1, 128))),
    ("Operation must be performed along the depth", operator("ARG_MAX", IMAGE, ints(3)),
     operator("ARG_MAX", IMAGE, ints(1))),
    (U55_BILINEAR, resize(16, **HALVES), resize(32, **HALVES)),
    (U55_BILINEAR, resize(29, **CORNERS), resize(16, **CORNERS)),
    (U55_BILINEAR, resize(1, width=16, image=LINE), resize(1, width=16, image=LINE, **HALVES)),
    (U55_NEAREST, resize(64, "RESIZE_NEAREST_NEIGHBOR"), resize(24, "RESIZE_NEAREST_NEIGHBOR")),
    (U55_NEAREST, resize(16, "RESIZE_NEAREST_NEIGHBOR"), resize(16, "RESIZE_NEAREST_NEIGHBOR", 8)),
    ("align_corners and half_pixel_centers are", resize(16, **HALVES), resize(16, align_corners=1,
                                                                              half_pixel_centers=1)),
    ("Scale-factor:\n maximum 8\n maximum 4", resize(32), resize(40)),
    ("Scale-factor must be an integer power", resize(32), resize(24)),
    ("Scale-factor must be an integer power", resize(16), resize(4)),
    ("Tensor dimension must be <= 8", operator("TRANSPOSE", tensor(*(1,) * 8)),
     operator("TRANSPOSE", tensor(*(1,) * 9))),
    ("IF IFM is Int32", operator("TRANSPOSE", tensor(1, 2, 3, 4, dtype=DType.INT32), ints(0, 2, 1, 3)),
     operator("TRANSPOSE", tensor(1, 2, 3, 4, dtype=DType.INT32), ints(3, 2, 1, 0))),
    ("IF IFM is Int32", operator("TRANSPOSE", IMAGE, ints(3, 2, 1, 0)),
     operator("TRANSPOSE", tensor(1, 1, 1, 1, 1, dtype=DType.INT32), ints(0, 1, 2, 3, 4))),
    ("IF IFM is Int8 or Int16", operator("TRANSPOSE", tensor(1, 300, 300, 300), ints(0, 3, 1, 2)),
     operator("TRANSPOSE", tensor(300, 300, 3, 300), ints(3, 0, 1, 2))),
    ("axis must be equal to batch_dims", operator("GATHER", IMAGE, ints(1), axis=0, batch_dims=0),
     operator("GATHER", IMAGE, ints(1), axis=1, batch_dims=0)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "taken", "refused"), PAIRS, ids=[sentence[:40] for sentence, *_ in PAIRS])
def test_both_sides_of_a_sentence(sentence: str, taken: FileOperator, refused: FileOperator) -> None:
    sentence = next((known for known in CHECKS if known.startswith(sentence)), sentence)
    assert is_known(sentence)
    assert [*find_clashes(taken, {_table_name(taken): [sentence]})] == []
    (why,) = find_clashes(refused, {_table_name(refused): [sentence]})
    assert why and "\n" not in why


def _table_name(found: FileOperator) -> str:
    return "ARGMAX" if found.op == "ARG_MAX" else found.op


@pytest.mark.parametrize(
    ("padding", "stride", "made", "fits"),
    [(SAME, 2, 16, True), (SAME, 2, 15, False), (VALID, 2, 17, True), (VALID, 2, 16, False), (SAME, 3, 24, True)],
)
def test_sizes_of_transposed_convolutions(padding: int, stride: int, made: int, fits: bool) -> None:
    given = {"padding": padding, "stride_h": stride, "stride_w": stride}
    found = operator("TRANSPOSE_CONV", ints(1), WEIGHT, IMAGE, made=tensor(1, made, made, 8), **given)
    assert (not [*find_clashes(found, {"TRANSPOSE_CONV": ["Shape constraints"]})]) is fits
    strides = [*find_clashes(found, {"TRANSPOSE_CONV": ["Stride values WxH must be"]})]
    assert bool(strides) is (stride == 3)


def test_operators_beyond_the_table_and_sentences_that_always_hold() -> None:
    assert [*find_clashes(operator("SIN", IMAGE), {"ABS": []})] == ["the NPU has no SIN"]
    assert is_known("Operations must have at least one IFM.")
    assert check_of("Operations must have at least one IFM.") is None
    assert not is_known("A sentence of tomorrow")
    assert len(CHECKS) > 40
