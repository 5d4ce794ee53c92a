"""VGG with batch normalization and one dense layer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.zoo.known import register_family

__all__ = ["VGG"]


class VGG(nn.Module):
    """VGG: 3x3 convolutions with normalization, five poolings, the mean, one dense layer.

    Source: Simonyan & Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image
    Recognition, arXiv:1409.1556, table 1. The convolutions are torchvision's ``features``. Two
    things differ from the paper, as in kuangliu/pytorch-cifar: there is batch normalization, and
    one dense layer instead of three. Poolings of an odd map round up, so that a recipe may begin
    with images smaller than 32 pixels; at 32 pixels no map is odd.

    Args:
        table: The column of the paper's table: "A" for 11 layers, "B" for 13, "D" for 16, "E" for
            19.
        num_classes: Size of the output.
    """

    def __init__(self, table: Literal["A", "B", "D", "E"], *, num_classes: int = 10) -> None:
        super().__init__()
        from torchvision.models import vgg  # when it is built: the import takes long

        self.features = vgg.make_layers(vgg.cfgs[table], batch_norm=True)
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W) of any size."""
        x = F.adaptive_avg_pool2d(self.features(images), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


@register_family("vgg")
def vgg_bn(*, table: Literal["A", "B", "D", "E"], num_classes: int = 10) -> VGG:
    """Build VGG with batch normalization, with random parameters.

    Args:
        table: The column of the paper's table.
        num_classes: Size of the output.
    """
    return VGG(table, num_classes=num_classes)
