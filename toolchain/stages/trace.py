"""trace: a torch model becomes the neutral graph, and that graph the float reference of everything after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import OptionError, UnsupportedError, raise_collected
from toolchain.progress import Progress
from toolchain.stages.stage import Stage
from toolchain.stages.states import Record, TorchModel, TracedModel

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


@dataclass(frozen=True, kw_only=True)
class Trace(Stage[Any, TracedModel]):
    """Trace an `nn.Module` at the shapes of `example_inputs`: forward's arguments in order, or a dict of them by name;
    arrays or tensors with their batch axis (batch size 1 is what the exported files will take), or tuples, lists and
    dicts of these. An `ExportedProgram` brings its own.

    The inputs of the graph are the arrays in order, named after forward's arguments: `batch` for an array, `batch_mask`
    for the entry `mask` of a dict, `batch_0` for the first of a tuple.

    Recurrent layers are one node each, which computes in float where all else is quantized; with `unroll_recurrent`
    they are written out step by step in ops that have integer kernels, for devices that compute nothing in float.

    Raises UnsupportedError for data-dependent control flow and for ops outside the set, all of them at once.
    """

    name = "trace"
    takes = (TorchModel,)
    gives = TracedModel

    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None
    unroll_recurrent: bool = False

    def __post_init__(self) -> None:
        if hasattr(self.example_inputs, "shape"):
            raise OptionError("example_inputs is one array", hint="give a tuple, one array a model input: (x,)")

    def _run(self, model: nn.Module | ExportedProgram, progress: Progress) -> TracedModel:
        from torch.export import ExportedProgram

        from toolchain.engine.tracing.tracer import trace

        if self.example_inputs is None and not isinstance(model, ExportedProgram):
            raise OptionError("an nn.Module is traced with example inputs", hint="give Trace(example_inputs=(x,))")
        graph = trace(model, self._given(), unroll_recurrent=self.unroll_recurrent)
        if not graph.nodes:
            raise UnsupportedError("the model computes nothing: its outputs are its inputs", hint="check its forward")
        loose = [name for name in graph.outputs if graph.types[name].shape[:1] != graph.inputs[0].type.shape[:1]]
        raise_collected(
            UnsupportedError,
            "the outputs of a model keep the batch on axis 0:",
            [
                f"{name} is {graph.types[name]} [{graph.producers[name].source}]"
                for name in loose
                if name in graph.producers
            ],
            hint="keep the batch axis, x.mean((1, 2, 3)) for x.mean()",
        )
        facts = {"nodes": len(graph.nodes), "parameters": sum(c.size for c in graph.constants.values())}
        record = Record(self.name, self.options(), facts)
        return TracedModel(graph=graph, reference=graph, history=(record,))

    def options(self) -> dict[str, Any]:
        """Shapes and dtypes stand for the example inputs: their values do not matter."""
        given = self._given()
        described = [] if given is None else _described(given)
        return {"example_inputs": described, "unroll_recurrent": self.unroll_recurrent}

    def _given(self) -> tuple[Any, ...] | dict[str, Any] | None:
        return None if self.example_inputs is None else as_arrays(self.example_inputs)


def as_arrays(example_inputs: Sequence[Any] | Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
    """Example inputs, in order or by name, with an array for every tensor. Raises OptionError for what is none."""
    if isinstance(example_inputs, Mapping):
        return {str(name): _as_arrays(value) for name, value in example_inputs.items()}
    return tuple(_as_arrays(value) for value in example_inputs)


def _as_arrays(value: Any) -> Any:
    """`value` with every tensor and list of numbers in it as an array; reals as float32."""
    if isinstance(value, Mapping):
        return {key: _as_arrays(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not _is_numbers(value):
        parts = [_as_arrays(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value  # a number that is the same for every call
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind == "O":
        raise OptionError(f"an example input is of type {type(value).__name__}", hint="give arrays or tensors")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _is_numbers(value: Any) -> bool:
    """Whether a list or tuple holds nothing but numbers, however deep."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_is_numbers, value))
    return isinstance(value, (bool, int, float))


def _described(value: Any) -> Any:
    """Dtypes and shapes in the containers they were given in."""
    if isinstance(value, Mapping):
        return {key: _described(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_described(part) for part in value]
    return [str(value.dtype), list(value.shape)] if hasattr(value, "shape") else value
