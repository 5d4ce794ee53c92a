"""Networks that are neither ResNets nor near to them."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for x in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if isinstance(x, int):
                layers += [nn.Conv2d(inputs, x, 3, padding=1), nn.BatchNorm2d(x), nn.ReLU()]
                inputs = x
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers, nn.AvgPool2d(1, 1))
        self.classifier = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x).flatten(1))
        return y


def kuangliu_vgg() -> nn.Module:
    """VGG("VGG11") of kuangliu/pytorch-cifar, models/vgg.py.

    Commit 64fe317af0709823a23de5010c173c1912881965.
    """
    return _VGG()


def chenyaofo_mobilenet() -> nn.Module:
    """cifar10_mobilenetv2_x0_5 of chenyaofo/pytorch-cifar-models, mobilenetv2.py.

    Commit e8a3ffb2383c0be657199cd668d763b2233db91d: torchvision's file, with two other strides.
    """
    import torchvision

    network: nn.Module = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.5)
    network.features[0][0].stride = (1, 1)  # type: ignore[index, union-attr]
    network.features[2].conv[1][0].stride = (1, 1)  # type: ignore[index, union-attr]
    return network


def chenyaofo_shufflenet() -> nn.Module:
    """cifar10_shufflenetv2_x0_5 there, shufflenetv2.py.

    Commit 03a1aefa0d3b1d7dd89b8d8e2a8c3eb62fd1a8f3: torchvision's file, with another stem.
    """
    import torchvision

    network: nn.Module = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    network.conv1[0].stride = (1, 1)  # type: ignore[index, union-attr]
    network.maxpool = nn.Identity()
    return network


def _conv_bn(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    result = nn.Sequential()
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    result.add_module("conv", conv)
    result.add_module("bn", nn.BatchNorm2d(outputs))
    return result


class _RepBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, deploy: bool) -> None:
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.rbr_reparam = nn.Conv2d(inputs, outputs, 3, stride, 1)
            return
        same = inputs == outputs and stride == 1
        self.rbr_identity = nn.BatchNorm2d(inputs) if same else None
        self.rbr_dense = _conv_bn(inputs, outputs, 3, stride)
        self.rbr_1x1 = _conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.deploy:
            return F.relu(self.rbr_reparam(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return F.relu(y if self.rbr_identity is None else y + self.rbr_identity(x))


class _RepVGG(nn.Module):
    def __init__(self, deploy: bool) -> None:
        super().__init__()
        self.stage0 = _RepBlock(3, 48, 1, deploy)
        inputs = 48
        stages = zip((48, 96, 192, 1280), (2, 4, 14, 1), (1, 2, 2, 2), strict=True)
        for number, (width, count, stride) in enumerate(stages, 1):
            blocks = []
            for each in (stride, *[1] * (count - 1)):
                blocks.append(_RepBlock(inputs, width, each, deploy))
                inputs = width
            setattr(self, f"stage{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(1280, 10)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(5):
            x = getattr(self, f"stage{number}")(x)
        y: Tensor = self.linear(x.mean((2, 3)))
        return y


def chenyaofo_repvgg() -> nn.Module:
    """cifar10_repvgg_a0 there, repvgg.py.

    Commit 266dba103827c51e14f47fb5377ba09443b4892f.
    """
    return _RepVGG(deploy=False)


def chenyaofo_deployed() -> nn.Module:
    """The same after convert_to_inference_model()."""
    return _RepVGG(deploy=True)


class _Page(nn.Module):
    """The graph of dawn.py: a module for each path, its parts joined by an underscore."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"prep": (3, 64), "layer1": (64, 128), "layer2": (128, 256), "layer3": (256, 512)}
        for name in ("layer1", "layer3"):
            channels = sizes[name][1]
            sizes |= {f"{name}_residual_res{n}": (channels, channels) for n in (1, 2)}
        for name, (inputs, outputs) in sizes.items():
            setattr(self, f"{name}_conv", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
            setattr(self, f"{name}_bn", nn.BatchNorm2d(outputs))
        self.linear = nn.Linear(512, 10, bias=False)

    def layer(self, name: str, x: Tensor) -> Tensor:
        return F.relu(getattr(self, f"{name}_bn")(getattr(self, f"{name}_conv")(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer("prep", x)
        for name in ("layer1", "layer2", "layer3"):
            x = F.max_pool2d(self.layer(name, x), 2)
            if name != "layer2":
                residual = self.layer(f"{name}_residual_res1", x)
                x = x + self.layer(f"{name}_residual_res2", residual)
        y: Tensor = 0.125 * self.linear(F.max_pool2d(x, 4).flatten(1))
        return y


def page() -> nn.Module:
    """The net of davidcpage/cifar10-fast, dawn.py.

    Commit 55be9b98b03c62076d995bf06dc4dcda3b0ca89b.
    """
    return _Page()


class _Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fn(x) + x
        return y


def locuslab() -> nn.Module:
    """ConvMixer(256, 8, 5, 2, 10) of locuslab/convmixer-cifar10, train.py."""
    blocks = [
        nn.Sequential(
            _Residual(
                nn.Sequential(
                    nn.Conv2d(256, 256, 5, groups=256, padding="same"),
                    nn.GELU(),
                    nn.BatchNorm2d(256),
                )
            ),
            nn.Conv2d(256, 256, 1),
            nn.GELU(),
            nn.BatchNorm2d(256),
        )
        for _ in range(8)
    ]
    stem = (nn.Conv2d(3, 256, 2, 2), nn.GELU(), nn.BatchNorm2d(256))
    return nn.Sequential(
        *stem, *blocks, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(256, 10)
    )


class _Pixels(nn.Module):
    """Normalizes the channels of each pixel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ln(x.movedim(1, -1)).movedim(-1, 1)
        return y


class _Tiny(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        part = dim // 4
        kinds = ({"kernel_size": 3}, {"kernel_size": 7}, {"kernel_size": 7, "dilation": 3})
        for number, kind in enumerate(kinds, 1):
            conv = nn.Conv2d(part, part, groups=part, padding="same", **kind)
            self.add_module(f"dwconv{number}", conv)
        self.ln = _Pixels(dim)
        self.fc1 = nn.Conv2d(dim, 2 * dim, 1)
        self.fc2 = nn.Conv2d(dim, dim, 1)
        self.rs = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = torch.chunk(x, 4, dim=1)
        d = F.avg_pool2d(d, 3, stride=1, padding=1)
        parts = [a, *(self.get_submodule(f"dwconv{n}")(y) for n, y in enumerate((b, c, d), 1))]
        u, v = torch.chunk(self.fc1(self.ln(torch.cat(parts, dim=1))), 2, dim=1)
        y: Tensor = self.fc2(torch.tanh(torch.exp(u)) * u * v) + x * self.rs
        return y


def xvel() -> nn.Module:
    """Tiniest() of xvel/cifar10-tiniest, model.py, commit 70a9bfe."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, 48, 3, padding=1),
        "ln1": _Pixels(48),
        **{f"l{number}": _Tiny(48) for number in (1, 2, 3)},
        "dsconv": nn.Conv2d(48, 80, 4, groups=16, stride=2, padding=1),
        "ln2": _Pixels(80),
        **{f"l{number}": _Tiny(80) for number in (4, 5, 6)},
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "fc": nn.Linear(80, 10),
    }
    return nn.Sequential(OrderedDict(layers))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(256, 768, bias=False), nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * 64**-0.5).softmax(dim=-1)
        y: Tensor = self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))
        return y


class _EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre_norm, self.self_attn = nn.LayerNorm(256), _Attention()
        self.linear1, self.norm1 = nn.Linear(256, 512), nn.LayerNorm(256)
        self.linear2 = nn.Linear(512, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        y: Tensor = x + self.linear2(F.gelu(self.linear1(x)))
        return y


class _Tokenizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 256, 3, 1, 1, bias=False)
        self.conv_layers = nn.Sequential(nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_layers(x)
        return y.flatten(2, 3).transpose(-2, -1)


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_pool = nn.Linear(256, 1)
        self.positional_emb = nn.Parameter(torch.randn(1, 256, 256) * 0.2)
        self.blocks = nn.ModuleList([_EncoderLayer() for _ in range(7)])
        self.norm, self.fc = nn.LayerNorm(256), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positional_emb
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        pooled = torch.matmul(self.attention_pool(x).softmax(dim=1).transpose(-1, -2), x)
        y: Tensor = self.fc(pooled.squeeze(-2))
        return y


class _CCT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.classifier = _Tokenizer(), _Classifier()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.tokenizer(x))
        return y


def shi_labs() -> nn.Module:
    """cct_7_3x1_32 of SHI-Labs/Compact-Transformers, src/cct.py.

    src/utils/transformers.py, commit 82070a91d3f71d23557e0d628a90accd770f493e; tokenizer.py,
    afd82fd8c86224c0767c9b4a822f85519de80cb1.
    """
    return _CCT()


def timm_vit() -> nn.Module:
    """The package's class with the sizes of vit_tiny and patches of 4 pixels."""
    import timm

    network: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10
    )
    return network
