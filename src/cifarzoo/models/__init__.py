"""The networks, one file per family.

A family's file registers its models when it is imported, and it is imported when somebody asks for
one of them, or for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cifarzoo.lazy import lazy_names
from cifarzoo.zoo.known import modules_of

if TYPE_CHECKING:  # each of these is imported when it is first asked for, see _HOMES
    from cifarzoo.models.airbench import AirBench, ConvGroup
    from cifarzoo.models.deep_bn import DeepBN
    from cifarzoo.models.densenet import DenseLayer, DenseNet, Transition
    from cifarzoo.models.ensemble import Ensemble
    from cifarzoo.models.mobile import mobilenetv2, shufflenetv2
    from cifarzoo.models.patches import CCT, ConvMixer, vit
    from cifarzoo.models.preact import PreActBlock, PreActBottleneck, PreActResNet
    from cifarzoo.models.pyramidnet import PyramidBlock, PyramidNet
    from cifarzoo.models.repvgg import RepVGG, RepVGGBlock, fuse_branches
    from cifarzoo.models.resnet import BasicBlock, Bottleneck, ResNet
    from cifarzoo.models.resnet9 import ResNet9
    from cifarzoo.models.resnext import ResNeXt
    from cifarzoo.models.shakeshake import ShakeBlock, ShakeShake
    from cifarzoo.models.simple import Simple
    from cifarzoo.models.small_resnet import SEBlock, SmallResNet, SqueezeExcitation
    from cifarzoo.models.tiniest import MixingBlock, Tiniest
    from cifarzoo.models.vgg import VGG

__all__ = [
    "CCT",
    "VGG",
    "AirBench",
    "BasicBlock",
    "Bottleneck",
    "ConvGroup",
    "ConvMixer",
    "DeepBN",
    "DenseLayer",
    "DenseNet",
    "Ensemble",
    "MixingBlock",
    "PreActBlock",
    "PreActBottleneck",
    "PreActResNet",
    "PyramidBlock",
    "PyramidNet",
    "RepVGG",
    "RepVGGBlock",
    "ResNeXt",
    "ResNet",
    "ResNet9",
    "SEBlock",
    "ShakeBlock",
    "ShakeShake",
    "Simple",
    "SmallResNet",
    "SqueezeExcitation",
    "Tiniest",
    "Transition",
    "fuse_branches",
    "mobilenetv2",
    "shufflenetv2",
    "vit",
]

_HOMES = {
    "airbench": ("AirBench", "ConvGroup"),
    "deep_bn": ("DeepBN",),
    "densenet": ("DenseLayer", "DenseNet", "Transition"),
    "ensemble": ("Ensemble",),
    "mobile": ("mobilenetv2", "shufflenetv2"),
    "patches": ("CCT", "ConvMixer", "vit"),
    "preact": ("PreActBlock", "PreActBottleneck", "PreActResNet"),
    "pyramidnet": ("PyramidBlock", "PyramidNet"),
    "repvgg": ("RepVGG", "RepVGGBlock", "fuse_branches"),
    "resnet": ("BasicBlock", "Bottleneck", "ResNet"),
    "resnet9": ("ResNet9",),
    "resnext": ("ResNeXt",),
    "shakeshake": ("ShakeBlock", "ShakeShake"),
    "simple": ("Simple",),
    "small_resnet": ("SEBlock", "SmallResNet", "SqueezeExcitation"),
    "tiniest": ("MixingBlock", "Tiniest"),
    "vgg": ("VGG",),
}


def load(model: str | None = None) -> None:
    """Import what registers ``model``; what registers any model at all for None."""
    for module in modules_of(model):
        importlib.import_module(f"{__name__}.{module}")


if not TYPE_CHECKING:  # a type checker would take every name for one of ours
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
