"""Ranges chosen tensor by tensor, by what each does to the results of the ops that read the tensor.

For a quantized tensor t and the range r that a method proposes, Q_r rounds t to the grid of r and leaves all else in
float, weights as they are; with every op f that reads t

    error(r) = sum_f ( sum |f(.., Q_r(t), ..) - f(.., t, ..)|^2 / sum |f(.., t, ..)|^2 )

the inner sums over all elements of the result and over a few samples. Tensors that must carry the same parameters
(`quantization.groups`) are one choice: moving and selecting commute with rounding to one grid, so that ops behind these
read what they would read directly. An output of the graph counts with its own error as well. It is the objective of
AdaRound (Nagel et al., arXiv 2004.10568, section 3.2), layer by layer, with a choice between published ranges in place
of roundings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isfinite
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.evaluate import evaluate
from toolchain.engine.observe import batches_in_parts
from toolchain.engine.run import as_tensors, to_tensors
from toolchain.engine.threads import one_thread
from toolchain.graph import DType, Graph, Node, Op, mixes_samples
from toolchain.quantization.affine import AffineParams
from toolchain.quantization.domains import Draft, separate_dtypes
from toolchain.quantization.groups import fixed_params, separate_fixed, shared_groups
from toolchain.quantization.islands import find_float_nodes
from toolchain.quantization.masks import limit_masks
from toolchain.quantization.range_methods import PERCENT, RangeMethod, activation_params, choose_range
from toolchain.quantization.ranges import Ranges, range_of
from toolchain.quantization.rules import QUANTIZATION_RULES, Kind
from toolchain.quantization.statistics import TensorStatistics

MARGIN = 0.8
"""Share of min-max's error that a narrower range must stay below. What clipping costs is rare and large, so that a few
samples, among those that the ranges were measured on, show less of it than others will."""

CANDIDATES = tuple(method for method in RangeMethod if method is not RangeMethod.AUTO)

Choices: TypeAlias = dict[str, tuple[RangeMethod, tuple[float, float]]]
"""By tensor: the method whose range served best, and that range."""


def choose_measured(
    graph: Graph,
    statistics: Mapping[str, TensorStatistics],
    batches: Iterable[Sequence[np.ndarray]],
    *,
    dtype: DType = DType.INT8,
    symmetric: bool = False,
    percentile: float = PERCENT,
    methods: Sequence[RangeMethod] = CANDIDATES,
    samples: int = 16,
) -> Choices:
    """The best of `methods` for each activation of the folded float `graph`; min-max where none is clearly better.

    Reads `batches` once, until it has had `samples` samples, and runs each node once for every range of what it reads,
    in the memory of running the graph. Tensors whose parameters are fixed, or that are never quantized, keep min-max.
    Raises ValueError where a method needs a histogram and none was kept.
    """
    options = {"dtype": dtype, "symmetric": symmetric, "percentile": percentile}
    ranges = {
        method: {name: choose_range(found, method, **options) for name, found in statistics.items()}  # type: ignore[arg-type]
        for method in dict.fromkeys((RangeMethod.MINMAX, *methods))
    }
    limited = {method: limit_masks(graph, found) for method, found in ranges.items()}
    float_nodes = find_float_nodes(graph, dtype)
    draft = separate_fixed(separate_dtypes(graph, limited[RangeMethod.MINMAX], float_nodes, dtype, {}))
    trials = _Trials(draft, _candidates(draft, limited, dtype, symmetric))
    with torch.inference_mode(), one_thread():
        for part in _first(graph, batches, samples):
            trials.add(to_tensors(part))
    chosen = dict.fromkeys(statistics, RangeMethod.MINMAX) | trials.chosen(statistics)
    return {name: (method, ranges[method][name]) for name, method in chosen.items()}


Candidates: TypeAlias = dict[str, dict[RangeMethod, AffineParams]]
"""By representative of a group of tensors: parameters by method, none twice, those of min-max first."""


def _candidates(draft: Draft, ranges: Mapping[RangeMethod, Ranges], dtype: DType, symmetric: bool) -> Candidates:
    """Of groups where there is something to choose."""
    members = defaultdict(list)
    groups = shared_groups(draft.graph, draft.float_nodes)
    for name, group in groups.items():
        members[group].append(name)
    found: Candidates = {}
    fixed = fixed_params(draft, groups)
    for group in (group for group in members if group not in fixed):
        distinct: dict[AffineParams, RangeMethod] = {}
        for method, given in ranges.items():
            ends = [range_of(draft.graph, given, _origin(draft.graph, given, name)) for name in members[group]]
            low, high = min(end[0] for end in ends), max(end[1] for end in ends)
            distinct.setdefault(activation_params(low, high, dtype, symmetric=symmetric), method)
        if len(distinct) > 1:
            found[group] = {method: params for params, method in distinct.items()}
    return found


def _origin(graph: Graph, measured: Mapping[str, object], name: str) -> str:
    """The measured tensor that `name` is a requantized copy of, or itself."""
    while name not in measured and name in graph.producers and graph.producers[name].op is Op.REQUANTIZE:
        name = graph.producers[name].inputs[0]
    return name


class _Trials:
    """Sums of squared errors of every candidate at every op that reads its group, batch after batch."""

    def __init__(self, draft: Draft, candidates: Candidates) -> None:
        self.graph, self.candidates = draft.graph, candidates
        groups = shared_groups(draft.graph, draft.float_nodes)
        self._group = {name: group for name, group in groups.items() if group in candidates}
        self._constants = as_tensors(draft.graph.constants)
        self._last_use = {name: node.output for node in draft.graph.nodes for name in node.inputs}
        judged = {name for node in draft.graph.nodes if self._judges(node) for name in node.inputs}
        read = {group for name, group in self._group.items() if name in judged}
        self._alone = {n for n, group in self._group.items() if n in draft.graph.outputs or group not in read}
        self._errors: dict[tuple[str, str], dict[RangeMethod, float]] = {}
        self._powers: dict[tuple[str, str], float] = defaultdict(float)

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Run the graph in float, and each op with each of its quantized inputs rounded by each candidate."""
        values = {**self._constants, **dict(zip(self.graph.input_names, inputs, strict=True))}
        for name in self._alone & values.keys():
            self._try_alone(name, values[name])
        for node in self.graph.nodes:
            given = [values[name] for name in node.inputs]
            values[node.output] = evaluate(node, given)
            if self._judges(node):
                self._try_reader(node, given, values[node.output])
            if node.output in self._alone:
                self._try_alone(node.output, values[node.output])
            for name in set(node.inputs):
                if self._last_use[name] == node.output and name not in self.graph.outputs:
                    del values[name]

    def chosen(self, measured: Mapping[str, object]) -> dict[str, RangeMethod]:
        """The best method of each measured tensor that has a choice."""
        scores: dict[str, dict[RangeMethod, float]] = {g: dict.fromkeys(c, 0.0) for g, c in self.candidates.items()}
        for (group, reader), errors in self._errors.items():
            for method, error in errors.items():
                scores[group][method] += error / (self._powers[group, reader] or 1.0)
        best = {group: _best(score) for group, score in scores.items()}
        origins = {_origin(self.graph, measured, name): group for name, group in self._group.items()}
        return {name: best[group] for name, group in origins.items() if name in measured}

    def _judges(self, node: Node) -> bool:
        """Whether an op's result tells how good its inputs are: not of ops that move or select, nor of indices."""
        rule = QUANTIZATION_RULES[node.op]
        return self.graph.is_real(node.output) and (rule.kind is not Kind.SHARED or rule.rounds)

    def _try_reader(self, node: Node, given: Sequence[Tensor], result: Tensor) -> None:
        for group in dict.fromkeys(self._group[name] for name in node.inputs if name in self._group):
            for method, params in self.candidates[group].items():
                tried = [
                    _rounded(value, params) if self._group.get(name) == group else value
                    for name, value in zip(node.inputs, given, strict=True)
                ]
                self._note(group, node.output, method, evaluate(node, tried) - result)
            self._powers[group, node.output] += _power(result)

    def _try_alone(self, name: str, value: Tensor) -> None:
        group = self._group[name]
        for method, params in self.candidates[group].items():
            self._note(group, f"{name} itself", method, _rounded(value, params) - value)
        self._powers[group, f"{name} itself"] += _power(value)

    def _note(self, group: str, reader: str, method: RangeMethod, difference: Tensor) -> None:
        errors = self._errors.setdefault((group, reader), {})
        errors[method] = errors.get(method, 0.0) + _power(difference)


def _best(scores: Mapping[RangeMethod, float]) -> RangeMethod:
    """The method with the least error; min-max where none beats it clearly. What is not finite, as the log of what is
    rounded to zero, loses."""
    finite = {method: score if isfinite(score) else inf for method, score in scores.items()}
    best = min(finite, key=lambda method: finite[method])
    return best if finite[best] < MARGIN * finite[RangeMethod.MINMAX] else RangeMethod.MINMAX


def _rounded(value: Tensor, params: AffineParams) -> Tensor:
    scale, zero = float(params.scale), int(params.zero_point)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, params.q_min, params.q_max)


def _power(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value)) ** 2


def _first(graph: Graph, batches: Iterable[Sequence[np.ndarray]], samples: int) -> Iterator[Sequence[np.ndarray]]:
    """Batches until there are `samples` samples; the last is cut where the graph treats samples apart."""
    may_cut = mixes_samples(graph) is None
    for parts in batches_in_parts(graph, batches):
        for part in parts:
            yield tuple(array[:samples] for array in part) if may_cut else part
            samples -= len(part[0])
            if samples <= 0:
                return
