"""Convolutions of 1x1 pixels in float32, in C: faster than oneDNN where channels are few."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.winograd import torchs_gradients

__all__ = ["pixel_conv2d"]

_CHANNELS_OF_A_PRODUCT = 64  # on both sides; there torch's product is faster than its convolution


def pixel_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve float32 (B, C, H, W), for `native.pixels_takes`, by weight (K, C, 1, 1)."""
    y: Tensor = _Pixels.apply(x, weight, bias)
    return y


class _Pixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return native.pixels_apply(x, weight.flatten(1).mT, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_bias = grad.sum((0, 2, 3)) if ctx.has_bias else None
        wants_x, wants_weight, _ = ctx.needs_input_grad
        twice = torch.is_grad_enabled()  # to be differentiated once more: torch's way
        grad = grad if twice else grad.contiguous(memory_format=torch.channels_last)
        outputs, inputs = weight.shape[:2]
        in_c = not twice and native.pixels_takes(grad, inputs)
        by_product = not twice and min(inputs, outputs) >= _CHANNELS_OF_A_PRODUCT
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
            rows, pixels = (z.permute(0, 2, 3, 1).flatten(0, 2) for z in (grad, x))
            to_weight = torch.empty_like(weight).copy_((rows.mT @ pixels)[:, :, None, None])
        return to_x, to_weight, to_bias
