"""Wrappers of torch around a network, which add no computation: compiled, distributed, averaged."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["HOOKS", "Passing", "has_own_forward", "wrapped"]

# a module's tables that change what a pass answers
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
)


class Passing(nn.Module):
    """Does what a wrapper does in one process: it calls the network inside, and its own hooks.

    Args:
        name: What the wrapper calls the network, so that names of its layers stay valid.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *inputs: Any, **others: Any) -> Any:
        """Answer as the network does."""
        return self._modules[self.name](*inputs, **others)  # type: ignore[misc]  # set at once


_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel, Passing)


def wrapped(module: nn.Module) -> nn.Module | None:
    """The module inside a wrapper, or None.

    Wrappers are those of torch.compile, DataParallel, DistributedDataParallel and AveragedModel.
    """
    inner = module.__dict__.get("_modules", {}).get("_orig_mod")  # of torch.compile
    if inner is None and isinstance(module, _WRAPPERS):
        inner = module.module
    return inner if isinstance(inner, nn.Module) else None


def has_own_forward(wrapper: nn.Module) -> bool:
    """Whether somebody gave ``wrapper`` another ``forward`` than torch did."""
    forward = vars(wrapper).get("forward")
    if forward is None:
        owner = next(kind for kind in type(wrapper).__mro__ if "forward" in vars(kind))
    elif hasattr(forward, "_torchdynamo_orig_callable"):
        return False
    else:
        owner = getattr(forward, "__func__", forward)
    package = str(getattr(owner, "__module__", "")).partition(".")[0]
    return package not in ("torch", "cifarzoo")
