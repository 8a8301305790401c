"""TFLite: write a graph, read the file back, check it, run it."""

from toolchain.formats.tflite.check import check_tflite
from toolchain.formats.tflite.layout import Layout
from toolchain.formats.tflite.lowerings import TFLITE_LOWERINGS
from toolchain.formats.tflite.reader import layouts, read_tflite
from toolchain.formats.tflite.runner import TfliteRunner
from toolchain.formats.tflite.sparse_plan import SparsePlan, plan_sparse
from toolchain.formats.tflite.writer import write_tflite

__all__ = [
    "TFLITE_LOWERINGS",
    "Layout",
    "SparsePlan",
    "TfliteRunner",
    "check_tflite",
    "layouts",
    "plan_sparse",
    "read_tflite",
    "write_tflite",
]
