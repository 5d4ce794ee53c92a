"""``simple``: two convolutional and three dense layers, the report's first network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.known import known
from cifarzoo.zoo.registry import register_model

__all__ = ["Simple", "simple"]


class Simple(nn.Module):
    """Two convolutions, two poolings, three dense layers.

    Source: the report "Convolutional NN for CIFAR10 image classification (PyTorch)", first network.
    Its listing does not say where the activations stand; here a ReLU follows every convolution and
    hidden dense layer.

    Args:
        num_classes: Size of the output.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, kernel_size=5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3)
        self.pool2 = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * 6 * 6, 128)
        self.fc2 = nn.Linear(128, 32)
        self.fc3 = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, 32, 32)."""
        # the largest of some numbers, cut off at 0, is the largest of the cut-off ones: pool first
        x = F.relu_(self.pool1(self.conv1(images)))  # (B, 8, 14, 14)
        x = self.pool2(F.relu_(self.conv2(x)))  # (B, 16, 6, 6)
        x = torch.flatten(x, 1)  # (B, 576)
        x = F.relu_(self.fc1(x))
        x = F.relu_(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


@register_model(**known("simple"))
def simple(*, num_classes: int = 10) -> Simple:
    """Build the report's first network, with random parameters."""
    return Simple(num_classes)
