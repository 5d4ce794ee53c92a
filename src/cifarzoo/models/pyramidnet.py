"""PyramidNet: residual blocks that grow a little wider each."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.models.resnet import STAGES
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["PyramidBlock", "PyramidNet"]

PYTORCHCV = Layout(
    "osmr/imgclsmob (pytorchcv)",
    (
        (r"^features\.init_block\.conv\.", "conv1."),
        (r"^features\.init_block\.bn\.", "bn1."),
        (r"^features\.post_activ\.bn\.", "bn2."),
        *STAGES,
        (r"\.body\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.body\.conv(\d)\.bn\.", r".bn\1."),
        (r"(layer\d\.\d+)\.bn\.", r"\1.bn3."),
        (r"^output\.", "fc."),
    ),
)
"""pyramidnet_cifar.py and pyramidnet.py in its models."""


class PyramidBlock(nn.Module):
    """Residual block with a normalization before and after each convolution, and one ReLU.

    Source: Han et al. 2017, arXiv:1610.02915, figure 6d and section 3.2. The shortcut has zeros for
    the new channels.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, at least as many.
        stride: Stride of the first convolution; the shortcut takes means.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.added = stride, channels - in_channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride), rounded up."""
        y: Tensor = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(F.relu_(self.bn2(y))))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        total: Tensor = y + F.pad(x, (0, 0, 0, 0, 0, self.added))
        return total


class PyramidNet(nn.Module):
    """Three stages of residual blocks whose channels grow by the same amount in each block.

    Source: Han et al. 2017, Deep Pyramidal Residual Networks, arXiv:1610.02915, equation 3 and
    table 1; the "additive" network of basic blocks.

    Args:
        depth: Layers, 6 n + 2.
        growth: Number of channels that all blocks together add, the paper's alpha.
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``depth`` is another number.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (PYTORCHCV,)

    def __init__(self, depth: int, growth: int, *, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ArgumentError(f"depth must be 6 n + 2 layers, as 110; got {depth!r}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [round(16 + growth * n / (3 * blocks)) for n in range(3 * blocks + 1)]
        self.layer1 = _stage(widths[: blocks + 1], stride=1)
        self.layer2 = _stage(widths[blocks : 2 * blocks + 1], stride=2)
        self.layer3 = _stage(widths[2 * blocks :], stride=2)
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.bn1(self.conv1(images))
        x = F.relu_(self.bn2(self.layer3(self.layer2(self.layer1(x)))))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(widths: list[int], *, stride: int) -> nn.Sequential:
    """A block between each width and the next."""
    pairs = list(itertools.pairwise(widths))
    strides = [stride, *[1] * (len(pairs) - 1)]
    return nn.Sequential(
        *(PyramidBlock(*pair, each) for pair, each in zip(pairs, strides, strict=True))
    )


@register_family("pyramidnet")
def pyramidnet(*, depth: int, growth: int, num_classes: int = 10) -> PyramidNet:
    """Build PyramidNet, with random parameters.

    Args:
        depth: Layers, 6 n + 2.
        growth: Number of channels that all blocks together add.
        num_classes: Size of the output.
    """
    return PyramidNet(depth, growth, num_classes=num_classes)
