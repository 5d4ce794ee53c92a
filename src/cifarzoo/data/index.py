"""Which images of a set are meant."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.errors import ArgumentError

__all__ = ["as_index"]


def as_index(indices: Any, count: int) -> Tensor:
    """Places of images in a set of ``count``, from whatever names them.

    Args:
        indices: Slice; or whole numbers, from the end when negative, or a boolean for each image,
            in anything that can be iterated and has an order.
        count: Images in the set.

    Returns:
        int64 (M,) in 0..count-1, on the CPU.

    Raises:
        ArgumentError: It is something else, or a number is beyond the set.
    """
    if isinstance(indices, slice):
        indices = np.arange(count)[indices]  # torch knows no negative steps
    if isinstance(indices, Set):
        raise ArgumentError("indices in a set have no order; pass sorted(indices)")
    index = _as_tensor(indices)
    if index.ndim != 1:
        raise ArgumentError(
            f"indices must be a list of whole numbers, or a mask; got shape {tuple(index.shape)}: "
            "for one image pass [index]"
        )
    if index.dtype == torch.bool:
        if len(index) != count:
            raise ArgumentError(
                f"a mask must hold one boolean for each of the {count} images; got shape "
                f"{tuple(index.shape)}"
            )
        return index.nonzero().squeeze(1)
    if len(index) == 0:
        return index.to(torch.int64)
    if index.is_floating_point() or index.is_complex():
        raise ArgumentError(f"indices must be integers or booleans; got {index.dtype}")
    if index.dtype == torch.uint8 and len(index) == count > 2 and int(index.max()) <= 1:
        raise ArgumentError(
            "uint8 zeros and ones, one for each image, may be a mask or two images over and over; "
            "pass .bool() for a mask, .long() for indices"
        )
    index = index.to(torch.int64)
    low, high = int(index.min()), int(index.max())
    if low < -count or high >= count:
        raise ArgumentError(
            f"indices must be in {-count}..{count - 1} for a set of {count}; got {low}..{high}"
        )
    return torch.where(index < 0, index + count, index)


def _as_tensor(indices: Any) -> Tensor:
    if isinstance(indices, Tensor):
        return indices.detach().cpu()
    try:
        array = np.asarray(indices if hasattr(indices, "__array__") else list(indices))
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"indices must be whole numbers, a mask or a slice; got {indices!r}"
        ) from error
