"""Peer: Sony's model-compression-toolkit, post-training quantization of a torch module, in a venv of its own.

    python mct_network.py --model F.pt2 --calibration X.npz --out FOLDER --json R.json [--ways shipped,...]

What it exports is ONNX in float with the rounding written between the ops; it is judged as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from _network import Samples, arguments_of, load_program, load_samples, make_all

# PyPI's torchvision has no operators beside a CPU-only torch and will not load without these; nothing here calls them
for missing in ("nms", "qnms"):
    torch.library.define(f"torchvision::{missing}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import model_compression_toolkit as mct  # noqa: E402

# it was written for a torch whose exporter was this one
torch.onnx.export = partial(torch.onnx.export, dynamo=False)

SUFFIXES = {"shipped": ".onnx"}
PACKAGES = ("model-compression-toolkit", "torch", "onnx", "numpy")


def quantize(program: Path, names: list[str], arrays: Samples, out: Path) -> None:
    module = load_program(program)

    def batches() -> Iterator[Samples]:
        for start in range(len(arrays[0])):
            yield [array[start : start + 1] for array in arrays]

    made, _ = mct.ptq.pytorch_post_training_quantization(module, batches)
    mct.exporter.pytorch_export_model(
        made,
        save_model_path=str(out),
        repr_dataset=batches,
        serialization_format=mct.exporter.PytorchExportSerializationFormat.ONNX,
        quantization_format=mct.exporter.QuantizationFormat.FAKELY_QUANT,
    )


def main() -> None:
    arguments = arguments_of(__doc__, SUFFIXES)
    names, arrays = load_samples(arguments.calibration)
    make_all(arguments, {"shipped": partial(quantize, arguments.model, names, arrays)}, SUFFIXES, PACKAGES)


if __name__ == "__main__":
    main()
