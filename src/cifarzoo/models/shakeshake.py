"""Shake-Shake: residual networks of two branches that are mixed at random in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.known import register_family

__all__ = ["ShakeBlock", "ShakeBranch", "ShakeShake", "ShiftedShortcut"]


class ShakeBranch(nn.Module):
    """Applies ReLU, 3x3 convolution and normalization, twice (Gastaldi 2017, section 2).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        y: Tensor = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(F.relu(x))))))
        return y


class ShiftedShortcut(nn.Module):
    """Puts two 1x1 convolutions side by side; one sees the image shifted by a pixel.

    Source: Gastaldi 2017, arXiv:1705.07485, section 2.1, "the downsampling of the skip
    connections". The second convolution sees the pixels one further up and to the left, so with
    stride 2 the two see different pixels.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output, an even number.
        stride: Stride of both convolutions.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 1, stride=stride, bias=False)
        self.conv2 = nn.Conv2d(in_channels, channels // 2, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        x = F.relu(x)
        shifted = F.pad(x[:, :, :-1, :-1], (1, 0, 1, 0))
        y: Tensor = self.bn(torch.cat((self.conv1(x), self.conv2(shifted)), 1))
        return y


class ShakeBlock(nn.Module):
    """Adds two branches and a shortcut; in training the branches are mixed in random shares.

    The shares add up to 1. They are drawn for each image, and once more for the gradient (the
    paper's "Shake-Shake-Image"). In evaluation both are one half. The random numbers come from
    torch's global generator, as those of dropout do.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the branches; the shortcut follows it.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.branch1 = ShakeBranch(in_channels, channels, stride)
        self.branch2 = ShakeBranch(in_channels, channels, stride)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = ShiftedShortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        first, second = self.branch1(x), self.branch2(x)
        mixed: Tensor = 0.5 * (first + second)
        if not self.training:
            return shortcut + mixed
        shares = torch.rand(2, x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device)
        ahead, back = shares[0], shares[1]
        difference = first - second
        # the value has the share `ahead`, the gradient the share `back`
        mixed = second + back * difference + ((ahead - back) * difference).detach()
        return shortcut + mixed


class ShakeShake(nn.Module):
    """Three stages of blocks with two branches.

    Source: Gastaldi 2017, Shake-Shake regularization, arXiv:1705.07485, section 2.1 and table 1,
    with the first convolution of 16 channels as in its author's code. pytorchcv has another
    network, which applies the ReLU after the sum, to the shortcut too. Its weights do not fit.

    Args:
        blocks: Blocks in each stage; the network has ``6 * blocks + 2`` layers.
        width: Channels of a branch in the first stage.
        num_classes: Size of the output.
    """

    def __init__(self, blocks: int, width: int, *, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.bn1(self.conv1(images))
        x = F.relu(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = ShakeBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(ShakeBlock(channels, channels) for _ in range(blocks - 1)))


@register_family("shakeshake")
def shakeshake(*, blocks: int, width: int, num_classes: int = 10) -> ShakeShake:
    """Build a Shake-Shake network of two branches, with random parameters.

    Args:
        blocks: Blocks in each stage.
        width: Channels of a branch in the first stage.
        num_classes: Size of the output.
    """
    return ShakeShake(blocks, width, num_classes=num_classes)
