"""Peer: nncf.quantize of an ONNX model (post-training quantization, fast bias correction), in a venv of its own.

    python nncf_network.py --model F.onnx --calibration X.npz --out FOLDER --json R.json [--ways shipped,...]

shipped: the default preset, for transformers with model_type=TRANSFORMER, as the documents say. accurate: the slower
bias correction, fast_bias_correction=False.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import nncf
import onnx
from _network import Samples, arguments_of, load_samples, make_all

SUFFIXES = dict.fromkeys(("shipped", "accurate"), ".onnx")
PACKAGES = ("nncf", "onnx", "onnxruntime", "numpy")


def quantize(model: Path, names: list[str], arrays: Samples, transformer: bool, fast: bool, out: Path) -> None:
    samples = [
        {name: array[index : index + 1] for name, array in zip(names, arrays, strict=True)}
        for index in range(len(arrays[0]))
    ]
    made = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(samples),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        fast_bias_correction=fast,
    )
    onnx.save(made, out)


def main() -> None:
    arguments = arguments_of(__doc__, SUFFIXES)
    names, arrays = load_samples(arguments.calibration)
    given = (arguments.model, names, arrays, arguments.transformer)
    ways = {"shipped": partial(quantize, *given, True), "accurate": partial(quantize, *given, False)}
    make_all(arguments, ways, SUFFIXES, PACKAGES)


if __name__ == "__main__":
    main()
