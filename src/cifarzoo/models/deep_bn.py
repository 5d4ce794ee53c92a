"""``deep_bn``: eight convolutional and five dense layers with batch normalization and dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.models.listing import plain_listing
from cifarzoo.zoo.known import known
from cifarzoo.zoo.registry import register_model

__all__ = ["DeepBN", "deep_bn"]


class DeepBN(nn.Module):
    """Eight unpadded convolutions, one pooling, five dense layers.

    Source: the report "Convolutional NN for CIFAR10 image classification (PyTorch)", second
    network. Its listing does not say where the activations stand; here a ReLU follows every
    convolution and hidden dense layer, and the three normalizations stand between a layer and its
    ReLU (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2). Dropout follows the ReLU.

    The image shrinks 32-30-28-26-24, is pooled to 12, and shrinks 12-10-8-6-4.

    Args:
        num_classes: Size of the output.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, kernel_size=3)
        self.bn_conv1 = nn.BatchNorm2d(20, affine=False)
        self.conv2 = nn.Conv2d(20, 24, kernel_size=3)
        self.conv3 = nn.Conv2d(24, 32, kernel_size=3)
        self.conv4 = nn.Conv2d(32, 40, kernel_size=3)
        self.pool1 = nn.MaxPool2d(2)
        self.conv5 = nn.Conv2d(40, 48, kernel_size=3)
        self.bn_conv5 = nn.BatchNorm2d(48, affine=False)
        self.conv6 = nn.Conv2d(48, 56, kernel_size=3)
        self.conv7 = nn.Conv2d(56, 64, kernel_size=3)
        self.conv8 = nn.Conv2d(64, 72, kernel_size=3)
        self.fc1 = nn.Linear(72 * 4 * 4, 256)
        self.bn_fc1 = nn.BatchNorm1d(256, affine=False)
        self.dropout1 = nn.Dropout(0.3)
        self.fc2 = nn.Linear(256, 64)
        self.fc3 = nn.Linear(64, 32)
        self.dropout3 = nn.Dropout(0.1)
        self.fc4 = nn.Linear(32, 16)
        self.fc5 = nn.Linear(16, num_classes)

    def __repr__(self) -> str:
        return plain_listing(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, 32, 32)."""
        x = F.relu(self.bn_conv1(self.conv1(images)))
        x = F.relu_(self.conv2(x))
        x = F.relu_(self.conv3(x))
        # the largest of some numbers, cut off at 0, is the largest of the cut-off ones: pool first
        x = F.relu_(self.pool1(self.conv4(x)))  # (B, 40, 12, 12)
        x = F.relu(self.bn_conv5(self.conv5(x)))
        x = F.relu_(self.conv6(x))
        x = F.relu_(self.conv7(x))
        x = F.relu_(self.conv8(x))  # (B, 72, 4, 4)
        x = torch.flatten(x, 1)  # (B, 1152)
        x = self.dropout1(F.relu(self.bn_fc1(self.fc1(x))))
        x = F.relu_(self.fc2(x))
        x = self.dropout3(F.relu_(self.fc3(x)))
        x = F.relu_(self.fc4(x))
        logits: Tensor = self.fc5(x)
        return logits


@register_model(**known("deep_bn"))
def deep_bn(*, num_classes: int = 10) -> DeepBN:
    """Build the report's second network, with random parameters."""
    return DeepBN(num_classes)
