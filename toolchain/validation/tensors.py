"""Tensor by tensor: each op of a file, fed the integers the runtime itself fed it, against its exact integer meaning.

Roundings pile up over a network's depth; judged op by op they cannot hide a wrong one, so the first op that is off by
more than the gate allows is the culprit itself, not a later victim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolchain.engine.run import activations
from toolchain.engine.simulate import Simulator
from toolchain.fidelity import Comparison
from toolchain.formats.artifact import Runner
from toolchain.quantization import QuantizedGraph, dequantize, quantize_inputs
from toolchain.validation.results import TensorResult


def compare_tensors(
    model: QuantizedGraph,
    runners: Sequence[Runner],
    samples: Sequence[Sequence[np.ndarray]],
    *,
    takes_integers: bool = True,
) -> tuple[TensorResult, ...]:
    """Results for every activation, in evaluation order.

    `samples` are float inputs with a batch of 1; `takes_integers` says what the files' inputs are.
    """
    simulator = Simulator(model)
    noise = {name: Comparison() for name in model.graph.activations}
    seen: dict[str, tuple[float, float]] = {}
    steps: dict[str, dict[str, int]] = {name: {} for name in model.graph.activations}
    for inputs in samples:
        floats = activations(model.graph, inputs)
        given = quantize_inputs(model, inputs) if takes_integers else inputs
        for runner in runners:
            tensors = runner.tensors(given)
            for name, worst in op_steps(simulator, tensors).items():
                steps[name][runner.name] = max(steps[name].get(runner.name, 0), worst)
            if runner is runners[0]:
                _add_noise(model, noise, tensors, floats)
        for name, value in floats.items():
            low, high = seen.get(name, (np.inf, -np.inf))
            seen[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return tuple(_result(model, name, noise[name], seen[name], steps[name]) for name in model.graph.activations)


def op_steps(simulator: Simulator, tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Largest difference in steps of each node's result from its exact meaning, for nodes whose tensors are all
    seen."""
    model = simulator.model
    found = {}
    for node in model.graph.nodes:
        read = [name for name in node.inputs if not model.graph.is_constant(name)]
        if node.output in tensors and node.output in model.params and all(name in tensors for name in read):
            exact = simulator.node(node, tensors)
            difference = np.abs(exact.astype(np.int64) - tensors[node.output].reshape(exact.shape))
            found[node.output] = int(difference.max(initial=0))
    return found


def _add_noise(
    model: QuantizedGraph,
    noise: Mapping[str, Comparison],
    tensors: Mapping[str, np.ndarray],
    floats: Mapping[str, np.ndarray],
) -> None:
    for name, value in tensors.items():
        if name in noise:
            params = model.params.get(name)
            real = value if params is None else dequantize(value, params)
            noise[name].add([real.reshape(floats[name].shape)], [floats[name]])


def _result(
    model: QuantizedGraph, name: str, noise: Comparison, seen: tuple[float, float], steps: dict[str, int]
) -> TensorResult:
    node = model.graph.producers.get(name)
    params = model.params.get(name)
    low, high = params.bounds if params is not None else seen
    op = node.op.value if node else "input"
    source = str(node.source) if node else "input"
    sqnr_db = noise.sqnr_db if model.graph.is_real(name) else np.inf
    return TensorResult(name, op, source, sqnr_db, low, high, seen[0], seen[1], steps)
