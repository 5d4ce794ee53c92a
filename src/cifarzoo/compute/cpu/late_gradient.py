"""Gradients of normalized maps that are computed together with the addition of another one.

A map that several layers read, as those of a DenseNet are, has several gradients, which autograd
adds up. Each sum reads and writes the whole map once more. So a normalization whose input is of
that kind hands over a `LateGradient`, and the first addition computes it on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.native import Activation, Statistics

__all__ = ["LateGradient", "is_shared", "replace"]

_SHARING = ("AddBackward0", "CatBackward0")  # what makes maps that are read several times
_LARGE = 2**21  # numbers; for smaller maps the detour costs more
_REGISTER = 16  # channels


class LateGradient(Tensor):
    """The gradient of a normalized map, whose numbers are not computed yet."""

    _grad_behind: Tensor
    _input: Tensor
    _of: Statistics
    _plan: Tensor
    _kind: Activation
    _versions: tuple[int, int]  # of what it is computed from
    _value: Tensor | None  # the numbers, once somebody has asked for them

    @classmethod
    def of(
        cls, grad: Tensor, x: Tensor, of: Statistics, plan: Tensor, kind: Activation
    ) -> LateGradient:
        """By the gradient behind the activation and what `native.norm_plan` found."""
        late: LateGradient = Tensor._make_wrapper_subclass(
            cls, x.size(), strides=x.stride(), dtype=x.dtype, device=x.device
        )
        late._grad_behind, late._input, late._of = grad, x, of
        late._plan, late._kind = plan, kind
        late._versions, late._value = (grad._version, x._version), None
        return late

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Hooks meet an ordinary tensor, always the same one: it may be changed in place."""
        args, kwargs = (replace(cls, LateGradient.settled, a) for a in (args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch leaves it half typed
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Add to another gradient in one pass; all else meets an ordinary tensor."""
        if func is torch.ops.aten.add.Tensor and not kwargs and len(args) == 2:
            late, more = args if type(args[0]) is cls else args[::-1]
            if late._value is None and type(more) is Tensor and _are_pixels(more, late._input):
                return late.compute(more)
        args, kwargs = (replace(cls, LateGradient.settled, a) for a in (args, kwargs or {}))
        return func(*args, **kwargs)

    def settled(self) -> Tensor:
        """The ordinary tensor that it has become."""
        if self._value is None:
            self._value = self.compute()
        return self._value

    def compute(self, more: Tensor | None = None) -> Tensor:
        """The numbers, added to those of another map."""
        if (self._grad_behind._version, self._input._version) != self._versions:
            raise RuntimeError(
                "a map, or the gradient behind its normalization, was changed in place before the "
                "map's own gradient was used; copy it first, or train with Trainer(kernels=False)"
            )
        parts = self._grad_behind, self._input, self._of, self._plan, self._kind
        return native.norm_gradient(*parts, more)


def is_shared(x: Tensor) -> bool:
    """Whether a map is likely to be read several times, and large."""
    name = x.grad_fn.name() if x.grad_fn is not None else ""
    return name in _SHARING and x.numel() >= _LARGE and x.shape[1] >= _REGISTER


def replace(kind: type[Any], change: Callable[[Any], Tensor], value: Any) -> Any:
    """``value`` with each tensor of the class ``kind`` in it changed."""
    if type(value) is kind:
        return change(value)
    if isinstance(value, tuple | list):
        changed = [replace(kind, change, each) for each in value]
        if all(new is old for new, old in zip(changed, value, strict=True)):
            return value
        return tuple(changed) if isinstance(value, tuple) else changed
    if isinstance(value, dict):
        return {key: replace(kind, change, each) for key, each in value.items()}
    return value


def _are_pixels(more: Tensor, like: Tensor) -> bool:
    """Whether ``more`` is a map like another, or some channels of one like it."""
    if more.shape != like.shape or more.dtype != like.dtype or more.device != like.device:
        return False
    apart, width = more.stride(3), more.shape[3]
    return more.stride() == (more.shape[2] * width * apart, 1, width * apart, apart)
