"""What trainers keep beside tensors in a pickle, read by stand-ins of what the pickle would call.

numpy takes back what it wrote without a doubt: sizes that a stranger wrote there reach beyond the
memory there is. Here bytes become an array where their number is right, and nothing otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ArrayPickle", "stand_ins"]

_DIMENSIONS = 32  # as many as every numpy can have


class _DtypePickle:
    """For ``numpy.dtype``: its code, as in "f8", and the order of bytes."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code if isinstance(code, str) else "", "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state[1], str) else ""
        self.order = "=" if order == "|" else order

    def read(self, content: Any) -> Any:
        """An array (N,) of the bytes; None where they are no plain numbers or texts."""
        text = self.order + self.code
        if not re.fullmatch(r"[<>=](b1|[iuf][1248]|[US]\d{1,4})", text):
            return None
        dtype = np.dtype(text)
        if not isinstance(content, bytes | bytearray) or not dtype.itemsize:
            return None
        if len(content) % dtype.itemsize:
            return None
        return np.frombuffer(bytes(content), dtype).astype(dtype.newbyteorder("="))


class ArrayPickle:
    """For ``numpy.ndarray``; ``value`` is the array, or None for one that was not read."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        flat = dtype.read(content) if isinstance(dtype, _DtypePickle) else None
        if flat is not None and _is_shape(shape, len(flat)):
            self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _is_shape(shape: Any, count: int) -> bool:
    """Whether an array of ``count`` numbers can have it."""
    if not isinstance(shape, tuple) or len(shape) > _DIMENSIONS:
        return False
    if any(type(side) is not int or not 0 <= side <= count for side in shape):
        return False
    return math.prod(shape) == count  # of Python's own numbers: numpy's would wrap around


class _Arguments:
    """For ``argparse.Namespace``, whose repr would show all that it holds: holds nothing."""

    def __setstate__(self, state: Any) -> None:
        """Leave it."""


def _reconstruct(*_: Any) -> ArrayPickle:
    return ArrayPickle()


def _scalar(dtype: Any, content: Any = None) -> Any:
    found = dtype.read(content) if isinstance(dtype, _DtypePickle) else None
    return found[0] if found is not None and len(found) == 1 else None


def stand_ins() -> list[tuple[Callable[..., Any], str]]:
    """What `torch.serialization.safe_globals` takes: each stand-in, and what it stands for."""
    found: list[tuple[Callable[..., Any], str]] = [
        (_DtypePickle, "numpy.dtype"),
        (ArrayPickle, "numpy.ndarray"),
        (_Arguments, "argparse.Namespace"),
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before numpy 2, and now
        found += [(_scalar, f"{module}.scalar"), (_reconstruct, f"{module}._reconstruct")]
    return found
