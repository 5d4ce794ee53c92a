"""3x3 convolutions with a quarter of the multiplications (Winograd's algorithm)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.compute.cpu import native

__all__ = [
    "compiled_winograd_conv2d",
    "compiled_winograd_takes",
    "torchs_gradients",
    "winograd_conv2d",
    "winograd_pays",
]

_TILE = 4  # pixels of output, each way, that are computed together
_WINDOW = _TILE + 2  # pixels of input they depend on
_PARTS = _WINDOW**2  # products behind them; the definition takes 9 * _TILE**2
_CHUNK = 2**16  # tiles times channels taken at once: their parts stay in the cache
_NARROW = 128**2  # channels of input times channels of output, whose filters fit into the cache
_WIDE = 64  # channels of both, for more of them
_FILLED = 0.5  # share of the tiles that must lie on the map
_MANY_TILES = 64  # in a batch; fewer do not win back what it costs to transform the filters

# F(4x4, 3x3) of Lavin & Gray 2015, arXiv:1509.09308, section 4.3, for one dimension
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def winograd_conv2d(images: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolve with stride 1; equal to torch's `conv2d` but for rounding.

    Source: Lavin & Gray 2015, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
    All its steps, and those of the gradients, are matrix products: each window of the input is
    taken to 36 parts, each part is multiplied by that of the filters, and 36 parts of the output
    are taken back to 4x4 pixels.

    Args:
        images: Float32 (B, C, H, W), best in channels_last.
        weight: Float32 (K, C, 3, 3).
        padding: Zeros on each side of the map.

    Returns:
        Float32 (B, K, H + 2 padding - 2, W + 2 padding - 2), channels_last.
    """
    y: Tensor = _Winograd.apply(images, weight, padding)
    return y


def compiled_winograd_conv2d(
    images: Tensor, weight: Tensor, bias: Tensor | None, padding: int
) -> Tensor:
    """Convolve as `winograd_conv2d`, with a bias, in C; for `compiled_winograd_takes`.

    For few channels all is in C, and some tiles at a time stay in the cache, from the window to the
    pixels. With many, the filters fill the cache, and the parts are multiplied by torch.
    """
    y: Tensor = _CompiledWinograd.apply(images, weight, bias, padding)
    return y


def compiled_winograd_takes(x: Tensor, weight: Tensor) -> bool:
    """Whether the compiled layers convolve maps like ``x`` by filters (K, C, 3, 3) of float32."""
    if not native.winograd_takes(x):
        return False
    outputs, inputs = weight.shape[:2]
    if _is_narrow(weight):
        return inputs >= native.filled(1)  # fewer leave registers half empty
    return min(inputs, outputs) >= _WIDE and all(n == native.filled(n) for n in (inputs, outputs))


def winograd_pays(batch: int, height: int, width: int) -> bool:
    """Whether training with outputs (batch, K, height, width) is faster so.

    Example:
        >>> winograd_pays(64, 4, 4), winograd_pays(64, 5, 5), winograd_pays(8, 4, 4)
        (True, False, False)
    """
    rows, columns = _count_tiles(height, width)
    is_filled = height * width > _FILLED * rows * columns * _TILE**2
    return is_filled and batch * rows * columns >= _MANY_TILES


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, padding: int) -> Tensor:
        x = images.permute(0, 2, 3, 1).contiguous()
        batch, height, width, channels = x.shape
        outputs = len(weight)
        size = height + 2 * padding - 2, width + 2 * padding - 2
        to_parts, _, to_pixels = _transforms()
        filters = _filter_parts(weight.permute(2, 3, 1, 0))
        y = native.new_map(x, batch, outputs, *size)
        pixels = y.permute(0, 2, 3, 1)
        chunk = _chunk_size(size, max(channels, outputs))
        for start in range(0, batch, chunk):
            some = slice(start, start + chunk)
            parts = (to_parts @ _windows(x[some], size, padding)).view(_PARTS, -1, channels)
            products = torch.bmm(parts, filters).view(_PARTS, -1)
            pixels[some] = _join(to_pixels @ products, pixels[some])
        ctx.save_for_backward(images, weight, filters)
        ctx.padding = padding
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        images, weight, filters = ctx.saved_tensors
        padding, to_images = ctx.padding, ctx.needs_input_grad[0]
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            found = torchs_gradients(grad, images, weight, padding=[padding] * 2, to_x=to_images)
            return *found, None
        x = images.permute(0, 2, 3, 1).contiguous()
        grad = grad.permute(0, 2, 3, 1).contiguous()
        outputs, channels = weight.shape[:2]
        size = grad.shape[1], grad.shape[2]
        to_parts, _, to_pixels = _transforms()
        to_x = torch.empty_like(x) if to_images else None
        to_filters = torch.zeros_like(filters)
        chunk = _chunk_size(size, max(channels, outputs))
        for start in range(0, len(x), chunk):
            some = slice(start, start + chunk)
            parts = (to_parts @ _windows(x[some], size, padding)).view(_PARTS, -1, channels)
            errors = (to_pixels.T @ _split(grad[some])).view(_PARTS, -1, outputs)
            to_filters.baddbmm_(parts.mT, errors)
            if to_x is not None:
                back = to_parts.T @ torch.bmm(errors, filters.mT).view(_PARTS, -1)
                to_x[some] = _overlap(back, x[some], size, padding)
        to_weight = _from_filter_parts(to_filters, weight)
        return to_x.permute(0, 3, 1, 2) if to_x is not None else None, to_weight, None


class _CompiledWinograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: int
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.has_bias, ctx.padding = bias is not None, padding
        return _convolve(images, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        padding, to_images = ctx.padding, ctx.needs_input_grad[0]
        to_bias = native.channel_sums(grad) if ctx.has_bias else None
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated
            found = torchs_gradients(grad, images, weight, padding=[padding] * 2, to_x=to_images)
            return *found, to_bias, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x = to_weight = None
        if to_images:  # a convolution with the filters turned round
            to_x = _convolve(grad, weight.flip(2, 3).transpose(0, 1), None, 2 - padding)
        if ctx.needs_input_grad[1]:
            to_weight = _from_filter_parts(_filter_gradient(grad, images, weight, padding), weight)
        return to_x, to_weight, to_bias, None


def _is_narrow(weight: Tensor) -> bool:
    return weight.shape[0] * weight.shape[1] <= _NARROW


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    outputs = len(weight)
    empty = native.filled(outputs) - outputs
    filters = _filter_parts(F.pad(weight.permute(2, 3, 1, 0), (0, empty)))
    if not _is_narrow(weight):
        size = x.shape[2] + 2 * padding - 2, x.shape[3] + 2 * padding - 2
        y = native.new_map(x, len(x), outputs, *size)
        for tiles in _some_tiles(len(x), size, max(weight.shape[:2])):
            products = torch.bmm(native.winograd_parts(x, size, padding, tiles), filters)
            native.winograd_pixels(products, bias, y, tiles)
        return y
    return native.winograd_apply(x, filters, bias, outputs, padding)


def _filter_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Of the parts of the filters, (36, C, K)."""
    if _is_narrow(weight):
        return native.winograd_weight(grad, x, padding)
    outputs, inputs = weight.shape[:2]
    size = grad.shape[2], grad.shape[3]
    total = torch.zeros(_PARTS, inputs, outputs)
    for tiles in _some_tiles(len(x), size, max(inputs, outputs)):
        errors = native.winograd_parts(grad, size, 0, tiles, of_gradient=True)
        total.baddbmm_(native.winograd_parts(x, size, padding, tiles).mT, errors)
    return total


def _some_tiles(batch: int, size: tuple[int, int], channels: int) -> Iterator[range]:
    """All tiles of a batch, by as many as are taken at once."""
    rows, columns = _count_tiles(*size)
    tiles = range(batch * rows * columns)
    # parts a power of two apart would share places in the cache
    chunk = max(1, _CHUNK // channels - 1)
    return (tiles[start : start + chunk] for start in tiles[::chunk])


def _filter_parts(filters: Tensor) -> Tensor:
    """The parts (36, C, K) of filters (3, 3, C, K)."""
    parts = _transforms()[1] @ filters.reshape(9, -1)
    return parts.view(_PARTS, *filters.shape[2:])


def _from_filter_parts(parts: Tensor, like: Tensor) -> Tensor:
    """The weight gradient, in the layout of the parameter, from that of the parts (36, C, K)."""
    rows = _transforms()[1].T @ parts.reshape(_PARTS, -1)
    return torch.empty_like(like).copy_(rows.view(3, 3, *parts.shape[1:]).permute(3, 2, 0, 1))


def torchs_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    to_x: bool,
    to_weight: bool = True,
) -> tuple[Any, Any]:
    """Gradients of a convolution's map and weight by torch's kernel; None for one not wanted.

    They can be differentiated once more.
    """
    found = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [to_x, to_weight, False],
    )
    return found[0], found[1]


# from windows (36, 36), from filters (36, 9), to pixels (16, 36); both dimensions at once.
# Numbers, not tensors: a tensor that is made under a mode of torch's (fake ones) stays what it is
_MATRICES = [
    np.kron(matrix, matrix).astype(np.float32)
    for matrix in map(np.array, (_INPUT, _FILTER, _OUTPUT))
]


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of both dimensions as tensors, which share the memory of the numbers."""
    window, filters, pixels = (torch.from_numpy(matrix) for matrix in _MATRICES)
    return window, filters, pixels


def _count_tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // _TILE), -(-width // _TILE)


def _chunk_size(size: tuple[int, int], channels: int) -> int:
    """Images to take at once."""
    rows, columns = _count_tiles(*size)
    return max(1, _CHUNK // (rows * columns * channels))


def _windows(x: Tensor, size: tuple[int, int], padding: int) -> Tensor:
    """What each tile of output depends on: (36, B * tiles * C) of (B, H, W, C)."""
    rows, columns = _count_tiles(*size)
    _, height, width, _ = x.shape
    right = columns * _TILE + 2 - width - padding
    below = rows * _TILE + 2 - height - padding
    padded = F.pad(x, (0, 0, padding, right, padding, below))
    views = padded.unfold(1, _WINDOW, _TILE).unfold(2, _WINDOW, _TILE)  # (B, h, w, C, 6, 6)
    return views.permute(4, 5, 0, 1, 2, 3).reshape(_PARTS, -1)


def _split(y: Tensor) -> Tensor:
    """Cut (B, H, W, K) into tiles: (16, B * tiles * K)."""
    batch, height, width, channels = y.shape
    rows, columns = _count_tiles(height, width)
    y = F.pad(y, (0, 0, 0, columns * _TILE - width, 0, rows * _TILE - height))
    tiles = y.view(batch, rows, _TILE, columns, _TILE, channels)
    return tiles.permute(2, 4, 0, 1, 3, 5).reshape(_TILE**2, -1)


def _join(tiles: Tensor, like: Tensor) -> Tensor:
    """Undo `_split`, to the shape of ``like``."""
    batch, height, width, channels = like.shape
    rows, columns = _count_tiles(height, width)
    tiles = tiles.view(_TILE, _TILE, batch, rows, columns, channels)
    whole = tiles.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * _TILE, columns * _TILE, channels)
    return whole[:, :height, :width]


def _overlap(windows: Tensor, like: Tensor, size: tuple[int, int], padding: int) -> Tensor:
    """Add up windows where they were cut from: the transpose of `_windows`."""
    batch, height, width, channels = like.shape
    rows, columns = _count_tiles(*size)
    w = windows.view(_WINDOW, _WINDOW, batch, rows, columns, channels).permute(2, 3, 0, 4, 1, 5)
    total = w.new_zeros(batch, rows + 1, _TILE, columns + 1, _TILE, channels)
    # each window begins in one tile and reaches two pixels into the next
    total[:, :-1, :, :-1] = w[:, :, :_TILE, :, :_TILE]
    total[:, 1:, :2, :-1] += w[:, :, _TILE:, :, :_TILE]
    total[:, :-1, :, 1:, :2] += w[:, :, :_TILE, :, _TILE:]
    total[:, 1:, :2, 1:, :2] += w[:, :, _TILE:, :, _TILE:]
    whole = total.view(batch, (rows + 1) * _TILE, (columns + 1) * _TILE, channels)
    return whole[:, padding : padding + height, padding : padding + width]
