"""Convolutions of 1x1 pixels in float32, in C: faster than oneDNN where channels are few."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.winograd import torchs_gradients

__all__ = ["CHANNELS_OF_A_PRODUCT", "pixel_conv2d", "weight_by_product"]

CHANNELS_OF_A_PRODUCT = 64  # from there on a product of the pixels is faster than oneDNN
_LEAST = 48  # of the fewer channels, if the others are so many more


def pixel_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve float32 (B, C, H, W), for `native.pixels_takes`, by weight (K, C, 1, 1)."""
    y: Tensor = _Pixels.apply(x, weight, bias)
    return y


def weight_by_product(grad: Tensor, patches: Tensor, weight: Tensor) -> Tensor:
    """Weight gradient, of what each output saw: (B * outputs, kernel height * kernel width * C)."""
    outputs, inputs, *kernel = weight.shape
    rows = grad.permute(0, 2, 3, 1).reshape(-1, outputs)
    product = (rows.mT @ patches).view(outputs, *kernel, inputs).permute(0, 3, 1, 2)
    # in the parameter's own layout, or the optimizer would copy it once more
    return torch.empty_like(weight).copy_(product)


class _Pixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return native.pixels_apply(x, weight.flatten(1).mT, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_bias = native.channel_sums(grad) if ctx.has_bias else None
        wants_x, wants_weight, _ = ctx.needs_input_grad
        twice = torch.is_grad_enabled()  # to be differentiated once more: torch's way
        grad = grad if twice else grad.contiguous(memory_format=torch.channels_last)
        outputs, inputs = weight.shape[:2]
        in_c = not twice and native.pixels_takes(grad, inputs)
        is_large = inputs * outputs >= CHANNELS_OF_A_PRODUCT**2
        by_product = not twice and is_large and min(inputs, outputs) >= _LEAST
        to_x, to_weight = torchs_gradients(
            grad,
            x,
            weight,
            padding=[0, 0],
            to_x=wants_x and not in_c,
            to_weight=wants_weight and not by_product,
        )
        if wants_x and in_c:
            to_x = native.pixels_apply(grad, weight.flatten(1), None)
        if wants_weight and by_product:
            to_weight = weight_by_product(grad, x.permute(0, 2, 3, 1).flatten(0, 2), weight)
        return to_x, to_weight, to_bias
