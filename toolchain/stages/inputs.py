"""What a graph takes, as a sample set checks it, and what a model is traced with where nothing else is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from toolchain.graph import Graph
from toolchain.samples import InputType, SampleSet


def input_types(graph: Graph) -> tuple[InputType, ...]:
    """Name, shape and dtype of each input of `graph`, in order."""
    return tuple(InputType(value.name, value.type.shape, value.type.dtype.numpy) for value in graph.inputs)


def sample_inputs(model: Any, samples: SampleSet) -> tuple[Any, ...] | dict[str, Any]:
    """The first sample as example inputs: by name where the samples name forward's parameters, else in order."""
    return named_inputs(model, samples.first_inputs(), samples.input_names)


def named_inputs(model: Any, arrays: tuple[Any, ...], names: Sequence[str]) -> tuple[Any, ...] | dict[str, Any]:
    """Arrays as example inputs: by name where `names` are parameters of forward, else in order."""
    forward = getattr(model, "forward", None)
    if len(names) != len(arrays) or not callable(forward) or not set(names) <= set(signature(forward).parameters):
        return arrays
    return dict(zip(names, arrays, strict=True))


def leaves(value: Any) -> Iterator[Any]:
    """The arrays and numbers in nested containers."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from leaves(part)
    else:
        yield value
