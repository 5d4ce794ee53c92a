"""PreAct-ResNets, wide, pyramidal, dense and grouped networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers.resnets import ConvBlock


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class _KuangliuBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        shortcut = self.shortcut(y) if hasattr(self, "shortcut") else x
        z: Tensor = self.conv2(F.relu(self.bn2(self.conv1(y)))) + shortcut
        return z


class _Kuangliu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64)
        inputs = 64
        for number, width in enumerate((64, 128, 256, 512), 1):
            first = _KuangliuBlock(inputs, width, 1 if number == 1 else 2)
            setattr(self, f"layer{number}", nn.Sequential(first, _KuangliuBlock(width, width, 1)))
            inputs = width
        self.linear = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        y: Tensor = self.linear(F.avg_pool2d(x, 4).flatten(1))
        return y


def kuangliu() -> nn.Module:
    """PreActResNet18 of kuangliu/pytorch-cifar, models/preact_resnet.py.

    Commit 010536eed3a8b762d4ed6076bd77f7ee40a6ff7f.
    """
    return _Kuangliu()


class _XternalzBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), _conv(outputs, outputs)
        self.equal = inputs == outputs
        self.convShortcut = None if self.equal else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        z = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return z + (x if self.convShortcut is None else self.convShortcut(y))


class _XternalzGroup(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = _XternalzBlock(inputs, outputs, stride)
        self.layer = nn.Sequential(first, _XternalzBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class _Xternalz(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(3, 16)
        self.block1 = _XternalzGroup(16, 32, 1)
        self.block2 = _XternalzGroup(32, 64, 2)
        self.block3 = _XternalzGroup(64, 128, 2)
        self.bn1, self.fc = nn.BatchNorm2d(128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        y: Tensor = self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))
        return y


def xternalz() -> nn.Module:
    """WideResNet(16, 10, 2) of xternalz/WideResNet-pytorch, wideresnet.py.

    Commit 24a5cb12347b6eaea989b2a0d2759f7ebb00c9f6.
    """
    return _Xternalz()


# pytorchcv: osmr/imgclsmob, pytorch/pytorchcv/models, 1d6feaf3fa4a18f83edca48848666c93955f2602


class _PreConv(nn.Module):
    """common.py, PreConvBlock."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(inputs), _conv(inputs, outputs, size, stride)
        self.activate = activate

    def activated(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        return F.relu(x) if self.activate else x

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.activated(x))
        return y


class _Activation(nn.Module):
    """preresnet.py, PreResActivation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(x))


class _PreResUnit(nn.Module):
    """preresnet.py, PreResUnit."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, bottleneck: bool = False) -> None:
        super().__init__()
        if bottleneck:
            middle = outputs // 4
            body = OrderedDict(
                conv1=_PreConv(inputs, middle, 1),
                conv2=_PreConv(middle, middle, 3, stride),
                conv3=_PreConv(middle, outputs, 1),
            )
        else:
            body = OrderedDict(
                conv1=_PreConv(inputs, outputs, 3, stride), conv2=_PreConv(outputs, outputs)
            )
        self.body = nn.Sequential(body)
        self.identity_conv = None
        if inputs != outputs or stride != 1:
            self.identity_conv = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.identity_conv is None:
            return x + self.body(x)
        return self.identity_conv(self.body.conv1.activated(x)) + self.body(x)  # type: ignore[union-attr, operator]


class _PyramidUnit(nn.Module):
    """pyramidnet.py, PyrUnit."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=_PreConv(inputs, outputs, 3, stride, activate=False),
                conv2=_PreConv(outputs, outputs),
            )
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.body(x))
        if self.stride != 1:
            x = F.avg_pool2d(x, self.stride, self.stride, ceil_mode=True)
        return y + F.pad(x, (0, 0, 0, 0, 0, self.more))


class _DenseUnit(nn.Module):
    """densenet.py, DenseUnit."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        growth = outputs - inputs
        self.conv1, self.conv2 = _PreConv(inputs, 4 * growth, 1), _PreConv(4 * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv2(self.conv1(x))), 1)


class _Transition(nn.Module):
    """densenet.py, TransitionBlock."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _PreConv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(x), 2)


class _GroupedUnit(nn.Module):
    """resnext.py, ResNeXtUnit with a cardinality of 32 and a width of 4."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // 2
        middle = ConvBlock(width, width, 3, stride)
        middle.conv = nn.Conv2d(width, width, 3, stride, 1, groups=32, bias=False)
        last = ConvBlock(width, outputs, 1, activate=False)
        body = OrderedDict(conv1=ConvBlock(inputs, width, 1), conv2=middle, conv3=last)
        self.body = nn.Sequential(body)
        self.identity_conv = None
        if inputs != outputs or stride != 1:
            self.identity_conv = ConvBlock(inputs, outputs, 1, stride, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.identity_conv is None else self.identity_conv(x)
        return F.relu(self.body(x) + shortcut)


class _SEBlock(nn.Module):
    """common.py, SEBlock."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 16, 1)
        self.conv2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        w = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(w))))


class _SEUnit(nn.Module):
    """seresnet.py, SEResUnit."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, last = ConvBlock(inputs, outputs, 3, stride), ConvBlock(outputs, outputs)
        last.activate = False
        self.body = nn.Sequential(OrderedDict(conv1=first, conv2=last))
        self.se = _SEBlock(outputs)
        self.identity_conv = None
        if inputs != outputs or stride != 1:
            self.identity_conv = ConvBlock(inputs, outputs, 1, stride, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.identity_conv is None else self.identity_conv(x)
        return F.relu(self.se(self.body(x)) + shortcut)


class _Network(nn.Module):
    """features with an init block, stages of units and perhaps a last activation; output."""

    def __init__(
        self,
        stem: nn.Module,
        inputs: int,
        channels: Sequence[Sequence[int]],
        unit: Callable[..., nn.Module],
        *,
        ending: bool = False,
        dense: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(OrderedDict(init_block=stem))
        for i, widths in enumerate(channels):
            stage = nn.Sequential()
            if dense and i > 0:
                stage.add_module(f"trans{i + 1}", _Transition(inputs, inputs // 2))
                inputs //= 2
            for j, width in enumerate(widths):
                stride = 2 if j == 0 and i > 0 and not dense else 1
                stage.add_module(f"unit{j + 1}", unit(inputs, width, stride, **options))
                inputs = width
            self.features.add_module(f"stage{i + 1}", stage)
        if ending:
            self.features.add_module("post_activ", _Activation(inputs))
        self.output = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.features(x).mean((2, 3)))
        return y


def pytorchcv_preresnet20() -> nn.Module:
    """preresnet20_cifar10 of preresnet_cifar.py."""
    channels = [[16] * 3, [32] * 3, [64] * 3]
    return _Network(_conv(3, 16), 16, channels, _PreResUnit, ending=True)


def pytorchcv_preresnet164() -> nn.Module:
    """preresnet164bn_cifar10 of preresnet_cifar.py."""
    channels = [[64] * 18, [128] * 18, [256] * 18]
    return _Network(_conv(3, 16), 16, channels, _PreResUnit, ending=True, bottleneck=True)


def pytorchcv_wrn16_2() -> nn.Module:
    """The class of wrn_cifar.py with the sizes of WRN-16-2."""
    channels = [[32] * 2, [64] * 2, [128] * 2]
    return _Network(_conv(3, 16), 16, channels, _PreResUnit, ending=True)


def pytorchcv_pyramidnet() -> nn.Module:
    """pyramidnet110_a48_cifar10 of pyramidnet_cifar.py."""
    widths = [round(16 + 48 * n / 54) for n in range(1, 55)]
    channels = [widths[:18], widths[18:36], widths[36:]]
    stem = ConvBlock(3, 16, activate=False)
    return _Network(stem, 16, channels, _PyramidUnit, ending=True)


def pytorchcv_densenet() -> nn.Module:
    """densenet40_k12_bc_cifar10 of densenet_cifar.py."""
    channels, inputs = [], 48
    for _ in range(3):
        channels.append([inputs // 2 + 12 * n for n in range(1, 7)])
        inputs = channels[-1][-1]
    return _Network(_conv(3, 24), 24, channels, _DenseUnit, ending=True, dense=True)


def pytorchcv_resnext() -> nn.Module:
    """resnext29_32x4d_cifar10 of resnext_cifar.py."""
    channels = [[256] * 3, [512] * 3, [1024] * 3]
    return _Network(ConvBlock(3, 64), 64, channels, _GroupedUnit)


def pytorchcv_seresnet20() -> nn.Module:
    """seresnet20_cifar10 of seresnet_cifar.py."""
    channels = [[16] * 3, [32] * 3, [64] * 3]
    return _Network(ConvBlock(3, 16), 16, channels, _SEUnit)
