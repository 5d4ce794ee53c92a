"""Augmentation as pure functions of a batch and its draws.

Nothing here draws random numbers: the `Loader` does, so that these can be checked exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "crop",
    "crop_pixels",
    "crop_rows",
    "cut_out",
    "downsample",
    "flip_first",
    "reflect_pad",
]

_TAKES_VIEWS = frozenset({"cpu", "cuda"})


def reflect_pad(images: Tensor, padding: int) -> Tensor:
    """Pad images by reflection and move channels last.

    Args:
        images: (N, C, H, W), any dtype.
        padding: Pixels on each side, below H and W.

    Returns:
        Contiguous (N, H + 2 padding, W + 2 padding, C) of the same dtype. The edge pixel itself is
        not repeated, as in ``torch.nn.functional.pad(mode="reflect")``.
    """
    count, channels, height, width = images.shape
    below, right = padding + height, padding + width
    out = images.new_empty(count, below + padding, right + padding, channels)
    rows = out[:, padding:below]
    rows[:, :, padding:right] = images.permute(0, 2, 3, 1)
    # what is filled is copied to beside it: an index of every pixel takes twice as long
    rows[:, :, :padding] = rows[:, :, padding + 1 : 2 * padding + 1].flip(2)
    rows[:, :, right:] = rows[:, :, width - 1 : right - 1].flip(2)
    out[:, :padding] = out[:, padding + 1 : 2 * padding + 1].flip(1)
    out[:, below:] = out[:, height - 1 : below - 1].flip(1)
    return out


def crop_rows(padded: Tensor, width: int) -> Tensor:
    """View every run of ``width`` neighbouring pixels of ``padded``, without copying.

    Args:
        padded: Contiguous (N, H, W, C), any dtype.
        width: Number of pixels in a run.

    Returns:
        Rows (N H W - width + 1, width C) of the same dtype. Row p holds the pixels p, ...,
        p + width - 1 of the flattened set. So `crop` only has to gather whole rows.
    """
    pixels, channels = padded.numel() // padded.shape[-1], padded.shape[-1]
    return padded.view(-1).as_strided((pixels - width + 1, width * channels), (channels, 1))


def crop(padded: Tensor, rows: Tensor, index: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Cut one square window out of each chosen image.

    Args:
        padded: Contiguous (N, H, W, C).
        rows: ``crop_rows(padded, size)``.
        index: int64 (B,), numbers of the images.
        top: int64 (B,), first row of each window, in 0..H - size.
        left: int64 (B,), first column of each window, in 0..W - size.

    Returns:
        (B, C, size, size) of the same dtype, in channels_last layout.
    """
    _, height, width, channels = padded.shape
    size = rows.shape[1] // channels
    first = (index * height + top) * width + left
    if rows.device.type not in _TAKES_VIEWS:
        return crop_pixels(padded, first, size)
    lines = first[:, None] + torch.arange(size, device=index.device) * width  # (B, size)
    windows = rows.index_select(0, lines.view(-1))
    return windows.view(len(index), size, size, channels).permute(0, 3, 1, 2)


def crop_pixels(padded: Tensor, first: Tensor, size: int) -> Tensor:
    """Do the same as `crop`, pixel by pixel, for devices that would copy overlapping views.

    Args:
        padded: Contiguous (N, H, W, C).
        first: int64 (B,), the first pixel of each window, in the flattened set.
        size: Side of the windows in pixels.

    Returns:
        (B, C, size, size) of the same dtype, in channels_last layout.
    """
    width, channels = padded.shape[2:]
    side = torch.arange(size, device=first.device)
    pixels = first[:, None, None] + side[:, None] * width + side  # (B, size, size)
    windows = padded.view(-1, channels).index_select(0, pixels.view(-1))
    return windows.view(len(first), size, size, channels).permute(0, 3, 1, 2)


def flip_first(images: Tensor, count: int) -> Tensor:
    """Mirror the first ``count`` images left and right, in place.

    The Loader puts the images to mirror first in each batch, so no mask is needed.

    Args:
        images: (B, C, H, W), any dtype.
        count: Number of images to mirror, 0..B.
    """
    if count:
        images[:count] = images[:count].flip(3)
    return images


def cut_out(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Set a square in each image to 0, in place (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        images: (B, C, H, W), normalized, so that 0 is the mean colour.
        top: int64 (B,), first row of each square. If it is negative, the square is clipped.
        left: int64 (B,), first column of each square, in the same way.
        size: Side of the square in pixels.
    """
    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device) - top[:, None]
    column = torch.arange(width, device=images.device) - left[:, None]
    row_inside = (row >= 0) & (row < size)
    column_inside = (column >= 0) & (column < size)
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return images.masked_fill_(inside, 0)


def downsample(images: Tensor, size: int) -> Tensor:
    """Resize whole images to ``size`` x ``size`` pixels, bilinearly with antialiasing.

    Args:
        images: Floating point (B, C, H, W). The result has the same dtype and memory format.
        size: New height and width in pixels.
    """
    if images.shape[2] == size and images.shape[3] == size:
        return images
    # the antialiased kernel knows no bfloat16 on every device
    small = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return small.to(images.dtype)
