"""The networks, one file per family; importing this package registers them all."""

from cifarzoo.models.airbench import AirBench, ConvGroup, airbench94, airbench95, airbench96
from cifarzoo.models.deep_bn import DeepBN, deep_bn
from cifarzoo.models.resnet import (
    BasicBlock,
    ResNet,
    SmallResNet,
    resnet18,
    resnet18_cifar,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)
from cifarzoo.models.simple import Simple, simple

__all__ = [
    "AirBench",
    "BasicBlock",
    "ConvGroup",
    "DeepBN",
    "ResNet",
    "Simple",
    "SmallResNet",
    "airbench94",
    "airbench95",
    "airbench96",
    "deep_bn",
    "resnet18",
    "resnet18_cifar",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "simple",
]
