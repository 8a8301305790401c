"""Peer: torch.onnx.export, then quantize_static of onnxruntime (QDQ, per channel), as documented.

    python onnxruntime_static.py --calibration X.npz --out FILE.onnx [--json result.json]

Everything else is left as shipped: signed 8-bit weights and activations, batches of one, no extra options.
The last line of stdout is the result in JSON; everything the libraries print goes to stderr.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from _common import INPUT_SHAPE, Account, argument_parser, load_calibration, load_model, parse, report
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

INPUT_NAME = "input"
OPSET = 18
METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
ACTIVATIONS = {"s8": QuantType.QInt8, "u8": QuantType.QUInt8}
PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


class SampleReader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration samples over one at a time."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._samples = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        sample = next(self._samples, None)
        return None if sample is None else {INPUT_NAME: sample[None]}


def arguments_of() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--method", choices=METHODS, default="minmax", help="how activation ranges are found")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="s8", help="type of the activations")
    parser.add_argument("--exporter", choices=("trace", "dynamo"), default="trace", help="dynamo needs onnxscript")
    return parse(parser)


def export_float(out: Path, exporter: str) -> None:
    """Write the float ONNX file as one file."""
    torch.onnx.export(
        load_model(),
        (torch.zeros(INPUT_SHAPE),),
        str(out),
        input_names=[INPUT_NAME],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=exporter == "dynamo",
        external_data=False,
    )


def quantize(prepared: Path, arguments: argparse.Namespace) -> None:
    """Calibrate and write the quantized file."""
    quantize_static(
        prepared,
        arguments.out,
        SampleReader(load_calibration(arguments.calibration)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=ACTIVATIONS[arguments.activation],
        weight_type=QuantType.QInt8,
        calibrate_method=METHODS[arguments.method],
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Produce the file and account for it."""
    account = Account()
    if arguments.float:
        export_float(arguments.out, arguments.exporter)
        account.stage("export")
        return {"kind": "float", **account.totals()}
    with tempfile.TemporaryDirectory() as folder:
        exported, prepared = Path(folder, "float.onnx"), Path(folder, "prepared.onnx")
        export_float(exported, arguments.exporter)
        account.stage("export")
        quant_pre_process(exported, prepared)
        account.stage("pre_process")
        quantize(prepared, arguments)
        account.stage("calibrate_and_quantize")
        totals = account.totals()
    settings = {name: getattr(arguments, name) for name in ("method", "activation", "exporter")}
    return {"kind": "int8", **settings, **totals}


def input_of(path: Path) -> dict[str, Any]:
    """Layout, shape and type of the input of the written file (read after the clock was stopped)."""
    tensor = onnx.load(path).graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    layout = "NCHW" if shape == list(INPUT_SHAPE) else "other"
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return {"layout": layout, "shape": shape, "dtype": dtype}


def main() -> None:
    arguments = arguments_of()
    with contextlib.redirect_stdout(sys.stderr):
        result = run(arguments)
    result["input"] = input_of(arguments.out)
    report(arguments, {"peer": "onnxruntime quantize_static", **result}, PACKAGES)


if __name__ == "__main__":
    main()
