"""The small ResNets for 32x32 images: ResNet-20 to ResNet-110."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.models.recipes import GROWING, MUON
from cifarzoo.models.resnet import KUANGLIU, PYTORCHCV, BasicBlock
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.locate import shipped_weights
from cifarzoo.zoo.registry import register_model

__all__ = ["SmallResNet", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]

_SOURCE = (
    "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385, section 4.2 "
    "and table 6"
)

DEFAULT = MUON.replace(epochs=32, image_sizes=GROWING)
"""A sixth of the paper's epochs, with Muon, the first half of them on smaller images."""

Shortcut = Literal["pad", "conv"]


class SmallResNet(nn.Module):
    """Residual network of three stages with 16, 32 and 64 channels.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2. Its shortcuts have no parameters (option
    A, "pad"): where a stage begins, every second pixel is kept, and zeros stand for the new
    channels. Others take convolutions of 1x1 there (option B, "conv").

    Args:
        blocks: Blocks in each stage; the network has ``6 * blocks + 2`` layers.
        shortcut: "pad" or "conv".
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``shortcut`` is neither.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (KUANGLIU, PYTORCHCV)

    def __init__(self, blocks: int, *, shortcut: Shortcut = "pad", num_classes: int = 10) -> None:
        super().__init__()
        if shortcut not in ("pad", "conv"):
            raise ArgumentError(f"shortcut must be 'pad' or 'conv'; got {shortcut!r}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, shortcut)
        self.layer2 = _stage(16, 32, blocks, shortcut)
        self.layer3 = _stage(32, 64, blocks, shortcut)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _PaddedShortcut(nn.Module):
    """Every second pixel, with zeros for the channels that are missing."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))


def _stage(in_channels: int, channels: int, blocks: int, shortcut: Shortcut) -> nn.Sequential:
    if in_channels == channels:
        return nn.Sequential(*(BasicBlock(channels, channels) for _ in range(blocks)))
    padded = _PaddedShortcut(channels - in_channels) if shortcut == "pad" else None
    first = BasicBlock(in_channels, channels, stride=2, shortcut=padded)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


@register_model(
    description="ResNet-20 for 32x32 images, with padded shortcuts.",
    source=_SOURCE,
    parameters=269_722,
    macs=40_552_426,
    stated_accuracy=91.25,
    recipes={"default": DEFAULT},
    weights=shipped_weights("resnet20"),
)
def resnet20(*, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build ResNet-20, with random parameters."""
    return SmallResNet(3, shortcut=shortcut, num_classes=num_classes)


@register_model(
    description="ResNet-32 for 32x32 images, with padded shortcuts.",
    source=_SOURCE,
    parameters=464_154,
    macs=68_864_874,
    stated_accuracy=92.49,
    recipes={"default": DEFAULT},
)
def resnet32(*, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build ResNet-32, with random parameters."""
    return SmallResNet(5, shortcut=shortcut, num_classes=num_classes)


@register_model(
    description="ResNet-44 for 32x32 images, with padded shortcuts.",
    source=_SOURCE,
    parameters=658_586,
    macs=97_177_322,
    stated_accuracy=92.83,
    recipes={"default": DEFAULT},
)
def resnet44(*, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build ResNet-44, with random parameters."""
    return SmallResNet(7, shortcut=shortcut, num_classes=num_classes)


@register_model(
    description="ResNet-56 for 32x32 images, with padded shortcuts.",
    source=_SOURCE,
    parameters=853_018,
    macs=125_489_770,
    stated_accuracy=93.03,
    recipes={"default": DEFAULT},
)
def resnet56(*, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build ResNet-56, with random parameters."""
    return SmallResNet(9, shortcut=shortcut, num_classes=num_classes)


@register_model(
    description="ResNet-110 for 32x32 images, with padded shortcuts.",
    source=_SOURCE,
    parameters=1_727_962,
    macs=252_895_786,
    stated_accuracy=93.39,
    recipes={"default": DEFAULT},
)
def resnet110(*, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build ResNet-110, with random parameters."""
    return SmallResNet(18, shortcut=shortcut, num_classes=num_classes)
