"""Windows of images, mirrored and normalized on the way, in C."""

from __future__ import annotations

import torch
from torch import Tensor

from cifarzoo.compute.cpu import library, native

__all__ = ["windows", "windows_takes"]


def windows_takes(images: Tensor, dtype: torch.dtype) -> bool:
    """Whether `windows` makes batches of this dtype of uint8 images (N, 3, S, S)."""
    return (
        library.find() is not None
        and dtype in native.NAMES
        and images.device.type == "cpu"
        and images.is_contiguous()
    )


def windows(
    images: Tensor,
    index: Tensor,
    corner: tuple[Tensor, Tensor],
    table: Tensor,
    *,
    padding: int,
    mirrored: int,
    square: tuple[Tensor, Tensor] | None,
    side: int,
) -> Tensor:
    """Cut windows out of chosen images, mirror, normalize and cut squares out, in one pass.

    Args:
        images: uint8 (N, 3, S, S), continued by reflection.
        index: int64 (B,), numbers of the images.
        corner: int64 (B,) each, first row and column of each window, in 0..2 padding.
        table: (3, 256), what each value of each channel becomes.
        padding: Pixels that the images are continued by.
        mirrored: Number of images that are mirrored; they come first.
        square: int64 (B,) each, first row and column of what is 0; they may lie outside.
        side: Of the square, in pixels; 0 for none.

    Returns:
        (B, 3, S, S) of the table's dtype, in channels_last.
    """
    size = images.shape[3]
    out = native.new_map(table, len(index), 3, size, size)
    squares = square or (None, None)
    sizes = (len(index), size, padding, mirrored, side if square else 0)
    native.call("windows", out, images, index, *corner, *squares, table, out, *sizes)
    return out
