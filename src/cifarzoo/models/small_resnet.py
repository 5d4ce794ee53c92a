"""ResNets of three stages for 32x32 images, plain or with squeeze and excitation.

Module and parameter names are those of chenyaofo/pytorch-cifar-models.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.models.resnet import KUANGLIU, PYTORCHCV, BasicBlock, projection
from cifarzoo.names import check_choice
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["SEBlock", "SmallResNet", "SqueezeExcitation"]

Shortcut = Literal["pad", "conv"]


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a factor, which follows from the means of all channels.

    Source: Hu et al. 2018, arXiv:1709.01507, section 3 and figure 2.

    Its two dense layers are 1x1 convolutions with biases, as in pytorchcv.

    Args:
        channels: Channels of the input.
        reduction: Number by which the channels are divided for the hidden layer.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // reduction, 1)
        self.conv2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        factors = self.conv2(F.relu_(self.conv1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(factors)


class SEBlock(nn.Module):
    """A basic block whose branch ends in squeeze and excitation.

    Source: Hu et al. 2018, arXiv:1709.01507, figure 3.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution; the shortcut follows it.
        shortcut: Module that brings the input to the output's shape. Unless given, it is a 1x1
            convolution where the shapes differ.
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
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.downsample = shortcut
        if shortcut is None and (stride != 1 or in_channels != channels):
            self.downsample = projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.se(self.bn2(self.conv2(x)))
        x += shortcut
        return F.relu_(x)


class SmallResNet(nn.Module):
    """Residual network of three stages with 16, 32 and 64 channels.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2. In the paper the shortcuts have no
    parameters (option A, "pad"): where a stage begins, every second pixel is kept, and the new
    channels are zeros. Other packages have 1x1 convolutions there (option B, "conv").

    Args:
        blocks: Blocks in each stage; the network has ``6 * blocks + 2`` layers.
        block: "basic", or "se" for squeeze and excitation.
        shortcut: "pad" or "conv".
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``block`` or ``shortcut`` has another value.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (KUANGLIU, PYTORCHCV)

    def __init__(
        self,
        blocks: int,
        *,
        block: Literal["basic", "se"] = "basic",
        shortcut: Shortcut = "pad",
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "se"))
        check_choice("shortcut", shortcut, ("pad", "conv"))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        made = BasicBlock if block == "basic" else SEBlock
        self.layer1 = _stage(made, 16, 16, blocks, shortcut)
        self.layer2 = _stage(made, 16, 32, blocks, shortcut)
        self.layer3 = _stage(made, 32, 64, blocks, shortcut)
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


def _stage(
    block: type[BasicBlock] | type[SEBlock],
    in_channels: int,
    channels: int,
    blocks: int,
    shortcut: Shortcut,
) -> nn.Sequential:
    stride = 1 if in_channels == channels else 2
    padded = _PaddedShortcut(channels - in_channels) if shortcut == "pad" and stride > 1 else None
    first = block(in_channels, channels, stride, shortcut=padded)
    return nn.Sequential(first, *(block(channels, channels) for _ in range(blocks - 1)))


@register_family("small_resnet")
def small_resnet(*, blocks: int, shortcut: Shortcut = "pad", num_classes: int = 10) -> SmallResNet:
    """Build a ResNet of ``6 * blocks + 2`` layers, with random parameters.

    Args:
        blocks: Blocks in each stage.
        shortcut: Kind of the shortcuts between maps of different shapes: "pad" or "conv".
        num_classes: Size of the output.
    """
    return SmallResNet(blocks, shortcut=shortcut, num_classes=num_classes)


@register_family("seresnet")
def seresnet(*, blocks: int, shortcut: Shortcut = "conv", num_classes: int = 10) -> SmallResNet:
    """Build an SE-ResNet of ``6 * blocks + 2`` layers, with random parameters.

    Args:
        blocks: Blocks in each stage.
        shortcut: Kind of the shortcuts between maps of different shapes: "pad" or "conv".
        num_classes: Size of the output.
    """
    return SmallResNet(blocks, block="se", shortcut=shortcut, num_classes=num_classes)
