"""A graph as a `torch.nn.Module`: to look at, to train in one's own loop, to recover in.

What compression and quantization have fixed holds while the weights move, whoever's optimizer moves them:

* a masked weight is `w * mask`; masks may be tightened on the way, and never loosened;
* a codebook weight is `values[indices]`: the k values are the parameter, the indices stay;
* with `params`, weights and activations pass through fake quantization (`engine.fake_quantize`). Scales of activations
  stay, and so do those of weights whose grid was chosen: narrower than the weights, or with learned rounding. Scales
  of other weights follow the largest magnitude. With `learned_steps` all of them are parameters, but those that an op
  fixes; zero points stay.
* corrected constants get their correction. A weight with learned rounding starts in the middle of the steps it was
  given, so that only what moves it by half a step or more changes an integer.

Batch norms keep their statistics unless told otherwise (`use_batch_statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.engine.evaluate import evaluate
from toolchain.engine.fake_quantize import (
    StepSizes,
    block_scales,
    fake_quantize,
    fake_weight,
    learned_activation,
    learned_weight,
)
from toolchain.engine.steps import learnable_steps
from toolchain.graph import WEIGHTED, Graph, Node, Op, Structure, weight_inputs
from toolchain.graph.graph import unique_name
from toolchain.quantization import QUANTIZATION_RULES, AffineParams, clamp_is_implied

__all__ = ["GraphModule", "fake_quantize", "rounded_activations"]

_BATCH_NORM_STATISTICS = slice(3, 5)


class GraphModule(nn.Module):
    """Parameters carry the names of the graph's constants, so `state_dict` keys are the user's own; learned steps are
    one vector more, `step_sizes.factors`.

    `forward` takes the graph's inputs as float tensors and returns its outputs, one tensor or a tuple.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        params: Mapping[str, AffineParams] | None = None,
        corrections: Mapping[str, np.ndarray] | None = None,
        structure: Structure | None = None,
        float_nodes: Mapping[str, str] = MappingProxyType({}),
        learned_steps: bool = False,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.params = dict(params or {})
        self.structure = structure or Structure()
        # tensors that are no parameters, and no keys of a state_dict either; `_apply` moves them between devices
        self._held: dict[str, dict[str, Tensor]] = {
            "mask": {n: torch.from_numpy(np.array(m)) for n, m in self.structure.masks.items() if n in graph.constants},
            "indices": {n: torch.from_numpy(b.indices.astype(np.int64)) for n, b in self.structure.codebooks.items()},
            "kept values": {n: torch.from_numpy(b.values != 0) for n, b in self.structure.codebooks.items()},
            "correction": {name: torch.from_numpy(np.array(c)) for name, c in (corrections or {}).items()},
        }
        weights = {node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op)}
        self._weights = {name: _WeightGrid.of(self, name) for name in self.params if name in weights}
        self._held["floor"] = {name: grid.floor for name, grid in self._weights.items()}
        self._operands = _operands(graph, self.params, self._weights)
        self._rounded = rounded_activations(graph, self.params)
        self._plan = _plan(graph, self._rounded)
        self._momentum: float | None = None
        self._watched: frozenset[str] = frozenset()
        self._seen: dict[str, Tensor] = {}
        self._leaves = {name: self._register_constant(name) for name in graph.constants}
        self._groups: dict[str, str] = {}
        self._steps_name: str | None = None
        if learned_steps:
            self._learn_steps(float_nodes)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        scales = self._scales()
        values = {name: self._constant(name, scales) for name in self._leaves}
        for value, tensor in zip(self.graph.inputs, inputs, strict=True):
            values[value.name] = self._round(value.name, tensor, scales)
        for step in self._plan:
            given = [values[name] for name in step.node.inputs]
            result = self._normalise(step.node, given) if step.is_batch_norm else evaluate(step.node, given)
            values[step.output] = self._round(step.output, result, scales)
            for name in step.last_uses:
                del values[name]
        outputs = tuple(values[name] for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    # ---- what holds ----------------------------------------------------------------------------------------

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Hold these masks (bool, shaped as their constants, True = kept) from now on, beside those that hold already:
        what is masked stays so. Raises ValueError for an unknown name or a wrong shape."""
        for name, mask in masks.items():
            if name not in self.graph.constants or mask.shape != self.graph.constants[name].shape:
                raise ValueError(f"no constant {name!r} of shape {mask.shape}")
            held, tensor = (
                self._held["mask"],
                torch.from_numpy(np.array(mask, bool)).to(self._leaves[name].tensor.device),
            )
            held[name] = held[name] & tensor if name in held else tensor

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks that hold at present."""
        return {name: mask.cpu().numpy() for name, mask in self._held["mask"].items()}

    def use_batch_statistics(self, momentum: float | None = 0.1) -> None:
        """Normalise by the statistics of each batch from now on, and let the kept ones follow with `momentum`, as
        torch's own batch norms do in training; with None, by the kept ones again."""
        self._momentum = momentum

    def watch(self, names: Iterable[str]) -> None:
        """Keep these activations of every forward pass, as `seen`."""
        self._watched = frozenset(names)
        self._seen = {}

    @property
    def seen(self) -> Mapping[str, Tensor]:
        """Watched activations of the last forward pass, with their gradients' history."""
        return self._seen

    # ---- what was trained ----------------------------------------------------------------------------------

    def constant(self, name: str) -> Tensor:
        """Present value of a constant as the forward pass uses it: mask, codebook, rounding and correction applied."""
        return self._constant(name, self._scales())

    def trained_constants(self) -> dict[str, np.ndarray]:
        """Present float values by name, mask and codebook applied, before any rounding."""
        with torch.no_grad():
            return {name: self._raw(name).detach().cpu().numpy().copy() for name in self._leaves}

    def trained_structure(self) -> Structure:
        """The structure with the present masks and the codebooks' present values."""
        books = {
            name: replace(book, values=self._book_values(name).detach().cpu().numpy().copy())
            for name, book in self.structure.codebooks.items()
        }
        return self.structure.with_masks(self.masks).with_codebooks(books)

    def trained_scales(self) -> dict[str, np.ndarray]:
        """Present scales, float32 and () or (C,), of what does not simply follow its weights: learned steps and chosen
        grids of weights."""
        chosen = {name: self.params[name].scale for name, grid in self._weights.items() if grid.stays}
        with torch.no_grad():
            scales = {name: scale.cpu().numpy().copy() for name, scale in self._scales().items()}
        return chosen | {name: scales[group] for name, group in self._groups.items()}

    def step_parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of learned steps: relative, and not to be decayed."""
        return () if self._steps_name is None else tuple(self._modules[self._steps_name].parameters())  # type: ignore[union-attr]

    # ---- inside --------------------------------------------------------------------------------------------

    def _learn_steps(self, float_nodes: Mapping[str, str]) -> None:
        found = learnable_steps(self.graph, self.params, float_nodes)
        self._groups = dict(found.groups)
        self._steps_name = unique_name("step_sizes", {name.partition(".")[0] for name in self.graph.constants})
        self._modules[self._steps_name] = StepSizes(found.scales, found.least)

    def _scales(self) -> dict[str, Tensor]:
        return {} if self._steps_name is None else self._modules[self._steps_name]()  # type: ignore[misc]

    def _book_values(self, name: str) -> Tensor:
        """The values of a codebook; one that was zero is what masked and vanished weights share, and stays."""
        return self._leaves[name].tensor * self._held["kept values"][name]

    def _raw(self, name: str) -> Tensor:
        tensor = self._leaves[name].tensor
        if name in self._held["indices"]:
            tensor = self._book_values(name)[self._held["indices"][name]]
        if name in self._held["mask"]:
            tensor = tensor * self._held["mask"][name]
        return tensor

    def _constant(self, name: str, scales: Mapping[str, Tensor]) -> Tensor:
        tensor = self._raw(name)
        if name in self._held["correction"]:
            tensor = tensor + self._held["correction"][name]
        if name in self._weights:
            params, group = self.params[name], self._groups.get(name)
            if group is not None:
                return learned_weight(tensor, scales[group], params)
            return fake_weight(tensor, self._weights[name].scale(tensor, self._held["floor"][name]), params)
        return self._on_grid(name, tensor, self.params[name], scales) if name in self._operands else tensor

    def _round(self, name: str, value: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
        params = self._rounded.get(name)
        if params is not None:
            value = self._on_grid(name, value, params, scales)
        if name in self._watched:
            self._seen[name] = value
        return value

    def _on_grid(self, name: str, value: Tensor, params: AffineParams, scales: Mapping[str, Tensor]) -> Tensor:
        group = self._groups.get(name)
        return fake_quantize(value, params) if group is None else learned_activation(value, scales[group], params)

    def _normalise(self, node: Node, given: list[Tensor]) -> Tensor:
        x, weight, bias, mean, variance = given
        if self._momentum is None or x.numel() == x.shape[1]:
            return evaluate(node, given)
        return F.batch_norm(x, mean, variance, weight, bias, True, self._momentum, node["epsilon"])

    def _register_constant(self, name: str) -> _Leaf:
        array, book = self.graph.constants[name], self.structure.codebooks.get(name)
        tensor = torch.from_numpy(np.array(array if book is None else book.values))
        readers = [n.inputs for n in self.graph.nodes if n.op is Op.BATCH_NORM]
        is_statistic = any(name in inputs[_BATCH_NORM_STATISTICS] for inputs in readers)
        return _register(self, name, tensor, trainable=tensor.is_floating_point() and not is_statistic)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Device and dtype of everything held, as of parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._held = {kind: {name: fn(t) for name, t in held.items()} for kind, held in self._held.items()}
        return self


@dataclass(frozen=True)
class _Leaf:
    """Where a constant lives: its owner's parameter or buffer of this name."""

    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        tensor = self.owner._parameters.get(self.name, self.owner._buffers.get(self.name))
        assert tensor is not None
        return tensor


def _register(root: nn.Module, name: str, tensor: Tensor, *, trainable: bool) -> _Leaf:
    """Put `tensor` under its dotted name, as a parameter or a buffer.

    Straight into the module's tables: as attributes the user's names could be taken (`graph`, `forward`, `constant`).
    """
    *path, leaf = name.split(".")
    owner = root
    for part in path:
        child = owner._modules.get(part) or nn.Module()
        owner._modules[part] = child
        owner = child
    if trainable:
        owner._parameters[leaf] = nn.Parameter(tensor)
    else:
        owner._buffers[leaf] = tensor
    return _Leaf(owner, leaf)


@dataclass(frozen=True)
class _WeightGrid:
    """The scale of one weight: it `stays` as given, or follows the largest magnitude of each channel or block, but not
    below `floor`, (), (C,) or (O, blocks): what others than the weights asked for (room for a bias, a channel far
    smaller than its tensor)."""

    params: AffineParams
    stays: bool
    floor: Tensor

    @classmethod
    def of(cls, module: GraphModule, name: str) -> _WeightGrid:
        weight, params = module.graph.constants[name], module.params[name]
        if params.block is not None:
            own = block_scales(torch.from_numpy(np.array(weight)), params).numpy()
            stays = bool(np.any(params.scale < own)) or name in module._held["correction"]
            held = params.scale if stays else np.where(params.scale > own, params.scale, 0).astype(np.float32)
            return cls(params, stays, torch.from_numpy(held.copy()))
        size = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
        own = (size if params.axis is not None else size.max()) / params.q_max
        is_narrower = bool(np.any(params.scale < own * (1 - 1e-5)))
        floor = np.where(params.scale > own * (1 + 1e-5), params.scale, 0).astype(np.float32)
        stays = is_narrower or name in module._held["correction"]
        return cls(params, stays, torch.from_numpy(params.scale.copy() if stays else floor))

    def scale(self, weight: Tensor, floor: Tensor) -> Tensor:
        """The scale of the present `weight`, on its device."""
        if self.stays:
            return floor
        if self.params.block is not None:
            return torch.maximum(block_scales(weight, self.params), floor)
        sizes = weight.detach().abs()
        own = (sizes.amax() if self.params.axis is None else sizes.flatten(1).amax(1)) / self.params.q_max
        return torch.maximum(own, floor).clamp_min(1e-30)


@dataclass(frozen=True)
class _Step:
    """One node of the plan, without an activation that rounding does anyway, and the tensors that nobody reads after
    it."""

    node: Node
    output: str
    last_uses: tuple[str, ...]
    is_batch_norm: bool

    def __deepcopy__(self, memo: object) -> _Step:
        return self  # nothing of it changes


def _plan(graph: Graph, rounded: Mapping[str, AffineParams]) -> list[_Step]:
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    plan = []
    for index, node in enumerate(graph.nodes):
        uses = tuple(n for n in dict.fromkeys(node.inputs) if last[n] == index and n not in graph.outputs)
        activation: Any = node.attributes.get("activation", "none")
        params = rounded.get(node.output)
        # a step that is learned may widen what ends at 6, but what ends at 0 stays where its zero point is
        if activation == "relu" and params is not None and clamp_is_implied(params, activation):
            plan.append(_Step(node.with_attributes(activation="none"), node.output, uses, False))
        else:
            plan.append(_Step(node, node.output, uses, node.op is Op.BATCH_NORM))
    return plan


def rounded_activations(graph: Graph, params: Mapping[str, AffineParams]) -> dict[str, AffineParams]:
    """Activations that get a grid: all quantized ones but those that an op merely moved from another on the same
    grid."""
    moved = {
        node.output
        for node in graph.nodes
        if not QUANTIZATION_RULES[node.op].rounds and params.get(node.inputs[0]) == params.get(node.output)
    }
    return {name: params[name] for name in graph.activations if name in params and name not in moved}


def _operands(graph: Graph, params: Mapping[str, AffineParams], weights: Iterable[str]) -> set[str]:
    """Constants that are quantized and neither a weight nor a bias: what is added, multiplied, joined."""
    biases = {name for node in graph.nodes if node.op in WEIGHTED for name in node.inputs[2:]}
    return {name for name in params if name in graph.constants} - set(weights) - biases
