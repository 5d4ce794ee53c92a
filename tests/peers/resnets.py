"""ResNets and airbench's networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class _Padded(nn.Module):
    """akamaster's option A: no parameters."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class _Block(nn.Module):
    """A basic block whose shortcut is called as the author calls it."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut_name = shortcut
        way: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            way = _Padded(outputs) if option == "A" else _projection(inputs, outputs, stride)
        setattr(self, shortcut, way)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + getattr(self, self.shortcut_name)(x))


class _ResNet(nn.Module):
    """The common form: conv1, bn1, layer1 and so on, a linear layer."""

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        *,
        shortcut: str,
        head: str,
        option: str = "B",
        pooled: bool = False,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, widths[0]), nn.BatchNorm2d(widths[0])
        self.pooled, self.head_name, self.stages = pooled, head, len(widths)
        inputs = widths[0]
        for number, width in enumerate(widths, 1):
            strides = [1 if number == 1 else 2, *[1] * (blocks - 1)]
            members = []
            for stride in strides:
                members.append(_Block(inputs, width, stride, shortcut, option))
                inputs = width
            setattr(self, f"layer{number}", nn.Sequential(*members))
        setattr(self, head, nn.Linear(inputs, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if self.pooled:
            x = F.max_pool2d(x, 3, 2, 1)
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        y: Tensor = getattr(self, self.head_name)(x.mean((2, 3)))
        return y


def kuangliu() -> nn.Module:
    """ResNet18 of kuangliu/pytorch-cifar, models/resnet.py.

    Commit 6e59390294d96f4e72855b530786b3403bfa150e.
    """
    return _ResNet((64, 128, 256, 512), 2, shortcut="shortcut", head="linear")


def huyvnphan() -> nn.Module:
    """resnet18 of huyvnphan/PyTorch_CIFAR10, cifar10_models/resnet.py.

    Commit 11ff1648237ee2bd0f25ed2de70b9f0716de8e83.
    """
    return _ResNet((64, 128, 256, 512), 2, shortcut="downsample", head="fc", pooled=True)


def akamaster() -> nn.Module:
    """resnet20 of akamaster/pytorch_resnet_cifar10, resnet.py.

    Commit 4e4f8da1ba2611dad2eedf8a23505c0fbd94b983.
    """
    return _ResNet((16, 32, 64), 3, shortcut="shortcut", head="linear", option="A")


def akamaster_b() -> nn.Module:
    """The same with its option B."""
    return _ResNet((16, 32, 64), 3, shortcut="shortcut", head="linear")


def chenyaofo() -> nn.Module:
    """cifar10_resnet20 of chenyaofo/pytorch-cifar-models, pytorch_cifar_models/resnet.py.

    Commit 3e084276788c712aa4d0462d95beca6ae9ba4992.
    """
    return _ResNet((16, 32, 64), 3, shortcut="downsample", head="fc")


def chenyaofo_100() -> nn.Module:
    """cifar100_resnet32 there."""
    return _ResNet((16, 32, 64), 5, shortcut="downsample", head="fc", num_classes=100)


def torchvision_resnet18() -> nn.Module:
    """The package itself."""
    import torchvision

    network: nn.Module = torchvision.models.resnet18()
    return network


def timm_resnet18() -> nn.Module:
    """The package itself."""
    import timm

    network: nn.Module = timm.create_model("resnet18", num_classes=10)
    return network


def detectors() -> nn.Module:
    """resnet18_cifar10 of edadaltocg/detectors, src/detectors/models/resnet.py.

    Commit 0265617e1fd7fa304c1e910c93158c47d7678cc9.
    """
    network = timm_resnet18()
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Linear(512, 10)
    return network


def torchvision_resnet50() -> nn.Module:
    """The package itself, with a stem for 32 pixels."""
    import torchvision

    network: nn.Module = torchvision.models.resnet50(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


class _MMPretrain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = _ResNet((64, 128, 256, 512), 2, shortcut="downsample", head="fc")
        self.head = nn.Module()
        self.head.fc = self.backbone.fc
        self.backbone.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head.fc(self.backbone(x))
        return y


def mmpretrain() -> nn.Module:
    """ResNet-18 of open-mmlab/mmpretrain, configs/resnet/resnet18_8xb16_cifar10.py.

    mmpretrain/models/backbones/resnet_cifar.py, heads/linear_head.py.
    """
    return _MMPretrain()


class _WeiaicunzaiBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            _conv(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential() if same else _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual_function(x) + self.shortcut(x))


class _Weiaicunzai(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_conv(3, 64), nn.BatchNorm2d(64), nn.ReLU())
        self.conv2_x = self._stage(64, 64, 1)
        self.conv3_x = self._stage(64, 128, 2)
        self.conv4_x = self._stage(128, 256, 2)
        self.conv5_x = self._stage(256, 512, 2)
        self.fc = nn.Linear(512, 100)

    def _stage(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        first = _WeiaicunzaiBlock(inputs, outputs, stride)
        return nn.Sequential(first, _WeiaicunzaiBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5_x(self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(x)))))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


def weiaicunzai() -> nn.Module:
    """resnet18 of weiaicunzai/pytorch-cifar100, models/resnet.py.

    Commit 0d41819732d9e0b44094c616a96c7ab731889068.
    """
    return _Weiaicunzai()


class ConvBlock(nn.Module):
    """pytorchcv's ConvBlock of models/common.py."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv, self.bn = _conv(inputs, outputs, size, stride), nn.BatchNorm2d(outputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.activate else x


class ResUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                conv1=ConvBlock(inputs, outputs, stride=stride),
                conv2=ConvBlock(outputs, outputs, activate=False),
            )
        )
        self.identity_conv = None
        if stride != 1 or inputs != outputs:
            self.identity_conv = ConvBlock(inputs, outputs, 1, stride, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.identity_conv is None else self.identity_conv(x)
        return F.relu(self.body(x) + shortcut)


class _ResInitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBlock(3, 64, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), 3, 2, 1)


class PytorchCV(nn.Module):
    def __init__(
        self, stem: nn.Module, widths: Sequence[int], units: int, num_classes: int
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(OrderedDict(init_block=stem))
        inputs = widths[0]
        for i, width in enumerate(widths):
            stage = nn.Sequential()
            for j in range(units):
                stride = 2 if j == 0 and i != 0 else 1
                stage.add_module(f"unit{j + 1}", ResUnit(inputs, width, stride))
                inputs = width
            self.features.add_module(f"stage{i + 1}", stage)
        self.output = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.features(x).mean((2, 3)))
        return y


def pytorchcv() -> nn.Module:
    """resnet20_cifar10 of osmr/imgclsmob, pytorch/pytorchcv/models/resnet_cifar.py.

    Commit 1d6feaf3fa4a18f83edca48848666c93955f2602.
    """
    return PytorchCV(ConvBlock(3, 16), (16, 32, 64), 3, 10)


def pytorchcv_resnet18() -> nn.Module:
    """resnet18 of osmr/imgclsmob, pytorch/pytorchcv/models/resnet.py.

    Commit 0fc95398ab5f9885c359fbb2b66d9176f70232b4.
    """
    return PytorchCV(_ResInitBlock(), (64, 128, 256, 512), 2, 1000)


class _ConvGroup(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for number in range(1, depth + 1):
            layer = nn.Conv2d(inputs if number == 1 else outputs, outputs, 3, 1, 1, bias=False)
            setattr(self, f"conv{number}", layer)
            setattr(self, f"norm{number}", nn.BatchNorm2d(outputs, eps=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        x = first = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        x = self.norm2(self.conv2(x))
        if self.depth == 3:
            x = self.norm3(self.conv3(F.gelu(x))) + first
        return F.gelu(x)


class _Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 / 9)


def _airbench(widths: Sequence[int], depth: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 24, 2),
            nn.GELU(),
            _ConvGroup(24, widths[0], depth),
            _ConvGroup(widths[0], widths[1], depth),
            _ConvGroup(widths[1], widths[2], depth),
            nn.MaxPool2d(3),
            nn.Flatten(),
            nn.Linear(widths[2], 10, bias=False),
            _Scaled(),
        )

    return build


airbench94 = _airbench((64, 256, 256), 2)
"""KellerJordan/cifar10-airbench, airbench94.py, 01a2367af6ab0586cfaedced4b63c53807d3643c."""
airbench95 = _airbench((128, 384, 384), 2)
"""airbench95.py there, 31ce2de3ce976310b23b13138627ba5e4403fb04."""
airbench96 = _airbench((128, 384, 512), 3)
"""airbench96_faster.py there, 2501e327ecdaaa094f18bc2b7f8b12a8848cd48e."""


class _CifarNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        groups = [_ConvGroup(24, 64, 2), _ConvGroup(64, 256, 2), _ConvGroup(256, 256, 2)]
        self.layers = nn.Sequential(nn.GELU(), *groups, nn.MaxPool2d(3))
        self.head = nn.Linear(256, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.whiten(x)).flatten(1)
        y: Tensor = self.head(x) / x.shape[1]
        return y


def airbench94_muon() -> nn.Module:
    """CifarNet of KellerJordan/cifar10-airbench, airbench94_muon.py.

    Commit 096d14d9aa92dcc837ab4f1f288dffea2bbe41b7.
    """
    return _CifarNet()
