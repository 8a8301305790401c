"""Deploy a module of your own from Python, with samples from a DataLoader and no labels."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from toolchain import deploy


class Edges(nn.Module):
    """A small segmentation network: a mask the size of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6())
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, picture):
        small = self.down(picture)
        return self.head(small + self.body(small))


torch.manual_seed(0)
pictures = torch.rand(120, 3, 32, 32)
loader = DataLoader(TensorDataset(pictures), batch_size=10)
out = sys.argv[1] if len(sys.argv) > 1 else "build/examples/own_model"

done = deploy(Edges(), target="arm64", calibration=loader, out=out, store=None)
for result in done.facts["runtimes"]:
    print(result)
