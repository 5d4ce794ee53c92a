"""Plain torch modules of the families that are measured, for any commit's Trainer.

They are what people bring: torchvision's and timm's own classes with a stem for 32 pixels, and
networks that live in scripts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

__all__ = ["FAMILIES"]


def torchvision_resnet18() -> nn.Module:
    """torchvision's, with the CIFAR stem."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def timm_resnet18() -> nn.Module:
    """timm's, with the CIFAR stem."""
    import timm

    model = timm.create_model("resnet18", num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def mobilenet_v2() -> nn.Module:
    """torchvision's, the first two strides 1 (kuangliu/pytorch-cifar)."""
    model = torchvision.models.mobilenet_v2(num_classes=10)
    model.features[0][0].stride = (1, 1)
    model.features[2].conv[1][0].stride = (1, 1)
    return model


class Residual(nn.Module):
    """Adds what a module does to its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the same shape."""
        return self.inner(x) + x


def convmixer(width: int = 256, depth: int = 8, kernel: int = 5, patch: int = 2) -> nn.Module:
    """ConvMixer-256/8 (Trockman & Kolter 2022, arXiv:2201.09792, figure 3)."""
    blocks = [
        nn.Sequential(
            Residual(
                nn.Sequential(
                    nn.Conv2d(width, width, kernel, groups=width, padding="same"),
                    nn.GELU(),
                    nn.BatchNorm2d(width),
                )
            ),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
            nn.BatchNorm2d(width),
        )
        for _ in range(depth)
    ]
    return nn.Sequential(
        nn.Conv2d(3, width, patch, stride=patch),
        nn.GELU(),
        nn.BatchNorm2d(width),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


class DenseLayer(nn.Module):
    """A bottleneck and a 3x3 convolution, whose output is put behind the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + growth, H, W)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(y)))], 1)


def densenet_bc100() -> nn.Module:
    """DenseNet-BC-100-12 (Huang et al. 2017, arXiv:1608.06993, table 2)."""
    growth, channels = 12, 24
    parts: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(16):
            parts.append(DenseLayer(channels, growth))
            channels += growth
        if block < 2:
            half = channels // 2
            narrow = nn.Conv2d(channels, half, 1, bias=False)
            parts += [nn.BatchNorm2d(channels), nn.ReLU(), narrow, nn.AvgPool2d(2)]
            channels = half
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.ReLU(), *ending)


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after its normalization."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(inputs, channels, 1, stride=stride, bias=False)
            if stride > 1 or inputs != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(y))))


def wrn16(width: int) -> nn.Module:
    """WRN-16-k (Zagoruyko & Komodakis 2016, arXiv:1605.07146, table 1)."""
    channels = [16, 16 * width, 32 * width, 64 * width]
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    for group in range(3):
        inputs, outputs = channels[group], channels[group + 1]
        blocks += [WideBlock(inputs, outputs, 1 + (group > 0)), WideBlock(outputs, outputs, 1)]
    ending = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[3], 10)]
    return nn.Sequential(*blocks, nn.BatchNorm2d(channels[3]), nn.ReLU(), *ending)


def vgg11_bn() -> nn.Module:
    """VGG-11 with batch normalization and one dense layer."""
    features = torchvision.models.vgg11_bn().features
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, 10))


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "torchvision resnet18": torchvision_resnet18,
    "timm resnet18": timm_resnet18,
    "MobileNetV2": mobilenet_v2,
    "ConvMixer-256/8": convmixer,
    "DenseNet-BC-100-12": densenet_bc100,
    "WRN-16-2": lambda: wrn16(2),
    "WRN-16-4": lambda: wrn16(4),
    "VGG-11-BN": vgg11_bn,
}
