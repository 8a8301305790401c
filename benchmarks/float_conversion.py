"""Ours: the float TFLite file of EfficientNet-Lite0 alone, trace included; or, with `write`, both files from its
quantized graph, whose seconds are printed.

    python float_conversion.py convert|write OUT.tflite
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from toolchain import Trace
from toolchain.formats.tflite import write_tflite
from toolchain.graph import fold
from toolchain.zoo.efficientnet_lite0 import load

SHAPE = (1, 3, 224, 224)


def convert(out: Path) -> None:
    traced = Trace(example_inputs=(np.zeros(SHAPE, np.float32),))(load())
    out.write_bytes(write_tflite(fold(traced.graph)))


def write(out: Path) -> None:
    from toolchain import Calibrate, Quantize, samples_from
    from toolchain.formats.onnx import write_onnx

    pictures = np.random.default_rng(0).uniform(-1, 1, (5, *SHAPE[1:])).astype(np.float32)
    samples = samples_from(pictures, calibration_count=4, judging_count=1)
    quantized = Quantize()(Calibrate(samples=samples)(Trace(example_inputs=samples.first_inputs())(load()))).quantized
    started = time.perf_counter()
    contents = write_onnx(quantized), write_tflite(quantized)
    print(time.perf_counter() - started)
    out.write_bytes(contents[1])


if __name__ == "__main__":
    {"convert": convert, "write": write}[sys.argv[1]](Path(sys.argv[2]))
