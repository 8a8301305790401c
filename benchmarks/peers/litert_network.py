"""Peer: litert_torch.convert of any network, then ai_edge_quantizer's recipes.

    python litert_network.py --model F.pt2 --calibration X.npz --out FOLDER --json R.json [--ways shipped,...]

shipped: static_wi8_ai8. mended: the same with the library's own min_max_update instead of its 0.95 moving average.
ai16: static_wi8_ai16. dynamic, dynamic4: dynamic_wi8_afp32, dynamic_wi4_afp32, which need no samples.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import litert_torch
import torch
from _network import Samples, Way, arguments_of, check_float, load_program, load_samples, make_all
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils import qsv_utils

SIGNATURE = "serving_default"
SUFFIXES = dict.fromkeys(("float", "shipped", "mended", "ai16", "dynamic", "dynamic4"), ".tflite")
PACKAGES = ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert", "numpy")


def convert(program: Path, arrays: Samples, out: Path) -> None:
    module = load_program(program)
    inputs = tuple(torch.from_numpy(array[:1]) for array in arrays)
    litert_torch.convert(module, inputs).export(str(out))
    with torch.inference_mode():
        wanted = module(*inputs)
    runner = Interpreter(model_path=str(out)).get_signature_runner(SIGNATURE)
    types = runner.get_input_details()
    given = {f"args_{i}": array[:1].astype(types[f"args_{i}"]["dtype"]) for i, array in enumerate(arrays)}
    check_float(runner(**given)["output_0"], wanted[0] if isinstance(wanted, tuple) else wanted)


def as_taken(exported: Path, arrays: Samples) -> Samples:
    """The samples in the types that the file takes: int64 numbers become int32 in it."""
    inputs = Interpreter(model_path=str(exported)).get_signature_runner(SIGNATURE).get_input_details()
    return [array.astype(inputs[f"args_{index}"]["dtype"]) for index, array in enumerate(arrays)]


def static(exported: Path, arrays: Samples, rules: list[dict[str, Any]], mended: bool, out: Path) -> None:
    made = quantizer.Quantizer(str(exported), rules)
    given = {
        SIGNATURE: [
            {f"args_{index}": array[number : number + 1] for index, array in enumerate(arrays)}
            for number in range(len(arrays[0]))
        ]
    }
    if mended:
        recipes = RecipeManager()
        recipes.load_quantization_recipe(made.get_quantization_recipe())
        calibrator = Calibrator(str(exported), qsv_update_func=qsv_utils.min_max_update)
        calibrator.calibrate(given, recipes)
        ranges = calibrator.get_model_qsvs()
    else:
        ranges = made.calibrate(given)
    made.quantize(ranges).export_model(str(out), overwrite=True)


def dynamic(exported: Path, rules: list[dict[str, Any]], out: Path) -> None:
    quantizer.Quantizer(str(exported), rules).quantize().export_model(str(out), overwrite=True)


def main() -> None:
    arguments = arguments_of(__doc__, SUFFIXES)
    _, arrays = load_samples(arguments.calibration)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder, "float.tflite")
        convert(arguments.model, arrays, exported)
        arrays = as_taken(exported, arrays)
        ways: dict[str, Way] = {
            "float": partial(shutil.copy, exported),
            "shipped": partial(static, exported, arrays, recipe.static_wi8_ai8(), False),
            "mended": partial(static, exported, arrays, recipe.static_wi8_ai8(), True),
            "ai16": partial(static, exported, arrays, recipe.static_wi8_ai16(), True),
            "dynamic": partial(dynamic, exported, recipe.dynamic_wi8_afp32()),
            "dynamic4": partial(dynamic, exported, recipe.dynamic_wi4_afp32()),
        }
        make_all(arguments, ways, SUFFIXES, PACKAGES)


if __name__ == "__main__":
    main()
