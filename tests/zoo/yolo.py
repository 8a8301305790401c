"""YOLOv5-like detector (after Redmon and Farhadi, arXiv 1804.02767): SiLU, SPPF, merged levels, decoded boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.zoo.networks import pictures, settled


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels)
        self.cv2 = Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C3(nn.Module):
    """Half the channels through bottlenecks, half past them."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1 = Conv(inputs, hidden)
        self.cv2 = Conv(inputs, hidden)
        self.cv3 = Conv(2 * hidden, outputs)
        self.m = nn.Sequential(Bottleneck(hidden, shortcut))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs // 2)
        self.cv2 = Conv(2 * inputs, outputs)
        self.m = nn.MaxPool2d(kernel_size=kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class Detect(nn.Module):
    """Boxes (x, y, w, h in pixels), objectness and class scores of every anchor."""

    anchors: Tensor

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.values = classes + 5
        self.strides = strides
        anchors = torch.tensor([[[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]], [[30.0, 61.0], [62.0, 45.0], [59.0, 90.0]]])
        self.register_buffer("anchors", anchors)
        self.m = nn.ModuleList(nn.Conv2d(width, 3 * self.values, 1) for width in widths)

    def forward(self, levels: list[Tensor]) -> Tensor:
        found = []
        for index, level in enumerate(levels):
            x = self.m[index](level)
            batch, _, height, width = x.shape
            x = x.view(batch, 3, self.values, height, width).permute(0, 1, 3, 4, 2).contiguous()
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack((columns, rows), 2).expand(1, 3, height, width, 2).float() - 0.5
            sizes = self.anchors[index].view(1, 3, 1, 1, 2)
            xy, wh, scores = x.sigmoid().split((2, 2, self.values - 4), 4)
            xy = (xy * 2 + grid) * self.strides[index]
            wh = (wh * 2) ** 2 * sizes
            found.append(torch.cat((xy, wh, scores), 4).view(batch, 3 * height * width, self.values))
        return torch.cat(found, 1)


class YOLO(nn.Module):
    """(N, 3, H, W) -> (N, anchors, 5 + classes)."""

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        w = width
        self.backbone1 = nn.Sequential(
            Conv(3, w, 6, 2), Conv(w, 2 * w, 3, 2), C3(2 * w, 2 * w), Conv(2 * w, 4 * w, 3, 2)
        )
        self.backbone1[0].conv.padding = (2, 2)
        self.c3_fine = C3(4 * w, 4 * w)
        self.backbone2 = nn.Sequential(Conv(4 * w, 8 * w, 3, 2), C3(8 * w, 8 * w), SPPF(8 * w, 8 * w))
        self.lateral = Conv(8 * w, 4 * w)
        self.upsample = nn.Upsample(None, 2, "nearest")
        self.top_down = C3(8 * w, 4 * w, shortcut=False)
        self.down = Conv(4 * w, 4 * w, 3, 2)
        self.bottom_up = C3(8 * w, 8 * w, shortcut=False)
        self.detect = Detect((4 * w, 8 * w), (8, 16), classes)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.c3_fine(self.backbone1(images))
        coarse = self.lateral(self.backbone2(fine))
        small = self.top_down(torch.cat([self.upsample(coarse), fine], 1))
        large = self.bottom_up(torch.cat([self.down(small), coarse], 1))
        return self.detect([small, large])


def yolo(count: int) -> tuple[nn.Module, tuple[np.ndarray, ...]]:
    images = pictures(count, 3, 96)
    return settled(YOLO(width=8, classes=6), images), (images,)
