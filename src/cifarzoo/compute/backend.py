"""Switches of torch's backends, set for the time of a run and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from cifarzoo.compute.place import Place

__all__ = ["arithmetic", "many_shapes"]

_USUAL_SHAPES = 8  # what torch.compile takes before it gives up


@contextlib.contextmanager
def arithmetic(place: Place) -> Iterator[None]:
    """Within the block float32 on a GPU is what the precision says.

    With "float32" it is float32: no multiplication is rounded to TF32. With mixed precision what is
    left in float32 may be, for it is no longer the exact part.
    """
    if place.device.type != "cuda":
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = place.precision != torch.float32
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextlib.contextmanager
def many_shapes(count: int) -> Iterator[None]:
    """Within the block torch.compile makes a program for each of ``count`` shapes of images.

    It would stop after eight, and run the others without.
    """
    import torch._dynamo

    # each in training, in evaluation, and once more where gradients are off
    with torch._dynamo.config.patch(cache_size_limit=_USUAL_SHAPES + 3 * count):
        yield
