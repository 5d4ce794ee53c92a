"""ResNet-9: a short, wide network that was built to train fast."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["ConvNormReLU", "ResNet9", "ResidualPair"]

PAGE = Layout(
    "davidcpage/cifar10-fast",
    (
        (r"^layer(\d)_residual_res(\d)_", r"residual\1.res\2."),
        (r"^(prep|layer\d)_", r"\1."),
        (r"^linear\.", "fc."),
    ),
)
"""dawn.py there."""


class ConvNormReLU(nn.Module):
    """Applies a 3x3 convolution, a normalization and ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W)."""
        return F.relu_(self.bn(self.conv(x)))


class ResidualPair(nn.Module):
    """Adds the output of two convolutions to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res1 = ConvNormReLU(channels, channels)
        self.res2 = ConvNormReLU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y: Tensor = x + self.res2(self.res1(x))
        return y


class ResNet9(nn.Module):
    """Four convolutions, three poolings, two residual pairs, a maximum, one dense layer.

    Source: Page 2018, How to Train Your ResNet, part 4, "Network architecture", and its code
    davidcpage/cifar10-fast, which won DAWNBench. Its logits are an eighth of the dense layer's
    output.

    Args:
        num_classes: Size of the output.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (PAGE,)

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.prep = ConvNormReLU(3, 64)
        self.layer1 = ConvNormReLU(64, 128)
        self.residual1 = ResidualPair(128)
        self.layer2 = ConvNormReLU(128, 256)
        self.layer3 = ConvNormReLU(256, 512)
        self.residual3 = ResidualPair(512)
        self.fc = nn.Linear(512, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W) of at least 8x8."""
        x = self.residual1(self.pool(self.layer1(self.prep(images))))
        x = self.pool(self.layer2(x))
        x = self.residual3(self.pool(self.layer3(x)))
        logits: Tensor = 0.125 * self.fc(x.amax((2, 3)))
        return logits


@register_family("resnet9")
def resnet9(*, num_classes: int = 10) -> ResNet9:
    """Build ResNet-9, with random parameters."""
    return ResNet9(num_classes=num_classes)
