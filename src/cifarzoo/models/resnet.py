"""ResNets of basic blocks, with the ImageNet or the CIFAR stem.

Module and parameter names are torchvision's, so its checkpoints load and its listings match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.models.recipes import GROWING, MUON, ORIGINAL
from cifarzoo.pretrained import shipped_weights
from cifarzoo.recipe import Augmentation
from cifarzoo.registry import register_model

__all__ = ["BasicBlock", "ResNet", "resnet18", "resnet18_cifar"]

DEFAULT = MUON.replace(
    epochs=28,
    learning_rate=0.09,
    label_smoothing=0.1,
    augmentation=Augmentation(
        flip="alternating", crop_padding=4, cutout=8, contrast=0.15, brightness=0.15
    ),
    image_sizes=GROWING,
)
"""Muon, and small images at first: about two hours on two cores that compute in bfloat16."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2015, arXiv:1512.03385, figure 2).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution; the shortcut follows it.
        shortcut: What brings the input to the output's shape; a 1x1 convolution where the shapes
            differ unless given.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        shortcut: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut
        if shortcut is None and (stride != 1 or in_channels != channels):
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return F.relu_(x)


class ResNet(nn.Module):
    """Residual network of basic blocks (He et al. 2015, arXiv:1512.03385, table 1).

    Args:
        depths: Blocks in each of the four stages.
        stem: "imagenet" (7x7 convolution of stride 2, then max pooling) or "cifar"
            (3x3 convolution of stride 1, no pooling).
        num_classes: Size of the output.
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        stem: Literal["imagenet", "cifar"],
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = (
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
            if stem == "imagenet"
            else nn.Conv2d(3, 64, 3, padding=1, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        self.layer1 = _stage(64, 64, depths[0], stride=1)
        self.layer2 = _stage(64, 128, depths[1], stride=2)
        self.layer3 = _stage(128, 256, depths[2], stride=2)
        self.layer4 = _stage(256, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(in_channels: int, channels: int, depth: int, *, stride: int) -> nn.Sequential:
    blocks = [BasicBlock(in_channels, channels, stride)]
    blocks += [BasicBlock(channels, channels) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


@register_model(
    description="ResNet-18 with the ImageNet stem, torchvision's network.",
    source="He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385, "
    "table 1; accuracy stated by the report's third network",
    parameters=11_181_642,
    macs=37_026_186,
    stated_accuracy=71.0,
    recipes={"default": DEFAULT, "original": ORIGINAL},
    weights=shipped_weights("resnet18"),
)
def resnet18(*, num_classes: int = 10) -> ResNet:
    """Build ResNet-18 as torchvision does, with random parameters."""
    return ResNet((2, 2, 2, 2), stem="imagenet", num_classes=num_classes)


@register_model(
    description="ResNet-18 with the CIFAR stem: 3x3 convolution of stride 1, no max pooling.",
    source="He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385, "
    "table 1 with the stem of section 4.2",
    parameters=11_173_962,
    macs=555_432_330,
    recipes={"default": DEFAULT, "original": ORIGINAL},
    weights=shipped_weights("resnet18_cifar"),
)
def resnet18_cifar(*, num_classes: int = 10) -> ResNet:
    """Build ResNet-18 for 32x32 images, with random parameters."""
    return ResNet((2, 2, 2, 2), stem="cifar", num_classes=num_classes)
