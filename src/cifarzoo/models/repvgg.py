"""RepVGG: three branches a layer in training, one convolution a layer afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.models.input import check_input
from cifarzoo.names import check_choice
from cifarzoo.zoo.builds import describe, find_builder
from cifarzoo.zoo.card import attach_card, unwrap
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import register_family

__all__ = ["ConvNorm", "RepVGG", "RepVGGBlock", "fuse_branches"]

Form = Literal["branches", "plain"]

CHENYAOFO = Layout(
    "DingXiaoH/RepVGG, chenyaofo/pytorch-cifar-models",
    (
        (r"\.rbr_dense\.", ".dense."),
        (r"\.rbr_1x1\.", ".pointwise."),
        (r"\.rbr_identity\.", ".identity."),
        (r"\.rbr_reparam\.", ".conv."),
        (r"^linear\.", "fc."),
    ),
)
"""repvgg.py of both."""


class ConvNorm(nn.Module):
    """Applies a convolution and a normalization."""

    def __init__(self, in_channels: int, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        y: Tensor = self.bn(self.conv(x))
        return y


class RepVGGBlock(nn.Module):
    """Adds a 3x3 convolution, a 1x1 convolution and the input, each normalized; then ReLU.

    Source: Ding et al. 2021, arXiv:2101.03697, figure 2. The input is added where the shapes allow
    it.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of both convolutions.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        same = stride == 1 and in_channels == channels
        self.identity = nn.BatchNorm2d(channels) if same else None
        self.dense = ConvNorm(in_channels, channels, 3, stride)
        self.pointwise = ConvNorm(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        y = self.dense(x) + self.pointwise(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return F.relu_(y)

    @property
    def stride(self) -> tuple[int, int]:
        """That of both convolutions.

        Raises:
            ArgumentError: It was changed, and they differ.
        """
        dense, pointwise = self.dense.conv.stride, self.pointwise.conv.stride
        if dense != pointwise or (self.identity is not None and dense != (1, 1)):
            raise ArgumentError(
                f"a block whose branches have the strides {dense} and {pointwise} is no single "
                "convolution; give both one stride"
            )
        return dense[0], dense[1]

    @torch.no_grad()
    def fused(self) -> tuple[Tensor, Tensor]:
        """Compute weight (channels, in_channels, 3, 3) and bias (channels,) of one convolution.

        It gives the same output in evaluation mode. Source: section 3.3 and figure 4 of the paper.
        """
        weight, bias = _scaled(self.dense.conv.weight.double(), self.dense.bn)
        for kernel, norm in self._small_kernels():
            more, offset = _scaled(F.pad(kernel, (1, 1, 1, 1)), norm)
            weight, bias = weight + more, bias + offset
        dtype = self.dense.conv.weight.dtype
        return weight.to(dtype), bias.to(dtype)

    def _small_kernels(self) -> list[tuple[Tensor, nn.BatchNorm2d]]:
        kernel = self.pointwise.conv.weight.double()
        kernels = [(kernel, self.pointwise.bn)]
        if self.identity is not None:
            one = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
            kernels.append((one[:, :, None, None], self.identity))
        return kernels


class _PlainBlock(nn.Module):
    """One convolution and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x))


class RepVGG(nn.Module):
    """RepVGG: a stack of 3x3 convolutions, each of which has two more branches in training.

    Source: Ding et al. 2021, RepVGG: Making VGG-style ConvNets Great Again, arXiv:2101.03697,
    tables 2 and 3. The first two strides of 2 are 1 here, as in chenyaofo/pytorch-cifar-models, for
    images of 32x32 pixels.

    Args:
        depths: Blocks in each of the four stages.
        channels: Channels of the first block, then of each stage.
        form: "branches", or "plain" for single convolutions, as `fuse_branches` makes them.
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``form`` has another value.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (CHENYAOFO,)

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        *,
        form: Form = "branches",
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        check_choice("form", form, ("branches", "plain"))
        self.depths, self.channels, self.form = tuple(depths), tuple(channels), form
        block = RepVGGBlock if form == "branches" else _PlainBlock
        self.stage0 = block(3, channels[0])
        stages = []
        for number, depth in enumerate(depths):
            before, width = channels[number : number + 2]
            first = block(before, width, 1 if number == 0 else 2)
            stages.append(nn.Sequential(first, *(block(width, width) for _ in range(depth - 1))))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.stage2(self.stage1(self.stage0(images)))
        x = F.adaptive_avg_pool2d(self.stage4(self.stage3(x)), 1)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


@torch.no_grad()
def fuse_branches(model: RepVGG) -> RepVGG:
    """Copy a network with single convolutions, which give the same logits with less work.

    Args:
        model: A RepVGG with branches, which may be wrapped; it is not changed.

    Returns:
        The copy in evaluation mode. Its logits equal those of ``model.eval()`` except for rounding.

    Raises:
        ArgumentError: The network has no branches, or those of a block have other strides than one
            convolution can have.

    Example:
        >>> import cifarzoo
        >>> model = cifarzoo.create_model("repvgg_a0", seed=0)
        >>> sum(p.numel() for p in fuse_branches(model).parameters())
        7041194
    """
    wrapped, model = model, unwrap(model)  # type: ignore[assignment]  # checked below
    if not isinstance(model, RepVGG) or model.form == "plain":
        raise ArgumentError(
            f"fuse_branches takes a RepVGG with branches; got {type(model).__name__}"
            + (" of form 'plain'" if isinstance(model, RepVGG) else "")
        )
    classes = model.fc.out_features
    plain = RepVGG(model.depths, model.channels, form="plain", num_classes=classes)
    plain.to(device=model.fc.weight.device, dtype=model.fc.weight.dtype).eval()
    plain.fc.load_state_dict(model.fc.state_dict())
    for name, block in model.named_modules():
        if isinstance(block, RepVGGBlock):
            one = plain.get_submodule(name)
            assert isinstance(one, _PlainBlock)
            one.conv.stride = block.stride  # it may have been changed, as by adapt_stem
            weight, bias = block.fused()
            one.conv.weight.copy_(weight)
            _bias(one.conv).copy_(bias)
    card = describe(wrapped)
    if find_builder(card.name) is not None:  # and not one that no builder could have built
        card = dataclasses.replace(card, options={**card.options, "form": "plain"})
    attach_card(plain, card)
    check_input(plain, None)
    return plain


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _scaled(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with ``kernel`` and the normalization after it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return kernel * scale[:, None, None, None], bias


@register_family("repvgg")
def repvgg(
    *,
    depths: Sequence[int],
    channels: Sequence[int],
    form: Form = "branches",
    num_classes: int = 10,
) -> RepVGG:
    """Build RepVGG, with random parameters.

    Args:
        depths: Blocks in each of the four stages.
        channels: Channels of the first block, then of each stage.
        form: "branches", or "plain" for single convolutions, as `fuse_branches` makes them.
        num_classes: Size of the output.
    """
    return RepVGG(depths, channels, form=form, num_classes=num_classes)
