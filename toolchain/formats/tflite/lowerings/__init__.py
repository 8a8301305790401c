"""TFLite facet: how each op is written as operators of the file: `TFLITE_LOWERINGS`, put together from the families'
own."""

from __future__ import annotations

from toolchain.formats.tflite.emitter import Lowering
from toolchain.formats.tflite.lowerings.activations import ACTIVATIONS
from toolchain.formats.tflite.lowerings.arithmetic import ARITHMETIC
from toolchain.formats.tflite.lowerings.indexing import INDEXING
from toolchain.formats.tflite.lowerings.layers import LAYERS
from toolchain.formats.tflite.lowerings.logic import LOGIC
from toolchain.formats.tflite.lowerings.matmul import MATMUL
from toolchain.formats.tflite.lowerings.moves import MOVES
from toolchain.formats.tflite.lowerings.norms import NORMS
from toolchain.formats.tflite.lowerings.padding import PADDING
from toolchain.formats.tflite.lowerings.pools import POOLS
from toolchain.formats.tflite.lowerings.recurrent import RECURRENT_LAYERS
from toolchain.formats.tflite.lowerings.reductions import REDUCTIONS
from toolchain.formats.tflite.lowerings.resizing import RESIZING
from toolchain.formats.tflite.lowerings.transposed import TRANSPOSED
from toolchain.graph import Op

TFLITE_LOWERINGS: dict[Op, Lowering] = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **INDEXING,
    **LAYERS,
    **LOGIC,
    **MATMUL,
    **MOVES,
    **NORMS,
    **PADDING,
    **POOLS,
    **RECURRENT_LAYERS,
    **REDUCTIONS,
    **RESIZING,
    **TRANSPOSED,
}
