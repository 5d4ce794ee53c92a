"""MobileNetV2 and ShuffleNetV2: torchvision's networks with strides for 32x32 images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cifarzoo.zoo.known import register_family

__all__: list[str] = []


@register_family("mobilenet")
def mobilenetv2(*, width: float, num_classes: int = 10) -> nn.Module:
    """Build MobileNetV2, with random parameters.

    Source: Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks,
    arXiv:1801.04381, table 2. The first two strides of 2 are 1 here, as in
    chenyaofo/pytorch-cifar-models, for images of 32x32 pixels.

    Args:
        width: Factor of all channels, the paper's width multiplier.
        num_classes: Size of the output.
    """
    from torchvision.models import MobileNetV2  # when it is built: the import takes long

    model: nn.Module = MobileNetV2(num_classes=num_classes, width_mult=width)
    features = model.get_submodule("features")
    strided = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for layer in strided[:2]:
        layer.stride = (1, 1)
    return model


@register_family("shufflenet")
def shufflenetv2(*, channels: Sequence[int], num_classes: int = 10) -> nn.Module:
    """Build ShuffleNetV2, with random parameters.

    Source: Ma et al. 2018, ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
    Design, arXiv:1807.11164, table 5. The first stride is 1 here, and there is no max pooling, as
    in chenyaofo/pytorch-cifar-models, for images of 32x32 pixels.

    Args:
        channels: Channels of the first convolution, the three stages and the last convolution.
        num_classes: Size of the output.
    """
    from torchvision.models import ShuffleNetV2

    model: nn.Module = ShuffleNetV2([4, 8, 4], [*channels], num_classes=num_classes)
    first = model.get_submodule("conv1.0")
    assert isinstance(first, nn.Conv2d)
    first.stride = (1, 1)
    model.maxpool = nn.Identity()
    return model
