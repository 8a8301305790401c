"""Runs a graph node by node, each tensor freed after its last use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.evaluate import evaluate
from toolchain.engine.threads import one_thread
from toolchain.graph import Graph, mixes_samples

Hook: TypeAlias = Callable[[str, Tensor], Tensor]
"""Called with each activation's name and value when it is made; what it returns goes on in its place."""


def as_tensors(constants: Mapping[str, np.ndarray], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Constants as tensors that share their memory (read-only by convention); `dtype` converts the float ones."""
    with _no_write_warnings():
        tensors = {name: torch.from_numpy(array) for name, array in constants.items()}
    if dtype is not None:
        tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    return tensors


def run(
    graph: Graph,
    inputs: Sequence[Tensor],
    *,
    constants: Mapping[str, Tensor] | None = None,
    hook: Hook | None = None,
) -> list[Tensor]:
    """Outputs of `graph` for `inputs`, in order. `constants` replaces the graph's own; `hook` sees every activation."""
    values: dict[str, Tensor] = dict(as_tensors(graph.constants) if constants is None else constants)
    for value, tensor in zip(graph.inputs, inputs, strict=True):
        values[value.name] = hook(value.name, tensor) if hook else tensor
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for index, node in enumerate(graph.nodes):
        result = evaluate(node, [values[name] for name in node.inputs])
        values[node.output] = hook(node.output, result) if hook else result
        for name in set(node.inputs):
            if last_use[name] == index and name not in graph.outputs:
                del values[name]
    return [values[name] for name in graph.outputs]


def runnable_batches(graph: Graph, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[Sequence[np.ndarray]]:
    """The batches as they are where the graph treats samples apart, else as many rows at a time as it was traced
    with."""
    apart = mixes_samples(graph) is None
    rows = [value.type.shape[0] for value in graph.inputs] if not apart else []
    for batch in batches:
        if apart:
            yield batch
        else:
            for part in range(-(-len(batch[0]) // rows[0])):
                yield tuple(array[part * n : (part + 1) * n] for array, n in zip(batch, rows, strict=True))


def predict(graph: Graph, batches: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Float outputs over all batches, concatenated on axis 0; of an output without axes, one value a run where there
    are several."""
    constants = as_tensors(graph.constants)
    with torch.inference_mode(), one_thread():
        rows = [
            [o.numpy() for o in run(graph, to_tensors(b), constants=constants)]
            for b in runnable_batches(graph, batches)
        ]
    return [_joined(column) for column in zip(*rows, strict=True)]


def _joined(column: Sequence[np.ndarray]) -> np.ndarray:
    if len(column) == 1:
        return column[0]
    return np.concatenate(column) if column[0].ndim else np.stack(column)


def activations(graph: Graph, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Every activation's float value by name."""
    found: dict[str, np.ndarray] = {}

    def hook(name: str, value: Tensor) -> Tensor:
        found[name] = value.numpy()
        return value

    with torch.inference_mode(), one_thread():
        run(graph, to_tensors(inputs), hook=hook)
    return found


def to_tensors(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Arrays as tensors that share their memory where they can."""
    with _no_write_warnings():
        return [torch.from_numpy(np.asarray(array, order="C")) for array in arrays]


@contextmanager
def _no_write_warnings() -> Iterator[None]:
    """torch warns that a read-only array could be written to through the tensor; nothing here does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        yield
