"""Streams as samples of a model: its graph gives the states that their steps are met in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolchain.graph import Graph
from toolchain.samples import Network, SampleSet, stream_samples
from toolchain.samples.streams import first_step, read_streams
from toolchain.stages.inputs import named_inputs
from toolchain.stages.trace import Trace


def traced_streams(
    module: Any,
    source: Any,
    feedback: Mapping[str, int],
    *,
    calibration_count: int | None = None,
    judging_count: int | None = None,
) -> SampleSet:
    """The samples that `source` gives as streams of `module`; see `read_streams` for what it may be and
    `stream_samples` for the rest. Raises as these do, and as tracing does."""
    name, values, judging = read_streams(source)
    first = first_step(values, feedback, name)
    inputs = named_inputs(module, tuple(first.values()), list(first))
    graph = Trace(example_inputs=inputs)(module).graph
    return stream_samples(
        _in_order(_network(graph), list(first), graph),
        values,
        feedback,
        judging=judging,
        name=name,
        calibration_count=calibration_count,
        judging_count=judging_count,
    )


def _in_order(network: Network, names: Sequence[str], graph: Graph) -> Network:
    """`network` for inputs in the order of `names`."""
    by_name = sorted(names) == sorted(graph.input_names)
    order = [names.index(name) for name in graph.input_names] if by_name else range(len(names))
    return lambda inputs: network([inputs[place] for place in order])


def _network(graph: Graph) -> Network:
    import torch

    from toolchain.engine.run import as_tensors, run, to_tensors

    constants = as_tensors(graph.constants)

    def run_step(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in run(graph, to_tensors(inputs), constants=constants)]

    return run_step
