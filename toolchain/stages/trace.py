"""trace: a torch model becomes the neutral graph, and that graph the float reference of everything after."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Trace an `nn.Module` at the shapes of `example_inputs` (arrays or tensors with their batch axis; batch size 1 is
    what the exported files will take). An `ExportedProgram` brings its own.

    Raises UnsupportedError for data-dependent control flow and for ops outside the set, all of them at once.
    """

    name = "trace"
    takes = (TorchModel,)
    gives = TracedModel

    example_inputs: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if hasattr(self.example_inputs, "shape"):
            raise OptionError("example_inputs is one array", hint="give a tuple, one array a model input: (x,)")

    def _run(self, model: nn.Module | ExportedProgram, progress: Progress) -> TracedModel:
        from torch.export import ExportedProgram

        from toolchain.engine.tracing.tracer import trace

        if self.example_inputs is None and not isinstance(model, ExportedProgram):
            raise OptionError("an nn.Module is traced with example inputs", hint="give Trace(example_inputs=(x,))")
        graph = trace(model, self._arrays())
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
        return {"example_inputs": [[str(a.dtype), list(a.shape)] for a in self._arrays() or ()]}

    def _arrays(self) -> tuple[np.ndarray, ...] | None:
        if self.example_inputs is None:
            return None
        arrays = [np.asarray(a.detach().cpu() if hasattr(a, "detach") else a) for a in self.example_inputs]
        return tuple(a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays)
