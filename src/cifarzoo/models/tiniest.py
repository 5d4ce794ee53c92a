"""Tiniest: depthwise convolutions of several sizes, in fewer than 100,000 parameters."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["MixingBlock", "Tiniest"]

XVEL = Layout(
    "xvel/cifar10-tiniest",
    (
        *((rf"^l{number + 1}\.", f"stage1.{number}.") for number in range(3)),
        *((rf"^l{number + 4}\.", f"stage2.{number}.") for number in range(3)),
        (r"^dsconv\.", "down."),
        (r"^ln([12])\.ln\.", r"norm\1."),
        (r"\.ln\.ln\.", ".norm."),
        (r"\.dwconv([123])\.", r".depthwise\1."),
        (r"\.fc1\.", ".expand."),
        (r"\.fc2\.", ".project."),
        (r"\.rs$", ".scale"),
    ),
)
"""model.py there."""


class MixingBlock(nn.Module):
    """Mixes pixels by depthwise convolutions, then channels by a gated pair of 1x1 convolutions.

    A quarter of the channels stays as it is. One is convolved 3x3, one 7x7, and the last is
    averaged over 3x3 pixels and convolved 7x7 with a dilation of 3. The gate's activation is
    TanhExp, x tanh(exp(x)) (Liu & Di 2020, arXiv:2003.09855).

    Args:
        width: Channels, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        from torchvision.models.convnext import LayerNorm2d  # when built: the import takes long

        part = width // 4
        self.depthwise1 = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.depthwise2 = nn.Conv2d(part, part, 7, padding=3, groups=part)
        self.depthwise3 = nn.Conv2d(part, part, 7, padding=9, dilation=3, groups=part)
        self.norm = LayerNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        same, near, wide, far = x.chunk(4, 1)
        far = self.depthwise3(F.avg_pool2d(far, 3, 1, 1))
        mixed = torch.cat((same, self.depthwise1(near), self.depthwise2(wide), far), 1)
        gate, value = self.expand(self.norm(mixed)).chunk(2, 1)
        # from 4 on, tanh(exp(x)) is 1; exp of large numbers is infinite, and its gradient NaN
        gate = torch.tanh(torch.exp(gate.clamp(max=4))) * gate
        y: Tensor = self.project(gate * value) + x * self.scale
        return y


class Tiniest(nn.Module):
    """Two stages of three blocks each, on maps of 32 and 16 pixels.

    Source: github.com/xvel/cifar10-tiniest (2024), model.py and README. It states 94.4 % on
    the test images after 200 epochs, the mean of five runs.

    Args:
        width: Channels of the first stage, a multiple of 16.
        wide: Channels of the second, a multiple of 16.
        num_classes: Size of the output.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (XVEL,)

    def __init__(self, width: int, wide: int, *, num_classes: int = 10) -> None:
        super().__init__()
        from torchvision.models.convnext import LayerNorm2d

        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.norm1 = LayerNorm2d(width)
        self.stage1 = nn.Sequential(*(MixingBlock(width) for _ in range(3)))
        self.down = nn.Conv2d(width, wide, 4, stride=2, padding=1, groups=16)
        self.norm2 = LayerNorm2d(wide)
        self.stage2 = nn.Sequential(*(MixingBlock(wide) for _ in range(3)))
        self.fc = nn.Linear(wide, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.stage1(self.norm1(self.conv1(images)))
        x = self.stage2(self.norm2(self.down(x)))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


@register_family("tiniest")
def tiniest(*, width: int, wide: int, num_classes: int = 10) -> Tiniest:
    """Build Tiniest, with random parameters.

    Args:
        width: Channels of the first stage.
        wide: Channels of the second stage.
        num_classes: Size of the output.
    """
    return Tiniest(width, wide, num_classes=num_classes)
