"""ResNeXt (Xie et al., arXiv 1611.05431): ResNet's bottleneck, its 3x3 convolution in 32 groups of few channels."""

from __future__ import annotations

import numpy as np
from torch import nn

from tests.zoo.networks import pictures, settled
from tests.zoo.resnet50 import BottleneckResNet


def resnext(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 64)
    module = BottleneckResNet((1, 2, 2, 1), width=16, groups=8, base_width=16, classes=100)
    return settled(module, images), (images,)
