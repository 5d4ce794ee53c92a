"""Smooth activations of bfloat16, looked up.

A bfloat16 has 65,536 values. So the results of all of them make a small table, and a lookup takes
less time than the exponential or the error function of each number. The table is made in float64,
so the results are the exact ones, rounded once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.late import settled
from cifarzoo.compute.cpu.standin import StandIn
from cifarzoo.compute.cpu.twice import gradients_to_differentiate

__all__ = ["GELU", "SiLU"]

_MANY = 2**14  # numbers; of fewer, the call costs more than it gains

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu tanh": functools.partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kind = kind
        results, _ = _tables(kind)
        y = torch.empty_like(x)
        native.call("lookup", x, x, results, y, x.numel())
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself to be differentiated: torch's way
            (twice,) = gradients_to_differentiate(_FUNCTIONS[ctx.kind], [x], [True], grad)
            return twice, None
        if grad.stride() != x.stride() or grad.dtype != x.dtype:
            grad = torch.empty_like(x).copy_(grad)
        to_x = torch.empty_like(x)
        _, slopes = _tables(ctx.kind)
        native.call("lookup_gradient", x, grad, x, slopes, to_x, x.numel())
        return to_x, None


@functools.cache
def _tables(name: str) -> tuple[Tensor, Tensor]:
    """The results of all bfloat16, in the order of their bits, and the float32 slopes there."""
    with torch.inference_mode(False), torch.enable_grad():
        bits = torch.arange(2**16, dtype=torch.int32, device="cpu").to(torch.int16)
        x = bits.view(torch.bfloat16).double().requires_grad_()
        y = _FUNCTIONS[name](x)
        (slopes,) = torch.autograd.grad(y.sum(), x)
    return y.detach().bfloat16(), slopes.float()


def _takes(x: Tensor) -> bool:
    return (
        x.dtype == torch.bfloat16
        and x.numel() >= _MANY
        and native.is_eager()
        and native.reads(x)
        and (x.is_contiguous() or native.takes(x))
    )


class GELU(nn.GELU, StandIn):
    """torch's GELU; of many numbers in bfloat16 it is looked up."""

    stock = nn.GELU

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, which is kept."""
        x = settled(x)
        if not _takes(x):
            return super().forward(x)
        y: Tensor = _Lookup.apply(x, "gelu" if self.approximate == "none" else "gelu tanh")
        return y


class SiLU(nn.SiLU, StandIn):
    """torch's SiLU; of many numbers in bfloat16 it is looked up, unless it works in place."""

    stock = nn.SiLU

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, which is kept."""
        x = settled(x)
        if self.inplace or not _takes(x):
            return super().forward(x)
        y: Tensor = _Lookup.apply(x, "silu")
        return y
