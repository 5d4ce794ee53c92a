"""Convolutions as they are computed within `cpu_kernels`."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.depthwise import (
    Steps,
    activated_depthwise_conv2d,
    computed_dtype,
    depthwise_conv2d,
    has_torchs_fault,
)
from cifarzoo.compute.cpu.grouped import grouped_conv2d, groups_at_once
from cifarzoo.compute.cpu.late import activated, settled
from cifarzoo.compute.cpu.pixels import CHANNELS_OF_A_PRODUCT, pixel_conv2d, weight_by_product
from cifarzoo.compute.cpu.standin import StandIn
from cifarzoo.compute.cpu.winograd import (
    compiled_winograd_conv2d,
    compiled_winograd_takes,
    torchs_gradients,
    winograd_conv2d,
    winograd_pays,
)

__all__ = ["Conv2d"]

_FEW_COLUMNS = 2**24  # numbers; beyond, writing them costs more than the product gains
_MANY_CHANNELS = 128
_FEW_CHANNELS = 512  # of input; with more, oneDNN is as fast
_FEW_PIXELS = 4  # of output; with nine, the other ways are as fast
_TILE = 16  # channels, and pixels along a side
_MANY_PIXELS = 8192  # in a batch; of fewer a product is as fast
_MANY_IMAGES = 128  # in a batch; fewer do not win back what it costs to cut the filters


Way = Literal[
    "dense",
    "depthwise",
    "groups",
    "pixels",
    "pixels in C",
    "product",
    "tiles",
    "torch",
    "winograd",
    "winograd in C",
]


class Conv2d(nn.Conv2d, StandIn):
    """torch's convolution, faster to train on a CPU where it is wide or its map has few pixels.

    Each pixel of output is a dense layer of the part of the filters that lies on the map: of 3x3 on
    a map of 1x1 only the centre, where oneDNN multiplies the padding too. So it is computed when
    there is one pixel, and for wide layers in float32 up to four. With a few, oneDNN's bfloat16
    kernel for the weight gradient takes up to five times as long as the same sum written as one
    matrix product, of the outputs' gradient and the patches of the input. Where the processor has a
    matrix unit, that computes the weight gradient instead. In bfloat16 a convolution of 1x1 is a
    product of all pixels; in float32 it is computed in C, or only its weight gradient is a product.
    In bfloat16 groups of few channels are computed several at once; see `grouped`.
    In float32 layers of 3x3 take Winograd's algorithm, best in C; see `winograd_conv2d`.
    """

    stock = nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W); with ``keeps_contiguous``, see `layout`, in that format."""
        late = activated(x)
        if late is not None and self._takes_late(late):
            return activated_depthwise_conv2d(late, self.weight, self.bias, self._steps())
        x = self._laid_out(settled(x))
        way = self._way(x)
        if way != "tiles" and self.__dict__.get("keeps_contiguous"):
            x = x.contiguous()
            way = self._way(x)
        if way == "dense":
            return self._dense(x)
        if way == "pixels":
            return _pixels(x, self.weight.flatten(1), self.bias)
        if way == "pixels in C":
            return pixel_conv2d(x, self.weight, self.bias)
        if way == "groups":
            return grouped_conv2d(x, self)
        if way == "depthwise":
            return depthwise_conv2d(x.to(computed_dtype(x)), self.weight, self.bias, self._steps())
        if way == "winograd":
            assert not isinstance(self.padding, str)
            return winograd_conv2d(x, self.weight, self.padding[0])
        if way == "winograd in C":
            assert not isinstance(self.padding, str)
            return compiled_winograd_conv2d(x, self.weight, self.bias, self.padding[0])
        if way in ("product", "tiles"):
            y: Tensor = _OwnWeightGradient.apply(
                x, self.weight, self.bias, self.stride, self.padding, way == "tiles"
            )
            return y
        if has_torchs_fault(self) and computed_dtype(x) == torch.bfloat16:
            x = x.contiguous()
        return super().forward(x)

    def _laid_out(self, x: Tensor) -> Tensor:
        """A part of a map's channels, or a map whose channels were shuffled, as channels_last.

        The layers in C take no others. The result would be channels_last by torch too, which goes
        by the strides of map and filters.
        """
        last = torch.channels_last
        if not native.is_eager() or x.ndim != 4 or x.is_contiguous(memory_format=last):
            return x
        suits = self.kernel_size == (1, 1) if self.groups == 1 else self._is_depthwise()
        if not suits or not native.reads(x):
            return x
        is_part = x.stride(1) == 1 and not x.is_contiguous()
        return x.contiguous(memory_format=last) if is_part or self._gives_channels_last(x) else x

    def _gives_channels_last(self, x: Tensor) -> bool:
        """Whether torch's result would be channels_last, by the strides of map or filters."""
        of_filters = self.weight.stride()
        is_of_filters = of_filters[1] == 1 and of_filters[3] == self.weight.shape[1]
        return is_of_filters or x.is_contiguous(memory_format=torch.channels_last)

    def _way(self, x: Tensor) -> Way:
        """How to compute: compilers, other devices and all that is not plain have torch's way."""
        if x.device.type != "cpu" or not self._suits(x) or not native.is_eager():
            return "torch"
        if self.groups > 1 and self._is_depthwise() and native.takes(x) and self._fits_into(x):
            return "depthwise" if computed_dtype(x) in native.NAMES else "torch"
        if self.groups > 1 and self._is_of_small_groups(x):
            return "groups"
        if self.groups > 1 or set(self.dilation) != {1} or self.padding_mode != "zeros":
            return "torch"
        if isinstance(self.padding, str):
            return "torch"
        sizes = zip(x.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        height, width = ((size + 2 * p - k) // s + 1 for size, p, k, s in sizes)
        if height == width == 1:
            return "dense"
        dtype = computed_dtype(x)
        if dtype == torch.float32 and self._is_of_few_channels(x):
            return "pixels in C"
        if self.in_channels >= CHANNELS_OF_A_PRODUCT and self._is_of_pixels(x):
            if dtype == torch.bfloat16:
                if not self._is_trained():
                    return "pixels"
                pays = width % 2 == 0 and len(x) * height * width >= _MANY_PIXELS
                return "tiles" if pays and self._fits_tiles(x) else "product"
            if dtype == torch.float32 and self.out_channels >= CHANNELS_OF_A_PRODUCT:
                return "product" if self._is_trained() else "torch"
        pays = dtype == torch.float32 and winograd_pays(len(x), height, width)
        if pays and self._fits_winograd(x):
            return "winograd in C"
        is_wide = self.bias is None and self.in_channels >= _MANY_CHANNELS
        if dtype == torch.float32 and is_wide:
            few = min(height, width) >= 1 and height * width <= _FEW_PIXELS
            if few and self.kernel_size != (1, 1) and len(x) >= _MANY_IMAGES:
                return "dense" if self._is_trained() else "torch"
            plain = self.kernel_size == (3, 3) and self.stride == (1, 1)
            square = self.padding in ((0, 0), (1, 1)) and self.out_channels >= _MANY_CHANNELS
            pays = pays and self._gives_channels_last(x)
            return "winograd" if plain and square and pays else "torch"
        if not self._is_trained():
            return "torch"
        if dtype == torch.bfloat16 and self.kernel_size in ((3, 3), (5, 5)) and self._fits_tiles(x):
            return "tiles"
        if not is_wide:
            return "torch"
        patch = self.weight[0].numel()
        fits = patch > self.in_channels and len(x) * height * width * patch <= _FEW_COLUMNS
        return "product" if dtype == torch.bfloat16 and fits else "torch"

    def _suits(self, x: Tensor) -> bool:
        """Whether ``x`` has the channels, and the filters the sizes, that this layer states.

        Otherwise torch says what is wrong; the layers in C would read beyond what is shorter.
        """
        inputs, outputs, size = self.in_channels, self.out_channels, self.kernel_size
        filters, bias = self.weight, self.bias
        return (
            x.ndim == 4
            and x.shape[1] == inputs
            and filters.shape == (outputs, inputs // self.groups, *size)
            and (bias is None or (bias.shape == (outputs,) and bias.dtype == filters.dtype))
        )

    def _is_of_pixels(self, x: Tensor) -> bool:
        """Whether each output pixel is a dense layer of one pixel, which lie in rows."""
        plain = self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0)
        return plain and x.is_contiguous(memory_format=torch.channels_last)

    def _is_of_small_groups(self, x: Tensor) -> bool:
        """Whether several groups, each of more than one channel, are sooner computed as one."""
        return (
            computed_dtype(x) == torch.bfloat16
            and self.groups < self.in_channels
            and self.padding_mode == "zeros"
            and x.is_contiguous(memory_format=torch.channels_last)
            and groups_at_once(self) > 1
        )

    def _is_of_few_channels(self, x: Tensor) -> bool:
        """Whether it is one of pixels in float32, so few of whose filters stay in the cache."""
        return (
            self.in_channels <= _FEW_CHANNELS
            and self._is_of_pixels(x)
            and self.weight.dtype == torch.float32
            and native.pixels_takes(x, self.out_channels)
        )

    def _fits_winograd(self, x: Tensor) -> bool:
        """Whether Winograd's algorithm in C computes it."""
        return (
            self.kernel_size == (3, 3)
            and self.stride == (1, 1)
            and self.padding in ((0, 0), (1, 1))
            and self.weight.dtype == torch.float32
            and compiled_winograd_takes(x, self.weight)
        )

    def _is_depthwise(self) -> bool:
        """Whether each channel is convolved by itself, with a square filter, and is trained."""
        kernel, _ = self.kernel_size
        return (
            self.groups == self.in_channels == self.out_channels
            and self.kernel_size == (kernel, kernel)
            and kernel % 2 == 1
            and self.stride in ((1, 1), (2, 2))
            and len({*self.dilation}) == 1
            and self.padding_mode == "zeros"
            and (edge := self._edge()) is not None
            and edge <= self.dilation[0] * (kernel - 1)
            and self.weight.dtype == torch.float32
            and self._is_trained()
            and native.is_eager()
        )

    def _takes_late(self, late: Tensor) -> bool:
        """Whether it computes a normalized, activated map that is nowhere written."""
        is_mixed = torch.is_autocast_enabled("cpu")
        is_plain = not is_mixed and self._suits(late)
        return is_plain and self._is_depthwise() and self._fits_into(late)

    def _fits_into(self, x: Tensor) -> bool:
        """Whether the taps of one that `_is_depthwise` span no more than the padded map.

        Nor so much that the zeros around the map would fill the memory.
        """
        steps, kernel = self._steps(), self.kernel_size[0]
        span = steps.span(kernel)
        return span <= min(x.shape[2:]) + 2 * steps.padding and span <= 4 * max(x.shape[2:])

    def _is_trained(self) -> bool:
        return torch.is_grad_enabled() and self.weight.requires_grad

    def _fits_tiles(self, x: Tensor) -> bool:
        """Whether the matrix unit computes the weight gradient, and sooner than oneDNN."""
        half = self.kernel_size[0] // 2
        return (
            self.in_channels >= _TILE
            and self.padding == (half, half)
            # a stride leaves most of the map empty
            and (self.stride == (1, 1) or (self.stride == (2, 2) and x.shape[2] <= _TILE))
            and self.weight.dtype == torch.float32
            and native.takes(x)
            and native.has_tiles()
        )

    def _edge(self) -> int | None:
        """Padding on each side, where it is the same on all."""
        if self.padding == "same":
            return self.dilation[0] * (self.kernel_size[0] // 2)
        if isinstance(self.padding, str):
            return 0
        return self.padding[0] if self.padding[0] == self.padding[1] else None

    def _steps(self) -> Steps:
        """Of one that `_is_depthwise`."""
        edge = self._edge()
        assert edge is not None
        return Steps(self.stride[0], edge, self.dilation[0])

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
            slice(max(start, 0), max(0, min(start + kernel, size))),  # empty within the padding
            slice(max(-start, 0), max(0, min(size - start, kernel))),
        )
        for start in starts
    ]


class _OwnWeightGradient(torch.autograd.Function):
    """A convolution whose weight gradient is a matrix product, in torch or in C."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        by_tiles: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.by_tiles = stride, padding, by_tiles
        ctx.has_bias = bias is not None
        ctx.dtype = computed_dtype(x)
        inputs, filters = x.to(ctx.dtype), weight.to(ctx.dtype)
        offset = None if bias is None else bias.to(ctx.dtype)
        # in float32 oneDNN's kernel is the faster one
        if weight.shape[2:] == (1, 1) and ctx.dtype == torch.bfloat16:
            y = native.new_map(inputs, len(inputs), len(filters), *inputs.shape[2:])
            rows, out = (z.permute(0, 2, 3, 1).flatten(0, 2) for z in (inputs, y))
            if offset is None:
                torch.mm(rows, filters.flatten(1).mT, out=out)
            else:
                torch.addmm(offset, rows, filters.flatten(1).mT, out=out)
            return y
        return torch.conv2d(inputs, filters, offset, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, parameter = ctx.saved_tensors
        x, weight = images.to(ctx.dtype), parameter.to(ctx.dtype)
        twice = torch.is_grad_enabled()  # to be differentiated once more: torch's way
        kernel = [*weight.shape[2:]]
        wants_x, by_torch = ctx.needs_input_grad[0], ctx.by_tiles and twice
        if wants_x and not by_torch and kernel == [1, 1] and ctx.dtype == torch.bfloat16:
            to_x = _pixels(grad, weight.flatten(1).mT, None)
        else:
            to_x, to_weight = torchs_gradients(
                grad,
                x,
                weight,
                stride=ctx.stride,
                padding=ctx.padding,
                to_x=wants_x,
                to_weight=by_torch,
            )
        if to_x is not None:
            to_x = to_x.to(images.dtype)
        to_bias = native.channel_sums(grad) if ctx.has_bias else None
        if by_torch:
            to_weight = to_weight.to(parameter.dtype)
        elif ctx.by_tiles:
            grad = grad.contiguous(memory_format=torch.channels_last)
            to_weight = native.conv_weight(grad, x, kernel[0], ctx.stride[0])
        else:
            patches = _patches(x, kernel, ctx.stride, ctx.padding)
            to_weight = weight_by_product(grad, patches, parameter)
        return to_x, to_weight, to_bias, None, None, None


def _pixels(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 1x1, as a dense layer of every pixel of channels_last (B, C, H, W)."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _patches(
    x: Tensor, kernel: list[int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """What each output sees: (B * outputs, kernel height * kernel width * C)."""
    if kernel == [1, 1]:
        return x.permute(0, 2, 3, 1).flatten(0, 2)
    (top, left), (height, width), (down, right) = padding, kernel, stride
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
    windows = padded.unfold(1, height, down).unfold(2, width, right)  # (B, H, W, C, kernel)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
