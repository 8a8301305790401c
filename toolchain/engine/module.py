"""A graph as a `torch.nn.Module`: to look at, to train in one's own loop, to recover in.

What compression and quantization have fixed holds while the weights move, whoever's optimizer moves them:

* a masked weight is `w * mask`;
* a codebook weight is `values[indices]`: the k values are the parameter, the indices stay;
* with `params`, weights and activations pass through fake quantization, `x -> scale (clip(round(x / scale) + z) - z)`,
  and corrected biases get their correction; the gradient is that of the clip (straight-through, Bengio et al., arXiv
  1308.3432). Activation scales stay; weight scales follow the weights' largest magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.engine.run import run
from toolchain.graph import WEIGHTED, Codebook, Graph, Op, Structure, weight_inputs
from toolchain.quantization import QUANTIZATION_RULES, AffineParams

_BATCH_NORM_STATISTICS = slice(3, 5)


class GraphModule(nn.Module):
    """Parameters carry the names of the graph's constants, so `state_dict` keys are the user's own.

    `forward` takes the graph's inputs as float tensors and returns its outputs, one tensor or a tuple.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        params: Mapping[str, AffineParams] | None = None,
        corrections: Mapping[str, np.ndarray] | None = None,
        structure: Structure | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.params = dict(params or {})
        self.structure = structure or Structure()
        self._masks = {
            n: torch.from_numpy(np.array(m)) for n, m in self.structure.masks.items() if n in graph.constants
        }
        self._indices = {n: torch.from_numpy(b.indices.astype(np.int64)) for n, b in self.structure.codebooks.items()}
        self._weights = {
            node.inputs[at] for node in graph.nodes for at in weight_inputs(node.op) if node.inputs[at] in self.params
        }
        self._floors = {name: _scale_floor(graph.constants[name], self.params[name]) for name in self._weights}
        self._operands = _operands(graph, self.params, self._weights)
        self._corrections = {name: torch.from_numpy(np.array(c)) for name, c in (corrections or {}).items()}
        self._rounded = rounded_activations(graph, self.params)
        statistics = {
            n for node in graph.nodes if node.op is Op.BATCH_NORM for n in node.inputs[_BATCH_NORM_STATISTICS]
        }
        self._leaves: dict[str, _Leaf] = {}
        for name, array in graph.constants.items():
            book = self.structure.codebooks.get(name)
            tensor = torch.from_numpy(np.array(array if book is None else book.values))
            trainable = tensor.is_floating_point() and name not in statistics
            self._leaves[name] = _register(self, name, tensor, trainable=trainable)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        constants = {name: self.constant(name) for name in self._leaves}
        outputs = run(self.graph, inputs, constants=constants, hook=self._fake_quantize if self.params else None)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def constant(self, name: str) -> Tensor:
        """Present value of a constant as the forward pass uses it: mask, codebook, rounding and correction applied."""
        tensor = self._held(name)
        if name in self._corrections:
            return tensor + self._corrections[name].to(tensor.device)
        if name in self._operands:
            return fake_quantize(tensor, self.params[name])
        if name in self._weights:
            return _fake_weight(tensor, self.params[name], self._floors[name])
        return tensor

    def trained_constants(self) -> dict[str, np.ndarray]:
        """Present float values by name, mask and codebook applied, before any rounding."""
        with torch.no_grad():
            return {name: self._held(name).detach().cpu().numpy().copy() for name in self._leaves}

    def trained_structure(self) -> Structure:
        """The structure with the codebooks' present values."""
        books = {
            name: Codebook(self._leaves[name].tensor.detach().cpu().numpy().copy(), book.indices)
            for name, book in self.structure.codebooks.items()
        }
        return self.structure.with_codebooks(books)

    def _held(self, name: str) -> Tensor:
        tensor = self._leaves[name].tensor
        if name in self._indices:
            tensor = tensor[self._indices[name].to(tensor.device)]
        if name in self._masks:
            tensor = tensor * self._masks[name].to(tensor.device)
        return tensor

    def _fake_quantize(self, name: str, value: Tensor) -> Tensor:
        params = self._rounded.get(name)
        if params is None:
            return value
        return fake_quantize(value, params)


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


def rounded_activations(graph: Graph, params: Mapping[str, AffineParams]) -> dict[str, AffineParams]:
    """Activations that get a grid: all quantized ones but those that an op merely moved from another on the same
    grid."""
    moved = {
        node.output
        for node in graph.nodes
        if not QUANTIZATION_RULES[node.op].rounds and params.get(node.inputs[0]) == params.get(node.output)
    }
    return {name: params[name] for name in graph.activations if name in params and name not in moved}


def _operands(graph: Graph, params: Mapping[str, AffineParams], weights: set[str]) -> set[str]:
    """Constants that are quantized and neither a weight nor a bias: what is added, multiplied, joined."""
    biases = {name for node in graph.nodes if node.op in WEIGHTED for name in node.inputs[2:]}
    return {name for name in params if name in graph.constants} - weights - biases


def _scale_floor(weight: np.ndarray, params: AffineParams) -> Tensor:
    """Scales that follow from more than the weights (room for a bias, a channel far smaller than its tensor); else
    0."""
    size = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    own = (size if params.axis is not None else size.max()) / params.q_max
    return torch.from_numpy(np.where(params.scale > own * (1 + 1e-5), params.scale, 0).astype(np.float32))


def _fake_weight(weight: Tensor, params: AffineParams, floor: Tensor) -> Tensor:
    sizes = weight.detach().abs()
    own = (sizes.amax() if params.axis is None else sizes.flatten(1).amax(1)) / params.q_max
    scale = torch.maximum(own, floor.to(own.device)).clamp_min(1e-30)
    if params.axis is None:
        return torch.fake_quantize_per_tensor_affine(weight, float(scale), 0, params.q_min, params.q_max)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, params.axis, params.q_min, params.q_max)


def fake_quantize(value: Tensor, params: AffineParams) -> Tensor:
    """`value` rounded to the grid of per-tensor `params`, in its own float type."""
    scale, zero = float(params.scale.max()), int(params.zero_point.flat[0])
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, params.q_min, params.q_max)
