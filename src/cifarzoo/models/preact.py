"""Residual networks whose blocks begin with their normalization: PreAct-ResNet and Wide ResNet.

Module names follow torchvision's ResNet: ``layer1``, ``conv1``, ``bn1``, ``downsample``, ``fc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.models.resnet import STAGES
from cifarzoo.names import check_choice, real_number
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["PreActBlock", "PreActBottleneck", "PreActResNet"]

Ending = Literal["norm", "plain"]

KUANGLIU = Layout(
    "kuangliu/pytorch-cifar",
    ((r"\.shortcut\.0\.", ".downsample."), (r"^linear\.", "fc.")),
)
"""models/preact_resnet.py there; its network has no last normalization: ending="plain"."""

XTERNALZ = Layout(
    "xternalz/WideResNet-pytorch",
    (
        (r"^block(\d)\.layer\.", r"layer\1."),
        (r"\.convShortcut\.", ".downsample."),
    ),
)
"""wideresnet.py there."""

PYTORCHCV = Layout(
    "osmr/imgclsmob (pytorchcv)",
    (
        (r"^features\.init_block\.", "conv1."),
        (r"^features\.post_activ\.bn\.", "bn1."),
        *STAGES,
        (r"\.body\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.body\.conv(\d)\.bn\.", r".bn\1."),
        (r"\.identity_conv\.", ".downsample."),
        (r"^output\.", "fc."),
    ),
)
"""preresnet_cifar.py and wrn_cifar.py in its models."""


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after its normalization and ReLU.

    Source: He et al. 2016, arXiv:1603.05027, figure 4e; with dropout, Zagoruyko & Komodakis 2016,
    arXiv:1605.07146, figure 1d. Where the shape changes, the 1x1 convolution of the shortcut sees
    the input after the first normalization and ReLU, as in both authors' code.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution; the shortcut follows it.
        dropout: Probability with which a number between the convolutions becomes 0 in training.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        y: Tensor = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.downsample is None else self.downsample(y)
        y = self.dropout(F.relu(self.bn2(self.conv1(y))))
        total: Tensor = shortcut + self.conv2(y)
        return total


class PreActBottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, each after its normalization and ReLU.

    Source: He et al. 2016, arXiv:1603.05027, appendix and figure 4e.

    Args:
        in_channels: Channels of the input.
        channels: Channels between the convolutions; the output has four times as many.
        stride: Stride of the 3x3 convolution; the shortcut follows it.
        dropout: Probability with which a number before the last convolution becomes 0 in training.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.downsample = None
        if stride != 1 or in_channels != channels * self.expansion:
            self.downsample = nn.Conv2d(
                in_channels, channels * self.expansion, 1, stride=stride, bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        y: Tensor = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.downsample is None else self.downsample(y)
        y = F.relu(self.bn2(self.conv1(y)))
        y = self.dropout(F.relu(self.bn3(self.conv2(y))))
        total: Tensor = shortcut + self.conv3(y)
        return total


class PreActResNet(nn.Module):
    """Residual network whose shortcuts are identities from end to end.

    Sources: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027;
    Zagoruyko & Komodakis 2016, Wide Residual Networks, arXiv:1605.07146, table 1.

    Args:
        blocks: Blocks in each stage; a stage after the first begins with stride 2.
        channels: Channels of the first convolution, then of each stage.
        block: "basic", or "bottleneck", whose outputs have four times the channels.
        ending: "norm" has a normalization and ReLU after the last block; "plain" has none, as in
            kuangliu/pytorch-cifar.
        dropout: Dropout probability between the convolutions of a block, in [0, 1).
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``block``, ``ending`` or ``dropout`` has another value.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (KUANGLIU, XTERNALZ, PYTORCHCV)

    def __init__(
        self,
        blocks: Sequence[int],
        channels: Sequence[int],
        *,
        block: Literal["basic", "bottleneck"] = "basic",
        ending: Ending = "norm",
        dropout: float = 0.0,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "bottleneck"))
        check_choice("ending", ending, ("norm", "plain"))
        probability = real_number(dropout)
        if probability is None or not 0 <= probability < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1; got {dropout!r}")
        made = PreActBlock if block == "basic" else PreActBottleneck
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        before = channels[0]
        stages = []
        for number, (count, width) in enumerate(zip(blocks, channels[1:], strict=True)):
            stage = nn.Sequential()
            for position in range(count):
                stride = 2 if number > 0 and position == 0 else 1
                stage.append(made(before, width, stride, dropout=dropout))
                before = width * made.expansion
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages[:3]
        self.layer4 = stages[3] if len(stages) > 3 else nn.Identity()
        self.bn1 = nn.BatchNorm2d(before) if ending == "norm" else nn.Identity()
        self.relu = nn.ReLU(inplace=True) if ending == "norm" else nn.Identity()
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        x = self.relu(self.bn1(self.layer4(x)))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


@register_family("preact")
def preact(
    *,
    blocks: Sequence[int],
    channels: Sequence[int],
    block: Literal["basic", "bottleneck"],
    ending: Ending = "norm",
    num_classes: int = 10,
) -> PreActResNet:
    """Build a PreAct-ResNet, with random parameters.

    Args:
        blocks: Blocks in each stage.
        channels: Channels of the first convolution, then of each stage.
        block: "basic" or "bottleneck".
        ending: "norm" has a normalization and ReLU after the last block; "plain" has none, as in
            kuangliu/pytorch-cifar.
        num_classes: Size of the output.
    """
    return PreActResNet(blocks, channels, block=block, ending=ending, num_classes=num_classes)


@register_family("wrn")
def wrn(*, depth: int, width: int, dropout: float = 0.0, num_classes: int = 10) -> PreActResNet:
    """Build WRN-depth-width, with random parameters.

    Args:
        depth: Number of convolutions and dense layers, as the paper counts them: 6 n + 4.
        width: Factor of the channels of a ResNet.
        dropout: Dropout probability between the convolutions of a block, in [0, 1); the paper's
            best network has 0.3.
        num_classes: Size of the output.
    """
    channels = (16, 16 * width, 32 * width, 64 * width)
    blocks = ((depth - 4) // 6,) * 3
    return PreActResNet(blocks, channels, dropout=dropout, num_classes=num_classes)
