"""The networks that tests deploy: random weights, of the scale and statistics of a trained network's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tests.zoo.mobilenet_v2 import MobileNetV2
from tests.zoo.resnet18 import ResNet18

Network = tuple[nn.Module, np.ndarray]


def build(name: str, count: int = 40) -> Network:
    """The network in eval mode and `count` inputs (count, C, H, W) for it; the same on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[name](count)


def _mnist(count: int) -> Network:
    from toolchain.zoo.mnist import DigitNet

    inputs = np.clip(0.5 + 0.3 * pictures(count, 1, 28), 0, 1)
    return settled(DigitNet(), inputs), inputs


def _mobilenet_v2(count: int) -> Network:
    inputs = pictures(count, 3, 64)
    return settled(MobileNetV2(width=0.5, classes=100), inputs), inputs


def _resnet18(count: int) -> Network:
    inputs = pictures(count, 3, 64)
    return settled(ResNet18(width=32, classes=100), inputs), inputs


def _efficientnet_lite0(count: int) -> Network:
    """With its trained weights."""
    from toolchain.zoo.efficientnet_lite0 import load

    return load(), np.clip(0.6 * pictures(count, 3, 96), -1, 1)


NETWORKS: dict[str, Callable[[int], Network]] = {
    "mnist": _mnist,
    "mobilenet_v2": _mobilenet_v2,
    "resnet18": _resnet18,
    "efficientnet_lite0": _efficientnet_lite0,
}


def pictures(count: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth random fields of about unit variance: neighbours resemble each other, as in pictures."""
    random = np.random.default_rng(seed)
    fields = np.zeros((count, channels, size, size))
    for cells in (2, 4, 8, size // 2):
        coarse = random.standard_normal((count, channels, cells, cells))
        fields += np.kron(coarse, np.ones((-(-size // cells), -(-size // cells))))[..., :size, :size]
    return (fields / 2).astype(np.float32)


def settled(module: nn.Module, *inputs: np.ndarray, offset: float = 1.5) -> nn.Module:
    """In eval mode, batch norms with scales and offsets of their own and statistics of what they see.

    As in a trained network most activations lie where a ReLU is linear, and a residual branch adds little to what it
    passes by. Without either, a deep random network is chaotic: it amplifies one step of rounding beyond its signal.
    A smaller `offset` leaves more of the picture where zeros around it count for much: in shallow padded networks.
    """
    with torch.no_grad():
        norms = [layer for layer in module.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
        ends = [norm for block in module.modules() for norm in getattr(block, "last_norm", [])]
        for layer in norms:
            layer.weight.uniform_(0.5, 1.0)
            layer.bias.normal_(offset, 0.3)
            layer.momentum = None  # statistics are averages over the passes, not moving ones
        for layer in ends:
            layer.weight.mul_(0.3)
        module.train()
        module(*(torch.from_numpy(array[:16]) for array in inputs))
    return module.eval()


def kept_in_scale(module: nn.Module, *, slope: float = 0.0, last: float = 1.0) -> nn.Module:
    """In eval mode, layers without a norm given weights that keep the variance of what passes (He, arXiv 1502.01852).

    `slope` is that of the activation below zero, 1 where there is none; `last` scales the weights of residual
    branches' ends (`last_layer`). torch's own initial weights let a deep network's signal sink below its biases.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)):
                _scale_weights(layer, slope)
            elif isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
                for name, parameter in layer.named_parameters():
                    parameter.normal_(0.0, parameter.shape[1] ** -0.5 if name.startswith("weight") else 0.1)
        for layer in (end for block in module.modules() for end in getattr(block, "last_layer", [])):
            layer.weight.mul_(last)
    return module.eval()


def _scale_weights(layer: nn.Module, slope: float) -> None:
    weight = layer.weight
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        # a stride leaves each output that share of the kernel's places
        inputs = weight[:, 0].numel() / int(np.prod(layer.stride))
    else:
        inputs = weight[0].numel()
    weight.normal_(0.0, (2.0 / ((1.0 + slope * slope) * inputs)) ** 0.5)
    if layer.bias is not None:
        layer.bias.normal_(0.0, 0.1)


def centred(module: nn.Module, layer: nn.Module, *inputs: np.ndarray, spread: float = 1.0) -> nn.Module:
    """Weights and bias of `layer` changed so that each of its channels has mean 0 and deviation `spread` on the inputs.

    A trained head tells inputs apart; a random one gives nearly the same for all. `layer` has a bias, and is a linear
    layer or a convolution that runs once.
    """
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda layer, given, result: seen.append(result.clone()))
    with torch.no_grad():
        module(*(torch.from_numpy(array[:16]) for array in inputs))
        handle.remove()
        channels = seen[0].movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        scale = spread / channels.std(1)
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.copy_((layer.bias - channels.mean(1)) * scale)
    return module
