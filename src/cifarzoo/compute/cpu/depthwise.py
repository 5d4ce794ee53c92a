"""Depthwise convolutions, whose gradients in C stay in the cache; torch's do not."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.late import Late
from cifarzoo.compute.cpu.native import Activation, Statistics
from cifarzoo.compute.cpu.twice import gradients_to_differentiate
from cifarzoo.compute.cpu.winograd import torchs_gradients

__all__ = [
    "Steps",
    "activated_depthwise_conv2d",
    "computed_dtype",
    "depthwise_conv2d",
    "depthwise_pays",
    "has_torchs_fault",
]

_WIDE = 8  # pixels along a row; of fewer, most of what a row needs is not its own


def computed_dtype(x: Tensor) -> torch.dtype:
    """Of what is computed of ``x``, also by autocast."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def has_torchs_fault(layer: nn.Module) -> bool:
    """Whether torch makes gradients of the filters of memory that nobody has written.

    It does so in bfloat16, of a map in channels_last, for a depthwise convolution with a dilation
    along the height, at certain widths (seen in torch 2.14). Where map and filters are contiguous
    it does not.
    """
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.groups == layer.in_channels > 1 and layer.dilation[0] > 1


class Steps(NamedTuple):
    """How the taps of a convolution go over a map, the same along both sides."""

    stride: int
    padding: int
    dilation: int

    def span(self, kernel: int) -> int:
        """Pixels from the first tap to the last, both included."""
        return self.dilation * (kernel - 1) + 1

    def padding_back(self, kernel: int) -> int:
        """The padding of the convolution that makes the gradient of the map."""
        return self.span(kernel) - 1 - self.padding


def depthwise_pays(x: Tensor, *, dilation: int = 1, fills_registers: bool = False) -> bool:
    """Whether C convolves the map sooner than torch: in float32 and not of too few pixels.

    With a dilation, torch's way takes about ten times as long as the same taps without.
    With ``fills_registers``, its channels must fill whole registers.
    """
    if dilation > 1:
        return True
    if fills_registers and native.filled(x.shape[1]) != x.shape[1]:
        return False
    return x.dtype == torch.float32 and x.shape[3] >= _WIDE


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, steps: Steps) -> Tensor:
    """Convolve each channel of (B, C, H, W), for `native.takes`, by itself.

    Args:
        x: A map of float32 or bfloat16.
        weight: float32 (C, 1, K, K), K odd.
        bias: float32 (C,).
        steps: A stride of 1 or 2, and less padding than the taps span.
    """
    y: Tensor = _Depthwise.apply(x, weight, bias, steps)
    return y


def activated_depthwise_conv2d(
    late: Late, weight: Tensor, bias: Tensor | None, steps: Steps
) -> Tensor:
    """The same of a normalized, activated map that is nowhere written."""
    late._check()
    late._is_passed = True
    norm = late._input, late._weight, late._bias
    y: Tensor = _ActivatedDepthwise.apply(*norm, weight, bias, late._of, late._kind, steps)
    return y


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution, whose gradients in C stay in the cache; torch's do not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, steps: Steps) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.steps = bias is not None, steps
        if depthwise_pays(x, dilation=steps.dilation):
            return _convolved(x, weight, bias, steps)
        offset = None if bias is None else bias.to(x.dtype)
        filters = weight.to(x.dtype)
        return torch.conv2d(x, filters, offset, *steps, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        steps, channels = ctx.steps, len(weight)
        to_bias = native.channel_sums(grad) if ctx.has_bias else None
        wants_x = ctx.needs_input_grad[0]
        if torch.is_grad_enabled():  # to be differentiated once more: torch's way
            found = torchs_gradients(
                grad,
                x,
                weight.to(x.dtype),
                stride=[steps.stride] * 2,
                padding=[steps.padding] * 2,
                dilation=[steps.dilation] * 2,
                groups=channels,
                to_x=wants_x,
            )
            return found[0], found[1].to(weight.dtype), to_bias, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x = None
        if wants_x and steps.stride == 1 and not depthwise_pays(grad, dilation=steps.dilation):
            # a convolution with the filters turned round
            edge = steps.padding_back(weight.shape[2])
            turned = weight.flip((2, 3)).to(x.dtype)
            to_x = torch.conv2d(grad, turned, None, 1, edge, steps.dilation, channels)
        elif wants_x:
            to_x = _input_gradient(grad, weight, x, steps)
        to_weight = _weight_gradient(grad, x, weight.shape[2], steps)
        return to_x, torch.empty_like(weight).copy_(to_weight), to_bias, None


class _ActivatedDepthwise(torch.autograd.Function):
    """A normalization, its activation and a depthwise convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        offset: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        of: Statistics,
        kind: Activation,
        steps: Steps,
    ) -> Tensor:
        ctx.save_for_backward(x, gain, offset, weight, bias)
        ctx.of, ctx.kind, ctx.steps = of, kind, steps
        return _convolved(x, weight, bias, steps, of=of, kind=kind)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more: torch's way
            every = [x, gain, offset, weight, bias]
            same = functools.partial(_torchs, of=ctx.of, kind=ctx.kind, steps=ctx.steps)
            return *gradients_to_differentiate(same, every, ctx.needs_input_grad, grad), *[None] * 3
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x, to_gain, to_offset, found = _all_gradients(
            grad, x, ctx.of, ctx.kind, weight, ctx.steps
        )
        to_weight = torch.empty_like(weight).copy_(found)
        norm = (None if gain is None else to_gain, None if offset is None else to_offset)
        to_bias = None if bias is None else native.channel_sums(grad)
        return to_x, *norm, to_weight, to_bias, None, None, None


def _torchs(
    x: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    *,
    of: Statistics,
    kind: Activation,
    steps: Steps,
) -> Tensor:
    """What `_ActivatedDepthwise` computes, by layers of torch."""
    y = F.batch_norm(x, None, None, gain, offset, training=True, eps=of.eps)
    y = F.relu(y) if kind == "relu" else F.relu6(y)
    stride, padding, dilation = steps
    return F.conv2d(y, weight, bias, stride, padding, dilation, len(weight))


def _weight_gradient(grad: Tensor, x: Tensor, kernel: int, steps: Steps) -> Tensor:
    """Weight gradient (C, 1, K, K), float32, of a depthwise convolution of (B, C, H, W)."""
    found = torch.empty(kernel, kernel, x.shape[1])
    settings = (*_sizes(grad, x), kernel, steps.dilation, steps.stride, steps.padding)
    native.call("depthwise_weight", x, grad, x, found, *settings)
    return found.permute(2, 0, 1)[:, None]


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    steps: Steps,
    *,
    of: Statistics | None = None,
    kind: Activation = "none",
) -> Tensor:
    """Convolve each channel of (B, C, H, W) by itself; weight float32 (C, 1, K, K).

    With statistics and an activation, of ``x`` normalized and activated. Then C fills registers.
    """
    kernel = weight.shape[2]
    room = 2 * steps.padding - steps.span(kernel)
    size = [(side + room) // steps.stride + 1 for side in x.shape[2:]]
    y = native.new_map(x, *x.shape[:2], *size)
    norm = (None, None) if of is None else (of.scale, of.shift)
    ways = (steps.dilation, steps.stride, 1, steps.padding)
    settings = (native.ACTIVATIONS.index(kind), *_sizes(y, x), kernel, *ways)
    native.call("depthwise_apply", x, x, _taps(weight), native.in_order(bias), y, *norm, *settings)
    return y


def _input_gradient(grad: Tensor, weight: Tensor, x: Tensor, steps: Steps) -> Tensor:
    """Input gradient of a depthwise convolution, like ``x``; weight float32 (C, 1, K, K)."""
    kernel = weight.shape[2]
    to_x = native.new_map(x, *x.shape)
    ways = (steps.dilation, 1, steps.stride, steps.padding_back(kernel))
    settings = (0, *_sizes(to_x, grad), kernel, *ways)
    taps = _taps(weight.flip((2, 3)))
    native.call("depthwise_apply", x, grad, taps, None, to_x, None, None, *settings)
    return to_x


def _all_gradients(
    grad: Tensor,
    x: Tensor,
    of: Statistics,
    kind: Activation,
    weight: Tensor,
    steps: Steps,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x`` normalized, activated and convolved; see `_convolved`.

    Returns:
        Those of the map, of the normalization's weight and bias, and of the filters.
    """
    kernel, (rows, channels) = weight.shape[2], native.rows(x)
    to_x, found = native.new_map(x, *x.shape), torch.empty(kernel, kernel, channels)
    plan, (to_weight, to_bias) = torch.empty(2, channels), torch.empty(2, channels).unbind()
    known = (of.mean, of.inverse_deviation, of.scale, of.shift)
    outputs = (to_x, found, plan, *known, to_weight, to_bias)
    ways = (steps.dilation, steps.stride, steps.padding)
    settings = (native.ACTIVATIONS.index(kind), *_sizes(grad, x), kernel, *ways)
    native.call("depthwise_backward", x, grad, x, _taps(weight.flip((2, 3))), *outputs, *settings)
    # until now it holds the gradient behind the normalization, each number of which is read once
    maps = (to_x, x, None, to_x, plan, of.scale, of.shift)
    native.call("norm_gradient", x, *maps, rows, channels, 0, 0)
    return to_x, to_weight, to_bias, found.permute(2, 0, 1)[:, None]


def _taps(weight: Tensor) -> Tensor:
    """The filters (C, 1, K, K) as (K, K, C), whose channels fill registers."""
    channels, _, kernel, _ = weight.shape
    taps = torch.zeros(kernel, kernel, native.filled(channels))
    taps[:, :, :channels] = weight[:, 0].permute(1, 2, 0)
    return taps


def _sizes(grad: Tensor, x: Tensor) -> tuple[int, ...]:
    batch, channels, height, width = x.shape
    return batch, height, width, channels, grad.shape[2], grad.shape[3]
