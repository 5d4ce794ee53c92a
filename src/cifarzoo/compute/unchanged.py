"""Networks that are only looked at, and keep what a pass would change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["unchanged"]


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """After the block, parameters and buffers are what they were before.

    In evaluation mode, too, a pass may change them: observers of a quantization widen their range,
    and layers that begin by their first batch begin.
    """
    before = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)
