"""The networks, one file per family; importing this package registers them all."""

from cifarzoo.models import elsewhere as elsewhere  # registers timm and torchvision
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
    "Transition",
    "fuse_branches",
    "mobilenetv2",
    "shufflenetv2",
    "vit",
]
