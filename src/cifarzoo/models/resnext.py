"""ResNeXt for 32x32 images."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.models.resnet import PYTORCHCV, Bottleneck
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["ResNeXt"]


class ResNeXt(nn.Module):
    """Three stages of bottlenecks whose 3x3 convolutions have groups.

    Source: Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks,
    arXiv:1611.05431, section 5.3 and figure 3c. Module names follow torchvision's ResNet.

    Args:
        blocks: Blocks in each stage; the network has ``9 * blocks + 2`` layers.
        groups: Groups of each 3x3 convolution, the paper's cardinality.
        group_width: Channels of a group in the first stage; each further stage doubles them.
        num_classes: Size of the output.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (PYTORCHCV,)

    def __init__(
        self, blocks: int, *, groups: int, group_width: int, num_classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks, 1, groups=groups, width=groups * group_width)
        self.layer2 = _stage(256, 128, blocks, 2, groups=groups, width=2 * groups * group_width)
        self.layer3 = _stage(512, 256, blocks, 2, groups=groups, width=4 * groups * group_width)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = F.relu_(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(
    in_channels: int, channels: int, blocks: int, stride: int, *, groups: int, width: int
) -> nn.Sequential:
    stage = nn.Sequential(Bottleneck(in_channels, channels, stride, width=width, groups=groups))
    for _ in range(blocks - 1):
        stage.append(Bottleneck(4 * channels, channels, width=width, groups=groups))
    return stage


@register_family("resnext")
def resnext(*, blocks: int, groups: int, group_width: int, num_classes: int = 10) -> ResNeXt:
    """Build ResNeXt, with random parameters.

    Args:
        blocks: Blocks in each stage.
        groups: Groups of each 3x3 convolution.
        group_width: Channels of a group in the first stage.
        num_classes: Size of the output.
    """
    return ResNeXt(blocks, groups=groups, group_width=group_width, num_classes=num_classes)
