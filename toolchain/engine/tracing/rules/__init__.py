"""How each ATen op of an exported program is said in the graph's words: one table, `ATEN_RULES`, put together from the
families' own."""

from __future__ import annotations

from toolchain.engine.tracing.rules.activations import ACTIVATIONS
from toolchain.engine.tracing.rules.arithmetic import ARITHMETIC, with_two_tensors
from toolchain.engine.tracing.rules.creation import CREATION
from toolchain.engine.tracing.rules.distances import DISTANCES
from toolchain.engine.tracing.rules.einsum import EINSUM
from toolchain.engine.tracing.rules.indexing import INDEXING
from toolchain.engine.tracing.rules.layers import LAYERS
from toolchain.engine.tracing.rules.logic import LOGIC
from toolchain.engine.tracing.rules.matmul import MATMUL
from toolchain.engine.tracing.rules.norms import NORMS
from toolchain.engine.tracing.rules.padding import PADDING
from toolchain.engine.tracing.rules.pooling import POOLING
from toolchain.engine.tracing.rules.recurrent import RECURRENT_LAYERS
from toolchain.engine.tracing.rules.reductions import REDUCTIONS
from toolchain.engine.tracing.rules.resizing import REFUSED, RESIZING
from toolchain.engine.tracing.rules.rule import Rule
from toolchain.engine.tracing.rules.shape import SHAPE
from toolchain.graph import Op

FAMILIES: dict[str, dict[str, Rule]] = {
    "convolutions": LAYERS,
    "products of matrices, attention": MATMUL | EINSUM,
    "norms": NORMS,
    "recurrent layers": RECURRENT_LAYERS,
    "activations": ACTIVATIONS,
    "arithmetic": ARITHMETIC,
    "comparisons, logic, selection": LOGIC,
    "pools": POOLING,
    "reductions": REDUCTIONS | DISTANCES,
    "shape": SHAPE,
    "indices": INDEXING,
    "pads": PADDING,
    "resizes": RESIZING,
    "made of nothing": CREATION,
}

ATEN_RULES: dict[str, Rule] = {name: rule for family in FAMILIES.values() for name, rule in family.items()} | REFUSED
ATEN_RULES |= {
    "max": with_two_tensors(Op.MAXIMUM, ATEN_RULES["max"]),
    "min": with_two_tensors(Op.MINIMUM, ATEN_RULES["min"]),
}

RESHAPES = frozenset(
    {"view", "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "_unsafe_view"}
    | {"view_as", "reshape_as", "atleast_1d", "atleast_2d", "atleast_3d"}
)
"""Ops whose result is the same elements in the shape that the exported program recorded."""

_COPIES = frozenset({"clone", "_to_copy", "lift_fresh_copy"})
IDENTITIES = _COPIES | {"dropout", "feature_dropout", "contiguous", "detach", "alias", "to", "type_as"}
"""Ops that do nothing in eval mode, but for the element type of their result."""

_MOVED = frozenset(
    {"permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "mT", "mH", "adjoint", "numpy_T"}
    | {"matrix_H", "slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind"}
    | {"hsplit", "vsplit", "dsplit", "expand", "expand_as", "broadcast_to", "broadcast_tensors", "diagonal", "unfold"}
)
VIEWS = RESHAPES | _MOVED | IDENTITIES - _COPIES
"""Ops whose result may lie in the memory of their first argument."""
