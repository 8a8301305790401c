"""ONNX: write, read back, check, run."""

from toolchain.formats.onnx.check import check_onnx
from toolchain.formats.onnx.lowerings import ONNX_LOWERINGS
from toolchain.formats.onnx.reader import read_onnx
from toolchain.formats.onnx.runner import OnnxRunner
from toolchain.formats.onnx.writer import OPSETS, write_onnx, write_onnx_files

__all__ = ["ONNX_LOWERINGS", "OPSETS", "OnnxRunner", "check_onnx", "read_onnx", "write_onnx", "write_onnx_files"]
