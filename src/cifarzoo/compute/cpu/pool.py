"""Maximum pooling as it is computed within `cpu_kernels`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.late import settled
from cifarzoo.compute.cpu.standin import StandIn

__all__ = ["MaxPool2d"]

_WINDOW = ([2, 2], [2, 2], [0, 0], [1, 1], False)  # kernel, stride, padding, dilation, ceil_mode


class MaxPool2d(nn.MaxPool2d, StandIn):
    """torch's maximum pooling; by windows of 2x2 it is computed in C.

    torch keeps an index of eight bytes for each number, fills the whole gradient with zeros, and
    then writes what the indices say. Here the largest is sought once more instead, and the gradient
    is written once.
    """

    stock = nn.MaxPool2d

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H // 2, W // 2), or as torch's."""
        x = settled(x)
        if not _takes(x) or not self._is_of_pairs(x):
            return super().forward(x)  # type: ignore[no-any-return]  # torch leaves it untyped
        y: Tensor = _Pool.apply(x)
        return y

    def _is_of_pairs(self, x: Tensor) -> bool:
        """Whether the windows are of 2x2 pixels, none beyond the map."""
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        pairs = tuple([n, n] if isinstance(n, int) else [*n] for n in sizes)
        is_even = x.shape[2] % 2 == x.shape[3] % 2 == 0
        return pairs == _WINDOW[:4] and not self.return_indices and (is_even or not self.ceil_mode)


def _takes(x: Tensor) -> bool:
    is_map = native.is_eager() and native.takes(x)
    return is_map and x.shape[1] >= native.filled(1) and min(x.shape[2:]) >= 2


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        batch, channels, height, width = x.shape
        y = native.new_map(x, batch, channels, height // 2, width // 2)
        native.call("pool", x, x, y, batch, height, width, channels)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated: torch's way
            _, index = torch.ops.aten.max_pool2d_with_indices(x, *_WINDOW)
            to_x: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *_WINDOW, index)
            return to_x
        batch, channels, height, width = x.shape
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        to_x = torch.empty_like(x)
        native.call("pool_gradient", x, grad, x, to_x, batch, height, width, channels)
        return to_x
