"""Batch normalization as it is computed within `cpu_kernels`."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.depthwise import depthwise_pays
from cifarzoo.compute.cpu.late import normalize_late, settled
from cifarzoo.compute.cpu.standin import StandIn

__all__ = ["BatchNorm1d", "BatchNorm2d"]

_REGISTER = 32  # bfloat16 numbers in a 512-bit register


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch normalization, except in two points.

    In training a batch with a single value per channel, which has no variance, is normalized by
    the running statistics instead of being refused. And odd numbers of channels are as fast on a
    CPU as round ones; see `_GroupedBatchNorm`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, ...), keeping the shape."""
        x = settled(x)
        if self.training and self.track_running_stats and x.numel() == x.shape[1]:
            self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        running = self.running_mean
        y: Tensor
        if self.training and native.takes(x) and self._counts(x.shape[1]):
            assert running is not None
            assert self.running_var is not None
            assert self.momentum is not None
            of = native.norm_statistics(
                x, self.weight, self.bias, (running, self.running_var), self.momentum, self.eps
            )
            self._count_batch()
            waits_for = self.__dict__.get("waits_for")
            is_kept = waits_for == "depthwise" and depthwise_pays(x, fills_registers=True)
            y = normalize_late(x, self.weight, self.bias, of, is_kept=is_kept)
            return y if self._may_wait() else settled(y)
        group = _group_size(x) if self.training and not self.affine else 1
        if group == 1 or not self._counts(x.shape[1]):  # which is in float32
            return super().forward(x)
        y, mean, variance = _GroupedBatchNorm.apply(x, group, self.eps)
        self._move_running_statistics(mean, variance, count=x.numel() // x.shape[1])
        return y

    def _may_wait(self) -> bool:
        """Whether what comes next may compute the map together with its own."""
        return "waits_for" in self.__dict__ and not torch.is_inference_mode_enabled()

    def _counts(self, channels: int) -> bool:
        """Whether it is an ordinary layer in float32 for so many channels, and keeps statistics.

        The layers in C get addresses, and would read or write beyond what is shorter.
        """
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        return (
            self.momentum is not None
            and self.running_mean is not None
            and self.running_var is not None
            and self.track_running_stats
            and all(t is None or native.is_row(t, channels) for t in tensors)
            and native.is_eager()
        )

    def _count_batch(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self._count_batch()


class _GroupedBatchNorm(torch.autograd.Function):
    """Batch normalization of a CPU's channels_last images whose C is not a multiple of 16.

    torch's kernel handles what is left of C after whole registers one number at a time: all of 20
    channels, at a quarter of the speed or less. Neighbouring pixels lie next to each other, so
    ``group`` of them are taken together as one pixel with ``group * C`` channels, and only the
    statistics, a few numbers, are put together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        wide = _widen(x, group)
        # running statistics are given only so that the kernel counts in float32
        running = torch.zeros(2, wide.shape[1])
        means, variances = torch.batch_norm_update_stats(wide, running[0], running[1], 0.0)
        mean = means.view(group, channels).mean(0)
        # the variance within the parts and the one between them
        variance = (variances + (means - mean.repeat(group)).square()).view(group, channels).mean(0)
        y = native.new_map(x, *x.shape)
        _widen(y, group).copy_(_affine(wide, mean, variance, group, eps))
        ctx.save_for_backward(x, mean, variance)
        ctx.group, ctx.eps = group, eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor, None, None]:
        x, mean, variance = ctx.saved_tensors
        group, eps, channels = ctx.group, ctx.eps, x.shape[1]
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated: torch's way
            scale, wanted = (variance + eps).rsqrt(), [True, False, False]
            gradients = torch.ops.aten.native_batch_norm_backward(
                grad, x, None, None, None, mean, scale, True, eps, wanted
            )
            return gradients[0], None, None
        wide = _widen(x, group)
        wide_grad = _widen(grad.contiguous(memory_format=torch.channels_last), group)
        scale = (variance + eps).rsqrt()
        ones = torch.ones_like(mean).repeat(group)
        # the gradient as if the parts were channels of their own, with its two sums
        result, along, total = torch.ops.aten.native_batch_norm_backward(
            wide_grad,
            wide,
            ones,
            None,
            None,
            mean.repeat(group),
            scale.repeat(group),
            True,
            eps,
            [True, True, True],
        )
        # the kernel subtracted each part's own mean of the gradient, and its share along the
        # normalized input; what is meant are those of all parts together
        rows = wide.shape[0]
        along, total = along.view(group, channels) / rows, total.view(group, channels) / rows
        weight = ((along - along.mean(0)) * scale).view(-1)
        bias = ((total - total.mean(0)) * scale).view(-1)
        result += _affine(wide, mean, variance, group, eps, weight=weight, bias=bias)
        return result.view_as(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), None, None


def _group_size(x: Tensor) -> int:
    """Pixels to take together so that their channels fill whole registers; 1 leaves x alone."""
    if x.shape[1] % 16 == 0:  # half a register left over costs less than the detour
        return 1
    if x.device.type != "cpu" or x.ndim != 4 or x.dtype not in (torch.bfloat16, torch.float32):
        return 1
    group = _REGISTER // math.gcd(x.shape[1], _REGISTER)
    fits = x.numel() // x.shape[1] % group == 0
    return group if fits and x.is_contiguous(memory_format=torch.channels_last) else 1


def _widen(x: Tensor, group: int) -> Tensor:
    """View channels_last (B, C, H, W) as (B H W / group, group C, 1, 1)."""
    return x.permute(0, 2, 3, 1).reshape(-1, group * x.shape[1], 1, 1)


def _affine(
    wide: Tensor,
    mean: Tensor,
    variance: Tensor,
    group: int,
    eps: float,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Normalize by the given statistics, then scale and shift: one fused pass."""
    statistics = mean.repeat(group), variance.repeat(group)
    return F.batch_norm(wide, *statistics, weight, bias, training=False, eps=eps)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d, StandIn):
    """Batch normalization of (B, C) with torch's parameters and defaults."""

    stock = nn.BatchNorm1d


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d, StandIn):
    """Batch normalization of (B, C, H, W) with torch's parameters and defaults."""

    stock = nn.BatchNorm2d
