"""tflite-micro beside LiteRT's reference kernels: the same integers, but for one known difference.

FULLY_CONNECTED rounds once in the one and twice in the other, on its way from 32 bits to 8: a result may differ by a
step, and what is computed from it further. So the first tensor that differs must be such a layer's, by one step, and
outputs of a deep stack may differ by up to `STACK_STEPS`. Everything else is a disagreement.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from toolchain.backends.backend import Rows
from toolchain.backends.tflite_micro.interpreter import run
from toolchain.errors import DisagreementError
from toolchain.formats.tflite.defects import known_defects
from toolchain.formats.tflite.native_log import without_notices
from toolchain.formats.tflite.parse import ParsedModel

STACK_STEPS: Final = 3
LAYER_STEPS: Final = 1


@dataclass(frozen=True)
class Agreement:
    """Largest difference of outputs in steps, and the share of values that differ."""

    steps: float
    share: float


def output_scales(model: ParsedModel) -> tuple[float | None, ...]:
    """What a step of each output is: 1 of integers, the scale of what a DEQUANTIZE makes a float of, else none."""
    makers = {index: operator for operator in model.operators for index in operator.outputs}
    found: list[float | None] = []
    for _, index in model.outputs:
        maker = makers.get(index)
        source = model.tensors[maker.inputs[0] if maker is not None and maker.name == "DEQUANTIZE" else index]
        found.append(None if not model.tensors[index].dtype.is_float else source.scale[0] if source.scale else None)
    return tuple(found)


def compare(ours: Rows, theirs: Rows, scales: Sequence[float | None] = ()) -> Agreement:
    """Integers count in steps, floats in those of `scales`; where these are None they are equal or infinitely far."""
    rows = [
        _steps(a, b, scales[port] if scales else None).ravel()
        for one, other in zip(ours, theirs, strict=True)
        for port, (a, b) in enumerate(zip(one, other, strict=True))
    ]
    joined = np.concatenate([np.zeros(1), *rows])
    return Agreement(float(joined.max()), float((joined > 0).sum()) / max(len(joined) - 1, 1))


def _steps(ours: np.ndarray, theirs: np.ndarray, scale: float | None = None) -> np.ndarray:
    if ours.dtype.kind in "iu":
        return np.asarray(np.abs(ours.astype(np.float64) - theirs))
    if scale is not None:
        return np.asarray(np.abs(ours.astype(np.float64) - theirs) / scale).round(3)
    same = np.isclose(ours, theirs, rtol=0, atol=0, equal_nan=ours.dtype.kind == "f")
    return np.where(same, 0.0, np.inf)


class Reference:
    """LiteRT's reference kernels on one file; `missing` says in a line why they do not run it."""

    def __init__(self, content: bytes, model: ParsedModel) -> None:
        self._model = model
        self._interpreter: Any = None
        self.missing = "; ".join(known_defects(model, "reference", "ai_edge_litert")) or None
        if self.missing is None:
            self._load(content)

    def _load(self, content: bytes) -> None:
        from ai_edge_litert import interpreter as litert

        with warnings.catch_warnings(), without_notices():
            warnings.simplefilter("ignore")  # that keeping tensors is for debugging
            try:
                self._interpreter = litert.Interpreter(
                    model_content=content,
                    num_threads=1,
                    experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
                    experimental_preserve_all_tensors=True,
                )
                self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                self.missing = str(error).strip().splitlines()[0]

    def run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Outputs of one sample, as the file stores them."""
        for (_, index), array in zip(self._model.inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return tuple(self.tensor(index) for _, index in self._model.outputs)

    def tensor(self, index: int) -> np.ndarray:
        """A tensor of the last sample."""
        return np.array(self._interpreter.get_tensor(index))


def agreement(name: str, content: bytes, model: ParsedModel, inputs: Rows, ours: Rows, arena: int) -> Agreement | str:
    """How far tflite-micro's outputs are from the reference kernels', or why that cannot be said.

    Raises DisagreementError where they differ by more than FULLY_CONNECTED's rounding explains."""
    reference = Reference(content, model)
    if reference.missing is not None:
        return reference.missing
    theirs, scales = tuple(reference.run(row) for row in inputs), output_scales(model)
    found = compare(ours, theirs, scales)
    if found.steps:
        worst = max(range(len(ours)), key=lambda at: compare(ours[at : at + 1], theirs[at : at + 1], scales).steps)
        _explain(name, content, model, reference, inputs[worst], arena, found)
    return found


def _explain(
    name: str,
    content: bytes,
    model: ParsedModel,
    reference: Reference,
    sample: Sequence[np.ndarray],
    arena: int,
    found: Agreement,
) -> None:
    reference.run(sample)
    made = [(index, operator.name) for operator in model.operators for index in operator.outputs]
    indices = tuple(index for index, _ in made)
    seen = run(content, (tuple(sample),), arena, outputs=len(model.outputs), tensors=indices).tensors
    for index, operator in made:
        steps = float(_steps(seen[index], reference.tensor(index)).max(initial=0))
        if steps:
            if operator == "FULLY_CONNECTED" and steps <= LAYER_STEPS and found.steps <= STACK_STEPS:
                return
            raise DisagreementError(
                f"{name}: tflite-micro and LiteRT's reference kernels differ by up to {found.steps:g} steps at the "
                f"outputs, first at {model.tensors[index].name} ({operator}) by {steps:g}",
                hint="only the rounding of FULLY_CONNECTED is known to differ: see what this layer computes, and "
                "whether other versions of tflite-micro and ai-edge-litert agree on it",
            )
