"""Normalizations together with the activation behind them, forward and backward in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.late_gradient import LateGradient, is_shared
from cifarzoo.compute.cpu.native import Activation, Statistics

__all__ = ["Normalized", "activate", "activate_sum", "gradients"]


def activate(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, of: Statistics, kind: Activation
) -> Tensor:
    """Normalize the map ``x`` (B, C, H, W) by its statistics, and activate it."""
    y: Tensor = _Activated.apply(x, weight, bias, of, kind)
    return y


def activate_sum(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, of: Statistics, other: Tensor
) -> Tensor:
    """Normalize the map ``x`` (B, C, H, W), add another one, and apply ReLU."""
    y: Tensor = _ActivatedSum.apply(x, weight, bias, other, of)
    return y


class Normalized(torch.autograd.Function):
    """A map of a normalization and perhaps its activation, as autograd sees it."""

    @staticmethod
    def keep(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        of: Statistics,
        kind: Activation,
    ) -> None:
        """Keep for `backward` what ``forward`` was given."""
        ctx.save_for_backward(x, weight)
        ctx.of, ctx.kind, ctx.has_bias = of, kind, bias is not None
        ctx.shared = False

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the map, the weight and the bias."""
        x, weight = ctx.saved_tensors
        found = gradients(grad, x, weight, ctx.has_bias, ctx.of, ctx.kind, shared=ctx.shared)
        return *found, None, None


class _Activated(Normalized):
    """A normalization with its activation, computed at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        Normalized.keep(ctx, x, *rest)
        ctx.shared = is_shared(x)
        _, _, of, kind = rest
        return native.norm_apply(x, of, kind)


class _ActivatedSum(torch.autograd.Function):
    """A normalization, an addition and ReLU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        other: Tensor,
        of: Statistics,
    ) -> Tensor:
        y = native.norm_apply(x, of, "relu", other)
        ctx.save_for_backward(x, weight, y)
        ctx.of, ctx.has_bias = of, bias is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            grad = grad * (y > 0)
            to_x, to_weight, to_bias = gradients(grad, x, weight, ctx.has_bias, ctx.of)
            return to_x, to_weight, to_bias, grad, None
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        to_x, to_other, *sums = native.norm_add_backward(grad, x, y, ctx.of)
        return to_x, *_wanted(sums, weight, ctx.has_bias), to_other, None


def gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    has_bias: bool,
    of: Statistics,
    kind: Activation = "none",
    *,
    shared: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the map, weight and bias of a normalization; ``shared``: others read the map."""
    if torch.is_grad_enabled():  # the gradient is itself to be differentiated: torch's way
        if kind != "none":
            y = native.norm_apply(x.detach(), of)
            grad = grad * ((y > 0) if kind == "relu" else (y > 0) & (y < 6))
        wanted = [True, weight is not None, has_bias]
        found = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, of.mean, of.inverse_deviation, True, of.eps, wanted
        )
        return found[0], found[1], found[2]
    grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    to_x: Tensor
    if shared:
        plan, *sums = native.norm_plan(grad, x, of, kind)
        to_x = LateGradient.of(grad, x, of, plan, kind)
    else:
        to_x, *sums = native.norm_backward(grad, x, of, kind)
    return to_x, *_wanted(sums, weight, has_bias)


def _wanted(
    sums: list[Tensor], weight: Tensor | None, has_bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    return sums[0] if weight is not None else None, sums[1] if has_bias else None
