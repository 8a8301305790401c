"""A segment's weights learned together, so that its results are those of the float model.

    min over V and biases of  sum_outputs |y - t|^2 / |t|^2  +  lambda(progress) softness(V)

y is what the segment computes from the inputs it meets in the quantized network, t what the float model gives there
(AdaRound, Nagel et al., arXiv 2004.10568, one layer and its activation; BRECQ, Li et al., arXiv 2102.05426, a block).
Elements of the inputs and of the activations inside are left unrounded at random, half of them (QDrop, Wei et al.,
arXiv 2203.05740), so that what is learned does not lean on one pattern of rounding. Samples kept apart decide in the
end: where the hardened weights are no nearer to the float results on them, the segment stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.compress.rounding.learned import Change, RoundedWeight
from toolchain.compress.rounding.segments import Segment
from toolchain.compress.rounding.soft import SoftWeight, beta_at
from toolchain.compress.rounding.streams import Streams
from toolchain.engine.run import run
from toolchain.graph import WEIGHTED, Graph, Value
from toolchain.quantization import QuantizedGraph, dequantize

DROP = 0.5
APART = 8
"""One sample in so many decides whether a segment's learning is kept."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a segment learns: `steps` of Adam on `batch` samples. `softness` is the final weight of the regulariser,
    which starts after the share `warmup` of the steps."""

    steps: int
    batch: int
    rate: float = 3e-2
    bias_rate: float = 1e-3
    softness: float = 1.0
    warmup: float = 0.2


@dataclass(frozen=True)
class Outcome:
    """Error of the segment's results on the samples kept apart, as a share of their power, before and after."""

    before: float
    after: float
    changes: Mapping[str, Change]


def reconstruct(
    streams: Streams,
    targets: Streams,
    model: QuantizedGraph,
    segment: Segment,
    weights: Mapping[str, RoundedWeight],
    recipe: Recipe,
    seed: int,
) -> Outcome:
    """Learn `weights`, all read in `segment`. `streams` stands in front of the segment, with the constants that hold
    so far (those of `model`), and `targets` behind it."""
    learner = _Learner(streams, targets, model, segment, weights)
    generator = torch.Generator().manual_seed(seed)
    training, judging = _parts(streams)
    before = learner.error(judging, streams.constants)
    learner.train(training, recipe, generator)
    hard = learner.hardened()
    after = learner.error(judging, {**streams.constants, **hard})
    if not after < before:
        return Outcome(before, before, {})
    return Outcome(before, after, learner.changes(model))


class _Learner:
    def __init__(
        self,
        streams: Streams,
        targets: Streams,
        model: QuantizedGraph,
        segment: Segment,
        weights: Mapping[str, RoundedWeight],
    ) -> None:
        self._streams, self._targets, self._segment = streams, targets, segment
        self._params = {name: model.params[name] for name in weights}
        self._graph = _as_graph(model.graph, segment)
        self._outputs = [name for name in segment.outputs if model.graph.is_real(name)]
        self._round = streams.hook()
        self._soft = {
            name: SoftWeight.of(model.graph.constants[name], model.integers[name], model.params[name], weight.kept)
            for name, weight in weights.items()
        }
        self._biases = {
            node.inputs[2]: streams.constants[node.inputs[2]].clone().requires_grad_()
            for node in segment.nodes
            if node.op in WEIGHTED and node.inputs[1] in weights and len(node.inputs) == 3
        }

    def train(self, samples: Sequence[int], recipe: Recipe, generator: torch.Generator) -> None:
        logits = [soft.logits for soft in self._soft.values()]
        groups: list[dict[str, Any]] = [
            {"params": logits, "lr": recipe.rate},
            {"params": list(self._biases.values()), "lr": recipe.bias_rate * self._bias_size()},
        ]
        optimizer = torch.optim.Adam(groups)
        rates = [group["lr"] for group in groups]
        order: list[int] = []
        for step in range(recipe.steps):
            progress = step / recipe.steps
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (0.1 + 0.45 * (1 + cos(pi * progress)))
            while len(order) < recipe.batch:
                order += [samples[i] for i in torch.randperm(len(samples), generator=generator).tolist()]
            chosen, order = order[: recipe.batch], order[recipe.batch :]
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(chosen, generator) + self._softness(progress, recipe)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _bias_size(self) -> float:
        sizes = [float(bias.detach().square().mean().sqrt()) for bias in self._biases.values()]
        return max(sizes, default=1.0)

    def _softness(self, progress: float, recipe: Recipe) -> Tensor:
        share = (progress - recipe.warmup) / (1 - recipe.warmup)
        if share <= 0:
            return torch.zeros(())
        total = torch.stack([soft.softness(beta_at(share)) for soft in self._soft.values()]).mean()
        return recipe.softness * share * total

    def _loss(self, samples: Sequence[int], generator: torch.Generator) -> Tensor:
        constants = {name: soft.values() for name, soft in self._soft.items()}
        constants = {**self._streams.constants, **constants, **self._biases}

        def dropped(name: str, value: Tensor) -> Tensor:
            rounded = self._round(name, value)
            if rounded is value or name in self._outputs:
                return rounded
            return torch.where(_coin(value, generator), value, rounded)

        inputs = []
        for name in self._segment.inputs:
            rounded, real = self._take(name, samples)
            inputs.append(torch.where(_coin(real, generator), real, rounded) if real.is_floating_point() else real)
        return self._relative_error(self._run(inputs, constants, dropped), samples)

    def error(self, samples: Sequence[int], constants: Mapping[str, Tensor]) -> float:
        """Relative error of the results on `samples`, everything rounded."""
        parts = []
        with torch.no_grad():
            for sample in samples:
                inputs = [self._take(name, [sample])[0] for name in self._segment.inputs]
                parts.append(float(self._relative_error(self._run(inputs, constants, self._round), [sample])))
        return float(np.mean(parts))

    def _run(
        self, inputs: Sequence[Tensor], constants: Mapping[str, Tensor], hook: Callable[[str, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        given = {name: constants[name] for name in self._graph.constants}
        # what reaches the segment has been rounded, or left unrounded, already
        arriving = set(self._segment.inputs)
        outputs = run(
            self._graph, inputs, constants=given, hook=lambda name, x: x if name in arriving else hook(name, x)
        )
        return dict(zip(self._graph.outputs, outputs, strict=True))

    def _relative_error(self, results: Mapping[str, Tensor], samples: Sequence[int]) -> Tensor:
        total = torch.zeros(())
        for name in self._outputs:
            target = _gather(self._targets.real_unit, name, samples)
            total = total + (results[name] - target).square().sum() / target.square().sum().clamp_min(1e-12)
        return total

    def _take(self, name: str, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The rounded and the real input of the segment."""
        streams = self._streams
        return _gather(streams.rounded_unit, name, samples), _gather(streams.real_unit, name, samples)

    def hardened(self) -> dict[str, Tensor]:
        found = {}
        for name, soft in self._soft.items():
            found[name] = torch.from_numpy(dequantize(soft.integers(), self._params[name]))
        return found | {name: bias.detach() for name, bias in self._biases.items()}

    def changes(self, model: QuantizedGraph) -> dict[str, Change]:
        found: dict[str, Change] = {}
        for name, soft in self._soft.items():
            params = self._params[name]
            biases = {
                node.inputs[2]: self._biases[node.inputs[2]].detach().numpy() - model.graph.constants[node.inputs[2]]
                for node in self._segment.nodes
                if node.op in WEIGHTED and node.inputs[1] == name and len(node.inputs) == 3
            }
            found[name] = Change(name, soft.integers().astype(params.dtype.numpy), params, biases)
        return found


def _parts(streams: Streams) -> tuple[list[int], list[int]]:
    """Samples to learn from, and those kept apart, spread evenly."""
    everything = list(range(streams.units))
    apart = everything[APART - 1 :: APART]
    return ([i for i in everything if i not in set(apart)], apart) if apart else (everything, everything)


def _gather(unit_of: Callable[[str, int], Tensor], name: str, samples: Sequence[int]) -> Tensor:
    parts = [unit_of(name, sample) for sample in samples]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _coin(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator) < DROP


def _as_graph(graph: Graph, segment: Segment) -> Graph:
    read = {name for node in segment.nodes for name in node.inputs}
    constants = {name: array for name, array in graph.constants.items() if name in read}
    inputs = tuple(Value(name, graph.types[name]) for name in segment.inputs)
    return Graph(inputs, segment.outputs, segment.nodes, constants)
