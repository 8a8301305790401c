"""Peer: onnxruntime.quantization of any network, each way its documents show, after quant_pre_process.

    python onnxruntime_network.py --model F.onnx --calibration X.npz --out FOLDER --json R.json [--ways minmax,...]

minmax, percentile, entropy: quantize_static, QDQ, s8, per channel. tensor, tensor-entropy: per tensor weights.
u8: unsigned activations. static4: int4 weights. dynamic: quantize_dynamic, which the documents advise for recurrent
networks and transformers. nbits4: MatMulNBits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from _network import Samples, arguments_of, load_samples, make_all
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

STATIC: dict[str, dict[str, Any]] = {
    "minmax": {},
    "percentile": {"calibrate_method": CalibrationMethod.Percentile},
    "entropy": {"calibrate_method": CalibrationMethod.Entropy},
    "u8": {"activation_type": QuantType.QUInt8},
    "tensor": {"per_channel": False},
    "tensor-entropy": {"per_channel": False, "calibrate_method": CalibrationMethod.Entropy},
    "static4": {"weight_type": QuantType.QInt4},
}
SUFFIXES = dict.fromkeys((*STATIC, "dynamic", "nbits4"), ".onnx")
PACKAGES = ("onnx", "onnxruntime", "numpy")


class SampleReader(CalibrationDataReader):  # type: ignore[misc]
    """One sample at a time."""

    def __init__(self, names: list[str], arrays: Samples) -> None:
        self._samples = iter(
            {name: array[index : index + 1] for name, array in zip(names, arrays, strict=True)}
            for index in range(len(arrays[0]))
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def static(prepared: Path, names: list[str], arrays: Samples, options: dict[str, Any], out: Path) -> None:
    shipped = {"per_channel": True, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, out, SampleReader(names, arrays), quant_format=QuantFormat.QDQ, **(shipped | options))


def dynamic(prepared: Path, out: Path) -> None:
    quantize_dynamic(prepared, out, weight_type=QuantType.QInt8)


def nbits4(prepared: Path, out: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # wants onnx-ir

    quantizer = MatMulNBitsQuantizer(onnx.load(prepared), bits=4, block_size=32, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


def main() -> None:
    arguments = arguments_of(__doc__, SUFFIXES)
    names, arrays = load_samples(arguments.calibration)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        try:
            quant_pre_process(arguments.model, prepared)
        except Exception:  # as the documents say, symbolic shape inference may fail and can be left out
            quant_pre_process(arguments.model, prepared, skip_symbolic_shape=True)
        ways: dict[str, Callable[[Path], None]] = {
            name: partial(static, prepared, names, arrays, options) for name, options in STATIC.items()
        }
        ways |= {"dynamic": partial(dynamic, prepared), "nbits4": partial(nbits4, prepared)}
        make_all(arguments, ways, SUFFIXES, PACKAGES)


if __name__ == "__main__":
    main()
