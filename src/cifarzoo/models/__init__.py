"""The networks, one file per family; importing this package registers them all."""

from cifarzoo.models.deep_bn import DeepBN, deep_bn
from cifarzoo.models.resnet import BasicBlock, ResNet, resnet18, resnet18_cifar
from cifarzoo.models.simple import Simple, simple

__all__ = [
    "BasicBlock",
    "DeepBN",
    "ResNet",
    "Simple",
    "deep_bn",
    "resnet18",
    "resnet18_cifar",
    "simple",
]
