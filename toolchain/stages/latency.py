"""Latency of graphs on this machine: each written to a file, all run in their runtime in turn.

Rounds go through the files in turn, so that a machine that slows down meets all of them, and load each anew: where its
memory comes to lie can double what a run takes. The fastest run counts: what else runs on a machine only ever adds.
Values make no difference: int8 files get ranges from a random input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from toolchain.formats.artifact import Format, Runner
from toolchain.formats.timing import run_times_ms
from toolchain.graph import Graph, fold
from toolchain.quantization import QuantizedGraph, Scheme, assign_params, quantize_inputs

ROUNDS = 7
ROUND_S = 0.01
"""At least so long, and at least three runs, each file runs a round."""


def measure_latencies(
    graphs: Sequence[Graph], *, runtime: Format = Format.TFLITE, scheme: Scheme | None = None, rounds: int | None = None
) -> list[float]:
    """Fastest ms of one run of each graph on one thread, in float, or with a `scheme` in its numbers."""
    files = [_written(fold(graph), runtime, scheme) for graph in graphs]
    found = [[_fastest_ms(*file) for file in files] for _ in range(rounds or ROUNDS)]
    return [min(column) for column in zip(*found, strict=True)]


def _written(
    graph: Graph, runtime: Format, scheme: Scheme | None
) -> tuple[Callable[[], Runner], list[np.ndarray]]:  # fmt: skip
    """What loads the graph's file, and what the file takes."""
    inputs = _random_inputs(graph)
    model = graph if scheme is None else _quantized(graph, inputs, scheme)
    if isinstance(model, QuantizedGraph):
        inputs = quantize_inputs(model, inputs)
    if runtime is Format.ONNX:
        from toolchain.formats.onnx import OnnxRunner, write_onnx

        return partial(OnnxRunner, write_onnx(model), model), inputs
    from toolchain.formats.tflite import TfliteRunner, write_tflite

    return partial(TfliteRunner, write_tflite(model)), inputs


def _random_inputs(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    shapes = [(value.type.shape, value.type.dtype) for value in graph.inputs]
    return [np.asarray(random.standard_normal(s) if d.is_float else np.zeros(s), d.numpy) for s, d in shapes]


def _quantized(graph: Graph, inputs: Sequence[np.ndarray], scheme: Scheme) -> QuantizedGraph:
    from toolchain.engine.observe import observe

    found = observe(graph, [inputs])
    ranges = {name: values.minmax() for name, values in found.items()}
    return assign_params(graph, ranges, scheme)


def _fastest_ms(load: Callable[[], Runner], inputs: Sequence[np.ndarray]) -> float:
    runner = load()
    runner.run(inputs)
    return min(run_times_ms(runner, inputs, seconds=ROUND_S))
