"""DenseNet-BC for 32x32 images."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["DenseLayer", "DenseNet", "Transition"]

PYTORCHCV = Layout(
    "osmr/imgclsmob (pytorchcv)",
    (
        (r"^features\.init_block\.", "conv1."),
        (r"^features\.post_activ\.bn\.", "bn1."),
        (r"^features\.stage(\d)\.trans\d\.conv\.", r"transition\1."),
        (r"^features\.stage(\d)\.", r"block\1."),
        (r"^transition2\.", "transition1."),
        (r"^transition3\.", "transition2."),
        *((rf"\.unit{number + 1}\.", f".{number}.") for number in range(16)),
        (r"\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.conv(\d)\.bn\.", r".bn\1."),
        (r"^output\.", "fc."),
    ),
)
"""densenet_cifar.py and densenet.py in its models."""


class DenseLayer(nn.Module):
    """Puts the output of a bottleneck and a 3x3 convolution behind the input.

    Source: Huang et al. 2017, arXiv:1608.06993, section 3, "Bottleneck layers".

    Args:
        in_channels: Channels of the input.
        growth: Number of channels that the layer adds.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C + growth, H, W)."""
        y = self.conv1(F.relu_(self.bn1(x)))
        return torch.cat((x, self.conv2(F.relu_(self.bn2(y)))), 1)


class Transition(nn.Module):
    """Halves the channels, and takes means of 2x2 pixels (Huang et al. 2017, section 3).

    Args:
        in_channels: Channels of the input.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C / 2, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv(F.relu_(self.bn(x))), 2)


class DenseNet(nn.Module):
    """DenseNet-BC: three dense blocks, in which each layer sees the outputs of all before it.

    Source: Huang et al. 2017, Densely Connected Convolutional Networks, arXiv:1608.06993, section
    3 and table 2.

    Args:
        depth: Layers, 6 n + 4.
        growth: Channels that a layer adds, the paper's k.
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``depth`` is another number.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (PYTORCHCV,)

    def __init__(self, depth: int, growth: int, *, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ArgumentError(f"depth must be 6 n + 4 layers, as 40 or 100; got {depth!r}")
        layers, channels = (depth - 4) // 6, 2 * growth
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.block1 = _block(channels, layers, growth)
        channels += layers * growth
        self.transition1 = Transition(channels)
        self.block2 = _block(channels // 2, layers, growth)
        channels = channels // 2 + layers * growth
        self.transition2 = Transition(channels)
        self.block3 = _block(channels // 2, layers, growth)
        channels = channels // 2 + layers * growth
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.transition1(self.block1(self.conv1(images)))
        x = self.block3(self.transition2(self.block2(x)))
        x = F.relu_(self.bn1(x))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _block(channels: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(channels + n * growth, growth) for n in range(layers)))


@register_family("densenet")
def densenet(*, depth: int, growth: int, num_classes: int = 10) -> DenseNet:
    """Build DenseNet-BC, with random parameters.

    Args:
        depth: Layers, 6 n + 4.
        growth: Channels that a layer adds.
        num_classes: Size of the output.
    """
    return DenseNet(depth, growth, num_classes=num_classes)
