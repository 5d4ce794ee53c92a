"""One image, in the form that people have it, as uint8 (3, H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.depth import on_white, reduce_depth
from cifarzoo.data.photo import from_pil, is_file, read_photo
from cifarzoo.errors import InputError

__all__ = ["convert_image", "from_numpy", "to_uint8"]

_CHANNELS = (1, 3, 4)  # gray, colour, colour with alpha


def to_uint8(image: Any) -> Tensor:
    """Convert one image to uint8 (3, H, W); see `convert_image`."""
    return convert_image(image)[0]


def convert_image(image: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Convert one image.

    Args:
        image: PIL image, path, bytes or open file of an image; array (H, W) or (H, W, C) or tensor
            (C, H, W) with 1, 3 or 4 channels, or the other way round where that is the only
            reading: uint8 in 0..255, uint16 in 0..65535, float in 0..1, or bool.

    Returns:
        uint8 (3, H, W) in 0..255, and what was done to it, in words.

    Raises:
        InputError: It is none of these, or can be read in two ways.
    """
    if isinstance(image, Mapping) and {*image} == {"bytes", "path"}:
        # as the ``datasets`` library stores an image that it has not decoded
        image = image["path"] if image["bytes"] is None else image["bytes"]
    if isinstance(image, Tensor | np.ndarray):
        return _from_values(image)
    if is_file(image):
        return read_photo(image)
    if hasattr(image, "getexif"):
        return from_pil(image)
    raise InputError(
        "an image must be a path, a PIL image, an array (height, width, 3) or a tensor "
        f"(3, height, width); got {_describe(image)}"
    )


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor with a copy of ``array``, whatever its strides, byte order and rights.

    Raises:
        InputError: It holds no numbers, or some of them are masked.
    """
    if np.ma.is_masked(array):
        raise InputError("an array must hold all of its numbers; some of this one are masked")
    if array.dtype.kind not in "buif":
        raise InputError(f"an array must hold numbers; got dtype {array.dtype}")
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def _from_values(image: Tensor | np.ndarray[Any, Any]) -> tuple[Tensor, tuple[str, ...]]:
    is_array = isinstance(image, np.ndarray)
    values = from_numpy(image) if is_array else _plain(image)  # type: ignore[arg-type]  # told apart by is_array
    values = _channels_first(values, is_array)
    if values.numel() == 0:
        raise InputError(f"an image needs pixels; this one has shape {tuple(image.shape)}")
    values, notes = reduce_depth(values)
    if len(values) == 4:
        pixels, more = on_white(values[:3], values[3])
        return pixels, (*notes, *more)
    return values.expand(3, -1, -1), notes


def _plain(image: Tensor) -> Tensor:
    """``image`` without its history, on the CPU."""
    if image.layout is not torch.strided or image.is_meta or image.is_quantized:
        kind = "meta" if image.is_meta else "quantized" if image.is_quantized else image.layout
        raise InputError(f"an image tensor must hold its pixels one by one; got a {kind} tensor")
    return image.detach().cpu()


def _channels_first(values: Tensor, is_array: bool) -> Tensor:
    """``values`` as (C, H, W), where that can be read in one way only."""
    shape = tuple(values.shape)
    if values.ndim == 2:
        return values[None]
    if values.ndim == 3:
        # arrays have their channels last and tensors first, by custom
        usual, other = (shape[2], shape[0]) if is_array else (shape[0], shape[2])
        if usual == 3 or (usual in _CHANNELS and (other == usual or other not in _CHANNELS)):
            return values.permute(2, 0, 1) if is_array else values
        if other in _CHANNELS and usual not in _CHANNELS:
            return values if is_array else values.permute(2, 0, 1)
    name, wanted = ("array", "(height, width, 3)") if is_array else ("tensor", "(3, height, width)")
    advice = ": pass a batch as it is, not in a list" if values.ndim == 4 else ""
    raise InputError(f"an image {name} must have shape {wanted}; got {shape}{advice}")


def _describe(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"a dict with the keys {', '.join(map(repr, item))}"
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {len(item)}"
    text = repr(item)
    return text if len(text) < 80 else type(item).__name__
