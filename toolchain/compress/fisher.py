"""How much an error in one weight or one channel costs at the outputs, measured on a few samples.

With v a random sign for each output, and L = v . y, the expected square of the output's change is, to first order,

    E |dy|^2 = sum_w Var[dw] E[(dL/dw)^2],

the diagonal of the Fisher matrix (Singh and Alistarh, arXiv 2004.14340; Hutchinson's estimator over v), one backward
pass a sample. Where biases are corrected afterwards the mean of an input channel costs nothing, so that

    dL/dw_oj  becomes  dL/dw_oj - E[x_j] dL/db_o.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.run import as_tensors, run, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.graph import WEIGHTED, Graph, Node, mixes_samples
from toolchain.quantization.statistics import channel_axis


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Noise to signal at the outputs for errors of variance 1: in all elements of a kernel, `(O, J)` by the weight's
    name, and in all elements of a channel, `(C,)` by the activation's."""

    weights: Mapping[str, np.ndarray]
    activations: Mapping[str, np.ndarray]


def measure_sensitivity(
    graph: Graph,
    batches: Iterable[Sequence[np.ndarray]],
    *,
    channel_means: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Sensitivity:
    """Sensitivities of every layer's weight and every real activation, the mean over all samples of `batches`.

    `channel_means` are E[x] `(C,)` of activations; with them, what bias correction will take away is left out. A graph
    that mixes its samples is run on whole batches. Costs a forward and a backward pass a sample.
    """
    random = torch.Generator().manual_seed(seed)
    whole = mixes_samples(graph) is not None
    weights: dict[str, np.ndarray] = {}
    activations: dict[str, np.ndarray] = {}
    count = 0
    with one_thread():
        for batch in batches:
            for sample in [batch] if whole else _rows(batch):
                constants, made = _gradients(graph, sample, random)
                for node in _layers(graph):
                    if node.inputs[1] in constants:
                        _add(weights, node.inputs[1], _kernels(graph, node, constants, channel_means or {}))
                for name, gradient in made.items():
                    _add(activations, name, _channels(gradient, channel_axis(graph, name)))
                count += 1
    return Sensitivity(*({n: total / max(count, 1) for n, total in kind.items()} for kind in (weights, activations)))


def _rows(batch: Sequence[np.ndarray]) -> list[Sequence[np.ndarray]]:
    return [tuple(array[row : row + 1] for array in batch) for row in range(len(batch[0]))]


def _layers(graph: Graph) -> list[Node]:
    """Layers with a weight of their own; of those that share one, the first."""
    found = {n.inputs[1]: n for n in reversed(graph.nodes) if n.op in WEIGHTED and graph.is_constant(n.inputs[1])}
    return list(found.values())


def _gradients(
    graph: Graph, sample: Sequence[np.ndarray], random: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """dL/dw of the constants of layers and dL/dx of activations, for outputs that each have a norm of 1."""
    constants = as_tensors(graph.constants)
    wanted = {name for node in _layers(graph) for name in node.inputs[1:] if graph.is_constant(name)}
    leaves = {name: constants[name].clone().requires_grad_() for name in wanted}
    made: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        if value.requires_grad:
            made[name] = value
        return value

    outputs = run(graph, to_tensors(sample), constants={**constants, **leaves}, hook=keep)
    loss = torch.zeros(())
    for output in (output for output in outputs if output.requires_grad):
        signs = torch.randint(0, 2, output.shape, generator=random) * 2.0 - 1.0
        norm = output.detach().double().square().sum().clamp_min(1e-30).sqrt().float()
        loss = loss + (output * signs).sum() / norm / len(outputs) ** 0.5
    if not loss.requires_grad:
        return {}, {}
    tensors = {**leaves, **made}
    found = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    gradients = {name: g.double() for name, g in zip(tensors, found, strict=True) if g is not None}
    return {n: g for n, g in gradients.items() if n in leaves}, {n: g for n, g in gradients.items() if n in made}


def _kernels(graph: Graph, node: Node, gradients: Mapping[str, Tensor], means: Mapping[str, np.ndarray]) -> np.ndarray:
    """Squared derivatives of each kernel `(O, J)`, less what the mean of its input channel causes."""
    weight = gradients[node.inputs[1]].numpy()
    weight = weight.reshape(*weight.shape[:2], -1)
    bias = gradients.get(node.inputs[2]) if len(node.inputs) > 2 else None
    mean = means.get(node.inputs[0])
    outputs, fan_in = weight.shape[:2]
    if bias is not None and mean is not None and len(mean) % fan_in == 0 and outputs % (len(mean) // fan_in) == 0:
        blocks = np.repeat(mean.reshape(-1, fan_in), outputs * fan_in // len(mean), axis=0)
        weight = weight - (blocks * bias.numpy()[:, None])[..., None]
    return np.asarray((weight**2).sum(axis=2))


def _channels(gradient: Tensor, axis: int) -> np.ndarray:
    others = [a for a in range(gradient.dim()) if a != axis]
    square = gradient.square()
    return np.asarray((square.sum(others) if others else square).reshape(-1).numpy())


def _add(totals: dict[str, np.ndarray], name: str, value: np.ndarray) -> None:
    totals[name] = totals[name] + value if name in totals else value
