"""Networks that are only looked at, and keep what a pass would change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["unchanged"]


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """After the block, parameters and buffers are those of before, with the same numbers.

    In evaluation mode, too, a pass may change them: observers of a quantization widen their range,
    and layers that begin by their first batch begin.
    """
    before = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    tables = [t for module in model.modules() for t in (module._parameters, module._buffers)]
    held = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, was in zip(tables, held, strict=True):
            table.clear()
            table.update(was)  # type: ignore[arg-type]  # each its own kind
        with torch.no_grad():
            for tensor, value in before:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)
