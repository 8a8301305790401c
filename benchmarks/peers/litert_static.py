"""Peer: litert_torch.convert, then ai_edge_quantizer's static_wi8_ai8 recipe.

    python litert_static.py --calibration X.npz --out FILE.tflite [--json result.json] [--mended]

As shipped, calibration follows min and max with a 0.95 moving average, so that the ranges it settles on clip
the samples it saw. `--mended` gives the library's own `Calibrator` the library's own `min_max_update` and
changes nothing else. The converter keeps the layout of the PyTorch model, so the input of the file is NCHW.
The last line of stdout is the result in JSON; everything the libraries print goes to stderr.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import litert_torch
import torch
from _common import INPUT_SHAPE, Account, argument_parser, load_calibration, load_model, parse, report
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.calibrator import CalibrationMode, Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils import qsv_utils

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

SIGNATURE, INPUT_NAME = "serving_default", "args_0"  # the names that litert_torch gives
MODES = {
    "tensors": CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
    "profiler": CalibrationMode.CALIBRATION_PROFILER_BASED,
}
PACKAGES = ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert", "numpy")


def arguments_of() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--mended", action="store_true", help="calibrate by plain min-max")
    parser.add_argument("--mode", choices=MODES, default="tensors", help="how ranges are read off")
    parser.add_argument("--threads", type=int, default=16, help="calibration threads (default: 16)")
    return parse(parser)


def export_float(out: Path) -> None:
    """Write the float TFLite file."""
    litert_torch.convert(load_model(), (torch.zeros(INPUT_SHAPE),)).export(str(out))


def calibrate(
    exported: Path, static: quantizer.Quantizer, inputs: NDArray[np.float32], arguments: argparse.Namespace
) -> dict[str, qtyping.QSV]:
    """The range of every tensor, found the library's way or by plain min-max."""
    data = {SIGNATURE: [{INPUT_NAME: sample[None]} for sample in inputs]}
    mode = MODES[arguments.mode]
    ranges: dict[str, qtyping.QSV]
    if not arguments.mended:
        ranges = static.calibrate(data, num_threads=arguments.threads, mode=mode)
        return ranges
    recipes = RecipeManager()
    recipes.load_quantization_recipe(static.get_quantization_recipe())
    calibrator = Calibrator(
        str(exported), num_threads=arguments.threads, mode=mode, qsv_update_func=qsv_utils.min_max_update
    )
    calibrator.calibrate(data, recipes)
    ranges = calibrator.get_model_qsvs()
    return ranges


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Produce the file and account for it."""
    account = Account()
    if arguments.float:
        export_float(arguments.out)
        account.stage("export")
        return {"kind": "float", **account.totals()}
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "float.tflite")
        export_float(exported)
        account.stage("export")
        static = quantizer.Quantizer(str(exported), recipe.static_wi8_ai8())
        ranges = calibrate(exported, static, load_calibration(arguments.calibration), arguments)
        account.stage("calibrate")
        static.quantize(ranges).export_model(str(arguments.out), overwrite=True)
        account.stage("quantize")
        totals = account.totals()
    settings = {"mended": arguments.mended, "mode": arguments.mode, "threads": arguments.threads}
    return {"kind": "int8", **settings, **totals}


def input_of(path: Path) -> dict[str, Any]:
    """Layout, shape and type of the input of the written file (read after the clock was stopped)."""
    detail = Interpreter(model_path=str(path)).get_input_details()[0]
    shape = [int(size) for size in detail["shape"]]
    layout = "NCHW" if shape == list(INPUT_SHAPE) else "NHWC" if shape[-1] == INPUT_SHAPE[1] else "other"
    return {"layout": layout, "shape": shape, "dtype": detail["dtype"].__name__}


def main() -> None:
    arguments = arguments_of()
    with contextlib.redirect_stdout(sys.stderr):
        result = run(arguments)
        result["input"] = input_of(arguments.out)
    report(arguments, {"peer": "litert-torch + ai-edge-quantizer static_wi8_ai8", **result}, PACKAGES)


if __name__ == "__main__":
    main()
