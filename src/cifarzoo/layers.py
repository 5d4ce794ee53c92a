"""Blocks used by two or more model families."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifarzoo.errors import InputError
from cifarzoo.winograd import winograd_conv2d, winograd_pays

__all__ = ["BatchNorm1d", "BatchNorm2d", "Conv2d", "check_images", "prefer_contiguous_on_cpu"]


_REGISTER = 32  # bfloat16 numbers in a 512-bit register
_FEW_COLUMNS = 2**24  # numbers; beyond, writing them costs more than the product gains
_MANY_CHANNELS = 128
_FEW_PIXELS = 4  # of output; with nine, the other ways are as fast
_MANY_IMAGES = 128  # in a batch; fewer do not win back what it costs to cut the filters


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch normalization, except in three points.

    It lists itself the same way under every version of torch (newer ones add to the listing). In
    training a batch with a single value per channel, which has no variance, is normalized by the
    running statistics instead of being refused. And odd numbers of channels are as fast on a CPU
    as round ones; see `_GroupedBatchNorm`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, ...), keeping the shape."""
        if self.training and self.track_running_stats and x.numel() == x.shape[1]:
            self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        group = _group_size(x) if self.training and not self.affine else 1
        running = self.running_mean
        if self.momentum is None or running is None or running.dtype != torch.float32:
            group = 1  # the statistics are counted in float32
        if group == 1:
            return super().forward(x)
        y: Tensor
        y, mean, variance = _GroupedBatchNorm.apply(x, group, self.eps)
        self._move_running_statistics(mean, variance, count=x.numel() // x.shape[1])
        return y

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


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
        y = _affine(wide, mean, variance, group, eps)
        ctx.save_for_backward(x, mean, variance)
        ctx.group, ctx.eps = group, eps
        ctx.mark_non_differentiable(mean, variance)
        return y.view(-1, *x.permute(0, 2, 3, 1).shape[1:]).permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor, None, None]:
        x, mean, variance = ctx.saved_tensors
        group, eps, channels = ctx.group, ctx.eps, x.shape[1]
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


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Batch normalization of (B, C) with torch's parameters and defaults."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization of (B, C, H, W) with torch's parameters and defaults."""


class Conv2d(nn.Conv2d):
    """torch's convolution, faster to train on a CPU where it is wide or its map has few pixels.

    Each pixel of output is a dense layer of the part of the filters that lies on the map: of 3x3 on
    a map of 1x1 only the centre, where oneDNN multiplies the padding too. So it is computed when
    there is one pixel, and for wide layers in float32 up to four. With a few, oneDNN's bfloat16
    kernel for the weight gradient takes up to five times as long as the same sum written as one
    matrix product, of the outputs' gradient and the patches of the input. In float32 wide layers
    take Winograd's algorithm, while they are trained; see `winograd_conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        way = self._way(x)
        if way == "dense":
            return self._dense(x)
        if way == "winograd":
            assert not isinstance(self.padding, str)
            return winograd_conv2d(x, self.weight, self.padding[0])
        if way == "product":
            y: Tensor = _ProductGradient.apply(x, self.weight, self.stride, self.padding)
            return y
        return super().forward(x)

    def _way(self, x: Tensor) -> Literal["dense", "winograd", "product", "torch"]:
        """How to compute: compilers, other devices and all that is not plain have torch's way."""
        if x.device.type != "cpu" or x.ndim != 4:
            return "torch"
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return "torch"
        if self.groups > 1 or set(self.dilation) != {1} or self.padding_mode != "zeros":
            return "torch"
        if isinstance(self.padding, str) or torch._C._are_functorch_transforms_active():
            return "torch"
        sizes = zip(x.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        height, width = ((size + 2 * p - k) // s + 1 for size, p, k, s in sizes)
        if height == width == 1:
            return "dense"
        if not (torch.is_grad_enabled() and self.weight.requires_grad and self.bias is None):
            return "torch"
        if self.in_channels < _MANY_CHANNELS:
            return "torch"
        mixed = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if mixed else x.dtype
        if dtype == torch.float32:
            few = min(height, width) >= 1 and height * width <= _FEW_PIXELS
            if few and self.kernel_size != (1, 1) and len(x) >= _MANY_IMAGES:
                return "dense"
            plain = self.kernel_size == (3, 3) and self.stride == (1, 1)
            square = self.padding in ((0, 0), (1, 1)) and self.out_channels >= _MANY_CHANNELS
            pays = winograd_pays(len(x), height, width)
            return "winograd" if plain and square and pays else "torch"
        patch = self.weight[0].numel()
        fits = patch > self.in_channels and len(x) * height * width * patch <= _FEW_COLUMNS
        return "product" if dtype == torch.bfloat16 and fits else "torch"

    def _dense(self, x: Tensor) -> Tensor:
        """Every output pixel by itself: what the filters, beginning in the padding, see there."""
        assert not isinstance(self.padding, str)
        sides = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        rows, columns = (_views(size, kernel, step, pad) for size, kernel, step, pad in sides)
        pixels = [
            F.linear(
                x[:, :, on_y, on_x].flatten(1), self.weight[:, :, of_y, of_x].flatten(1), self.bias
            )
            for on_y, of_y in rows
            for on_x, of_x in columns
        ]
        size = len(x), self.out_channels, len(rows), len(columns)
        return torch.stack(pixels, dim=-1).view(size)


def _views(size: int, kernel: int, stride: int, padding: int) -> list[tuple[slice, slice]]:
    """For each output along one side, the part of the map it sees, and that of the filter."""
    starts = range(-padding, size + padding - kernel + 1, stride)
    return [
        (
            slice(max(start, 0), min(start + kernel, size)),
            slice(max(-start, 0), min(size - start, kernel)),
        )
        for start in starts
    ]


class _ProductGradient(torch.autograd.Function):
    """A convolution in bfloat16 whose weight gradient is a matrix product."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        inputs, filters = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        return torch.conv2d(inputs, filters, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        images, parameter = ctx.saved_tensors
        x, weight = images.to(torch.bfloat16), parameter.to(torch.bfloat16)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.ops.aten.convolution_backward(
                grad,
                x,
                weight,
                None,
                ctx.stride,
                ctx.padding,
                [1, 1],
                False,
                [0, 0],
                1,
                [True, False, False],
            )[0].to(images.dtype)
        outputs, inputs, *kernel = weight.shape
        patches = _patches(x, kernel, ctx.stride, ctx.padding)
        rows = grad.permute(0, 2, 3, 1).reshape(-1, outputs)
        product = (rows.mT @ patches).view(outputs, *kernel, inputs).permute(0, 3, 1, 2)
        # in the parameter's own layout, or the optimizer would copy it once more
        to_weight = torch.empty_like(parameter).copy_(product)
        return to_x, to_weight, None, None


def _patches(
    x: Tensor, kernel: list[int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """What each output sees: (B * outputs, kernel height * kernel width * C)."""
    (top, left), (height, width), (down, right) = padding, kernel, stride
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
    windows = padded.unfold(1, height, down).unfold(2, width, right)  # (B, H, W, C, kernel)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


def prefer_contiguous_on_cpu(module: nn.Module) -> None:
    """Tell `use_fast_layout` that ``module`` is faster contiguous than channels_last on a CPU.

    That holds for wide layers on maps of a few pixels, where oneDNN's kernels for its own blocked
    layout are up to 1.7 times as fast as those for channels_last.
    """
    module.__dict__["prefers_contiguous_on_cpu"] = True


def check_images(images: Tensor, weight: Tensor, size: int | None = None) -> None:
    """Raise InputError when a network cannot take ``images``, and say what it expects.

    Args:
        images: What was given to ``forward``.
        weight: A parameter of the first layer; its dtype is the network's.
        size: Height and width the network is bound to; None when it takes any.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"expected images of shape (batch, 3, height, width); got {tuple(images.shape)}"
        )
    if size is not None and (images.shape[2] != size or images.shape[3] != size):
        raise InputError(
            f"this network's dense head needs {size}x{size} images; "
            f"got {images.shape[2]}x{images.shape[3]}: resize them, or use a network with "
            "global pooling such as 'resnet18_cifar'"
        )
    if images.dtype == weight.dtype:
        return
    if not images.is_floating_point():
        raise InputError(
            f"expected normalized images of dtype {weight.dtype}; got {images.dtype}: "
            "normalize them first, or use evaluate() or predict(), which do"
        )
    if not torch.is_autocast_enabled(images.device.type):
        raise InputError(
            f"expected images of the network's dtype {weight.dtype}; got {images.dtype}: "
            "convert one of them, or run under torch.autocast"
        )
