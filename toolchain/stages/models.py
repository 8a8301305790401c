"""Models that an option names: a teacher larger than the reference, a student smaller than the model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import OptionError, UnsupportedError
from toolchain.graph import Graph
from toolchain.progress import Progress

if TYPE_CHECKING:
    from torch import nn


def traced_model(spec: Any, like: Graph, progress: Progress, *, what: str) -> Graph:
    """The model that `spec` names (a name of the zoo, `package.module:function`, a .pt2 file) or is, traced on inputs
    as `like` takes them. A Graph is itself. Raises OptionError where its in- or outputs are others, UnsupportedError
    for ops outside the set."""
    from toolchain.engine.tracing.tracer import trace
    from toolchain.zoo.resolve import load_model

    if isinstance(spec, Graph):
        graph = spec
    else:
        inputs = tuple(np.zeros(value.type.shape, value.type.dtype.numpy) for value in like.inputs)
        graph = trace(load_model(spec, progress=progress).module, inputs)
    ours, theirs = _ends(like), _ends(graph)
    if ours != theirs:
        raise OptionError(
            f"the {what} takes and gives {theirs}, the model {ours}",
            hint=f"wrap the {what} in a module that takes and gives the same",
        )
    return graph


def teacher_model(spec: Any, like: Graph, progress: Progress) -> Graph | nn.Module:
    """A teacher as `traced_model` gives it, or the module itself where it holds what a graph cannot express: it is only
    asked, never exported."""
    from torch import nn

    from toolchain.zoo.resolve import load_model

    if isinstance(spec, Graph):
        return traced_model(spec, like, progress, what="teacher")
    module = load_model(spec, progress=progress).module
    try:
        return traced_model(module, like, progress, what="teacher")
    except UnsupportedError:
        if isinstance(module, nn.Module):
            return module
        raise


def model_digest(spec: Any) -> str | None:
    """Changes with the weights and the code of the model that `spec` names, as far as they can be seen."""
    from torch import nn

    from toolchain.zoo.resolve import load_model

    if spec is None:
        return None
    digest = hashlib.sha256(repr(spec if isinstance(spec, str) else type(spec)).encode())
    if isinstance(spec, Graph):
        arrays = dict(spec.constants)
    else:
        module = spec if isinstance(spec, nn.Module) else load_model(spec).module
        arrays = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _ends(graph: Graph) -> str:
    given = ", ".join(str(value.type) for value in graph.inputs)
    return f"{given} -> {', '.join(str(graph.types[name]) for name in graph.outputs)}"
