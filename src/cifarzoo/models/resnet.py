"""ResNets of four stages, with the ImageNet or the CIFAR stem.

Module and parameter names are torchvision's, so its checkpoints load and its listings match. So do
those of timm, of edadaltocg/detectors and of chenyaofo/pytorch-cifar-models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.names import check_choice
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["KUANGLIU", "PYTORCHCV", "STAGES", "BasicBlock", "Bottleneck", "ResNet", "projection"]

KUANGLIU = Layout(
    "kuangliu/pytorch-cifar, akamaster/pytorch_resnet_cifar10",
    ((r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")),
)
"""models/resnet.py of the one, resnet.py of the other."""

STAGES = (
    (r"^features\.stage(\d)\.", r"layer\1."),
    *((rf"\.unit{number + 1}\.", f".{number}.") for number in range(36)),
)
"""The blocks of pytorchcv's networks, which it counts from 1."""

PYTORCHCV = Layout(
    "osmr/imgclsmob (pytorchcv)",
    (
        (r"^features\.init_block\.conv\.conv\.", "conv1."),  # of the ImageNet stem
        (r"^features\.init_block\.conv\.bn\.", "bn1."),
        (r"^features\.init_block\.conv\.", "conv1."),
        (r"^features\.init_block\.bn\.", "bn1."),
        *STAGES,
        (r"\.body\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.body\.conv(\d)\.bn\.", r".bn\1."),
        (r"\.identity_conv\.conv\.", ".downsample.0."),
        (r"\.identity_conv\.bn\.", ".downsample.1."),
        (r"^output\.", "fc."),
    ),
)
"""resnet.py, resnet_cifar.py and common.py in its models."""

WEIAICUNZAI = Layout(
    "weiaicunzai/pytorch-cifar100",
    (
        (r"^conv1\.0\.", "conv1."),
        (r"^conv1\.1\.", "bn1."),
        *((rf"^conv{stage + 1}_x\.", f"layer{stage}.") for stage in (1, 2, 3, 4)),
        (r"\.residual_function\.0\.", ".conv1."),
        (r"\.residual_function\.1\.", ".bn1."),
        (r"\.residual_function\.3\.", ".conv2."),
        (r"\.residual_function\.4\.", ".bn2."),
        (r"\.residual_function\.6\.", ".conv3."),
        (r"\.residual_function\.7\.", ".bn3."),
        (r"\.shortcut\.", ".downsample."),
    ),
)
"""models/resnet.py there."""

MMPRETRAIN = Layout("open-mmlab/mmpretrain", ((r"^backbone\.", ""), (r"^head\.fc\.", "fc.")))
"""backbones/resnet_cifar.py and heads/linear_head.py in mmpretrain/models."""

Pool = Literal["none", "max"]
_POOLED = 1.25  # of what a mean is without pooling; found were 0.8 to 1 without, 1.6 to 2 with it
_SURE = 0.8  # correlation


class BasicBlock(nn.Module):
    """Applies two 3x3 convolutions with a shortcut (He et al. 2015, arXiv:1512.03385, figure 2).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution; the shortcut follows it.
        shortcut: Module that brings the input to the output's shape. Unless given, it is a 1x1
            convolution where the shapes differ.
    """

    expansion = 1

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
            self.downsample = projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return F.relu_(x)


class Bottleneck(nn.Module):
    """Applies a 3x3 convolution between two of 1x1 (He et al. 2015, arXiv:1512.03385, figure 5).

    The 3x3 convolution has the stride, as in torchvision; in the paper the first 1x1 convolution
    has it. With groups, this is the block of ResNeXt (Xie et al. 2017, arXiv:1611.05431, figure
    3c).

    Args:
        in_channels: Channels of the input.
        channels: A quarter of the channels of the output.
        stride: Stride of the block.
        width: Channels between the convolutions; ``channels`` unless given.
        groups: Groups of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        width: int | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        width, out_channels = width or channels, channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return F.relu_(x)


def projection(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Build a shortcut between different shapes: 1x1 convolution and normalization."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
    )


class ResNet(nn.Module):
    """Residual network of four stages (He et al. 2015, arXiv:1512.03385, table 1).

    Args:
        depths: Blocks in each of the four stages.
        block: "basic", or "bottleneck" as from ResNet-50 on.
        stem: "imagenet" (7x7 convolution of stride 2) or "cifar" (3x3 convolution of stride 1).
        pool: "max" has 3x3 max pooling of stride 2 after the stem; "none" has no pooling. Unless
            given, the ImageNet stem has "max" and the CIFAR stem "none".
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``block``, ``stem`` or ``pool`` has another value; ``depths`` are not 4.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (KUANGLIU, PYTORCHCV, WEIAICUNZAI, MMPRETRAIN)

    def __init__(
        self,
        depths: Sequence[int],
        *,
        block: Literal["basic", "bottleneck"] = "basic",
        stem: Literal["imagenet", "cifar"],
        pool: Pool | None = None,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_choice("block", block, ("basic", "bottleneck"))
        check_choice("stem", stem, ("imagenet", "cifar"))
        if pool is None:
            pool = "max" if stem == "imagenet" else "none"
        check_choice("pool", pool, ("none", "max"))
        if len(depths) != 4:
            raise ArgumentError(f"depths must be numbers of blocks for 4 stages; got {depths!r}")
        self.conv1 = (
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
            if stem == "imagenet"
            else nn.Conv2d(3, 64, 3, padding=1, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool == "max" else nn.Identity()
        made = BasicBlock if block == "basic" else Bottleneck
        self.layer1 = _stage(made, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(made, 64 * made.expansion, 128, depths[1], stride=2)
        self.layer3 = _stage(made, 128 * made.expansion, 256, depths[2], stride=2)
        self.layer4 = _stage(made, 256 * made.expansion, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * made.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits

    def told_options(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Find options by the numbers in tensors, where no name and no shape shows them.

        Max pooling after the stem raises the mean input of the next convolution, and so the means
        in the running statistics after it.

        Args:
            tensors: A state dict with this network's names and shapes.
        """
        if self.conv1.stride != (1, 1):
            return {}  # the ImageNet stem, always with pooling
        weight, bias = (tensors[f"bn1.{name}"].double() for name in ("weight", "bias"))
        # the mean of relu(x) for normally distributed x
        spread = weight.abs().clamp_min(1e-12)
        z = bias / spread
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        means = bias * torch.special.ndtr(z) + spread * density
        expected = tensors["layer1.0.conv1.weight"].double().sum((2, 3)) @ means
        found = tensors["layer1.0.bn1.running_mean"].double()
        correlation = torch.corrcoef(torch.stack((expected, found)))[0, 1]
        if not correlation > _SURE:  # not trained, or in another way
            return {}
        ratio = expected @ found / (expected @ expected)
        return {"pool": "max" if ratio > _POOLED else "none"}


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    channels: int,
    depth: int,
    *,
    stride: int,
) -> nn.Sequential:
    blocks: list[nn.Module] = [block(in_channels, channels, stride)]
    blocks += [block(channels * block.expansion, channels) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


@register_family("resnet")
def resnet(
    *,
    depths: Sequence[int],
    block: Literal["basic", "bottleneck"],
    stem: Literal["imagenet", "cifar"],
    pool: Pool = "none",
    num_classes: int = 10,
) -> ResNet:
    """Build a ResNet, with random parameters.

    Args:
        depths: Blocks in each of the four stages.
        block: "basic" or "bottleneck".
        stem: "imagenet" or "cifar".
        pool: "max" has max pooling after the stem, as in huyvnphan/PyTorch_CIFAR10.
        num_classes: Size of the output.
    """
    return ResNet(depths, block=block, stem=stem, pool=pool, num_classes=num_classes)
