"""Normalized maps that are computed when it is known what becomes of them.

A batch normalization is mostly followed by an activation, or by the addition of a shortcut and an
activation. Each alone reads and writes the whole map. So the normalization hands over a `Late`: a
tensor that knows its statistics and has no numbers yet. An activation that meets one computes both
in one pass, forward and backward; whatever else meets one has it compute its numbers first. In a
network with depthwise convolutions the activated map is a `Late` too, and such a convolution
computes it wherever it reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.activated import Normalized, activate, activate_sum
from cifarzoo.compute.cpu.checkpointed import is_in_checkpoint
from cifarzoo.compute.cpu.late_gradient import replace
from cifarzoo.compute.cpu.native import Activation, Statistics

__all__ = ["Late", "activated", "normalize_late", "settled"]


class Late(Tensor):
    """A normalized map whose numbers are not computed yet.

    Perhaps another map is added, or it is activated.
    """

    _input: Tensor
    _weight: Tensor | None
    _bias: Tensor | None
    _of: Statistics
    _plus: Tensor | None
    _kind: Activation
    _is_kept: bool  # an activation leaves it to what comes next
    _versions: tuple[int, int]  # of the input and what is added, when they were met
    _value: Tensor | None  # the numbers, once they are needed
    _now: Tensor | None  # what stands for it since an operation has met it
    _version_of_now: int
    _node: Any  # of the graph, that its numbers belong to; somebody's Function may put it elsewhere
    _is_passed: bool  # an operation was computed together with it, past its place in the graph

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an activation or addition in one pass; all else meets an ordinary tensor."""
        kwargs = kwargs or {}
        if func in _LOOKS and args[0]._now is None:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        fused = _FUSED.get(func) if "input" not in kwargs else None
        if fused is not None and (fused is _ask or not is_in_checkpoint()):
            found = fused(*args, **kwargs)
            if found is not None:
                return found
        met: list[Late] = []

        def settle(x: Late) -> Tensor:
            met.append(_end(x))
            now: Tensor = settled(x)
            return now

        result = func(*replace(Late, settle, args), **replace(Late, settle, kwargs))
        for x in met:
            if x._now is not None and x._now._version != x._version_of_now:
                x._become(x._now)  # it was changed in place
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch leaves it half typed
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Give operations the numbers that are called from C++, past ``__torch_function__``."""
        args, kwargs = (replace(Late, _numbers, value) for value in (args, kwargs or {}))
        return func(*args, **kwargs)

    def _become(self, now: Tensor) -> None:
        """Stand for another tensor from now on, also for operations called from C++."""
        self._now, self._version_of_now = now, now._version
        if torch.is_grad_enabled() and now.requires_grad:
            with torch._C.DisableTorchFunctionSubclass():
                _Become.apply(self, now)
            self._node = _node(self)

    def _compute(self) -> Tensor:
        if self._value is None:
            self._check()
            self._value = native.norm_apply(self._input, self._of, self._kind, self._plus)
        return self._value

    def _check(self) -> None:
        """Refuse to compute from other numbers than those that were met."""
        if (self._input._version, _version(self._plus)) != self._versions:
            raise RuntimeError(
                "the input of a batch normalization, or what was added to its output, was changed "
                "in place before the output was used; copy it first, or train with "
                "Trainer(kernels=False)"
            )


def normalize_late(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    of: Statistics,
    kind: Activation = "none",
    *,
    is_kept: bool = False,
) -> Late:
    """The map ``x`` (B, C, H, W) normalized by its statistics, computed when it is used.

    With ``is_kept``, an activation is not computed either, but by what comes next.
    """
    x, weight, bias = _parts(x, weight, bias)
    late: Late = _Begin.apply(x, weight, bias, of, kind)
    late._input, late._weight, late._bias = x, weight, bias
    late._kind, late._is_kept = kind, is_kept
    late._node = _node(late)
    return late


def activated(x: Any) -> Late | None:
    """``x``, if it is normalized and activated, and nobody has needed its numbers yet."""
    if type(x) is not Late:
        return None
    x = _end(x)
    is_open = x._now is None and x._kind != "none" and _is_in_place(x)
    return x if is_open and not is_in_checkpoint() else None


def settled(x: Any) -> Any:
    """``x`` itself, or the ordinary tensor that a `Late` has become."""
    if type(x) is not Late:
        return x
    x = _end(x)
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):  # or the numbers would be of no use outside of it
            return _numbers(x)
    if x._now is None or not _is_in_place(x):
        with torch.set_grad_enabled(_has_gradient(x)):  # it may be used once more
            x._now = _Settle.apply(x)
        x._version_of_now, x._node = x._now._version, _node(x)
    elif not torch.is_grad_enabled():
        _check_unchanged(x)  # this may be an autograd.Function
    return x._now


def _end(x: Late) -> Late:
    """The last one that it has become."""
    while type(x._now) is Late:
        x = x._now
    return x


def _check_unchanged(x: Late) -> None:
    if x._now is not None and x._now._version != x._version_of_now:
        raise RuntimeError(
            "a normalized map was changed in place through another tensor that shares its memory, "
            "and its gradient is not known any more; use that tensor, or Trainer(kernels=False)"
        )


def _ask(*args: Any, **kwargs: Any) -> None:
    """Refuse to promise a gradient that will not come by."""
    replace(Late, _check_asked, (args, kwargs))


def _check_asked(x: Late) -> Late:
    if _end(x)._is_passed:
        raise RuntimeError(
            "the gradient of a normalized map is not known after an activation or addition has "
            "used the map, for both are computed together; register the hook, or call "
            "retain_grad(), before that, or train with Trainer(kernels=False)"
        )
    return x


def _node(x: Late) -> Any:
    if torch.compiler.is_compiling():  # it would look for this by the class's own function again
        return None
    with torch._C.DisableTorchFunctionSubclass():
        return x.grad_fn


def _is_in_place(x: Late) -> bool:
    """Whether it has the place in the graph that its numbers were computed for.

    Reentrant checkpoints, and other Functions, compute without a graph and put what they return
    behind a node of their own. Its numbers are right then, and what it was computed from is not.
    """
    return torch.compiler.is_compiling() or _node(x) is x._node


def _has_gradient(x: Late) -> bool:
    with torch._C.DisableTorchFunctionSubclass():
        return x.requires_grad


def _numbers(x: Late) -> Tensor:
    x = _end(x)
    _check_unchanged(x)
    return x._compute() if x._now is None else x._now.detach()


def _wrap(like: Tensor, of: Statistics) -> Late:
    late: Late = Tensor._make_wrapper_subclass(
        Late, like.size(), strides=like.stride(), dtype=like.dtype, device=like.device
    )
    late._of = of
    late._plus = late._value = late._now = None
    late._kind, late._is_kept, late._is_passed = "none", False, False
    late._node = None
    late._versions, late._version_of_now = (like._version, 0), 0
    return late


def _activate(x: Late, kind: Activation, *, inplace: bool = False) -> Tensor | None:
    """The map behind an activation, if it can be computed together with the normalization."""
    if x._now is not None or x._kind != "none" or (x._plus is not None and kind != "relu"):
        return None
    if not _is_in_place(x):
        return None
    if inplace and not torch.is_grad_enabled() and _has_gradient(x):
        return None  # the numbers change, the gradient does not
    x._check()
    norm = x._input, x._weight, x._bias, x._of
    y: Tensor
    if x._plus is not None:
        y = activate_sum(*norm, x._plus)
    else:
        y = normalize_late(*norm, kind) if x._is_kept else activate(*norm, kind)
    if inplace:
        x._become(y)
    else:
        x._is_passed = True
    return y


def _relu(x: Any, inplace: bool = False) -> Tensor | None:
    return _activate(x, "relu", inplace=inplace)


def _hardtanh(
    x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor | None:
    return _activate(x, "relu6", inplace=inplace) if (min_val, max_val) == (0, 6) else None


def _relu6(x: Any, inplace: bool = False) -> Tensor | None:
    return _activate(x, "relu6", inplace=inplace)


def _add(x: Any, other: Any, *, alpha: float = 1, out: None = None) -> Tensor | None:
    """A `Late` that has something added, if that is a map like it."""
    if not _is_open(x):
        x, other = other, x
    if alpha != 1 or out is not None or not _is_open(x) or not _is_like(other, x):
        return None
    x._check()
    other = settled(other)
    late: Late = _Add.apply(x, other, False)
    late._input, late._weight, late._bias = _parts(x._input, x._weight, x._bias)
    late._node = _node(late)
    x._is_passed = True
    _set_plus(late, other)
    return late


def _parts(
    x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What a `Late` that is made now is computed from."""
    if torch.is_grad_enabled():
        return x, weight, bias
    weight, bias = (t if t is None else t.detach() for t in (weight, bias))
    return x.detach(), weight, bias  # nor is there a gradient when it is used later


def _add_in_place(x: Any, other: Any, *, alpha: float = 1) -> Tensor | None:
    """``x`` itself, which has something added."""
    if alpha != 1 or not _is_open(x) or not _is_like(other, x):
        return None
    if not torch.is_grad_enabled() and _has_gradient(x):
        return None  # the numbers change, the gradient does not
    if type(other) is Late and _end(other) is _end(x):
        return None  # to be added to itself, it needs its numbers
    x._check()
    other = settled(other)
    with torch._C.DisableTorchFunctionSubclass():
        _Add.apply(x, other, True)
    x._node = _node(x)
    _set_plus(x, other)
    late: Late = x
    return late


def _set_plus(x: Late, other: Tensor) -> None:
    x._plus = other if torch.is_grad_enabled() else other.detach()
    x._versions = (x._versions[0], other._version)


def _version(x: Tensor | None) -> int:
    return 0 if x is None else x._version


def _is_like(other: Any, x: Late) -> bool:
    if not isinstance(other, Tensor) or other.shape != x.shape or other.dtype != x.dtype:
        return False
    return type(other) is Late or native.takes(other)


def _is_open(x: Any) -> bool:
    """Whether it is a normalized map that something can be added to."""
    is_bare = type(x) is Late and x._now is None and x._plus is None and x._kind == "none"
    return is_bare and _is_in_place(x)


_FUSED: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_, F.relu_), functools.partial(_relu, inplace=True)),
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    F.hardtanh_: functools.partial(_hardtanh, inplace=True),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), _add),
    **dict.fromkeys((Tensor.add_, Tensor.__iadd__), _add_in_place),
    **dict.fromkeys((Tensor.register_hook, Tensor.retain_grad, torch.autograd.grad), _ask),
}
_LOOKS = {
    *(
        getattr(Tensor, name).__get__
        for name in (
            *("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "_version"),
        )
    ),
    *(
        getattr(Tensor, name)
        for name in ("size", "dim", "stride", "numel", "is_contiguous", "is_floating_point")
    ),
    Tensor.__len__,
}


class _Begin(Normalized):
    """The normalization, as the rest of the graph sees it that does not compute with it at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Late:
        Normalized.keep(ctx, x, *rest)
        _, _, of, _ = rest
        return _wrap(x, of)


class _Add(torch.autograd.Function):
    """A map that is added to a `Late`."""

    @staticmethod
    def forward(ctx: Any, x: Late, other: Tensor, in_place: bool) -> Late:
        if in_place:
            ctx.mark_dirty(x)
            return x
        return _wrap(x._input, x._of)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, grad, None


class _Become(torch.autograd.Function):
    """A `Late` that was changed in place."""

    @staticmethod
    def forward(ctx: Any, x: Late, now: Tensor) -> Late:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


class _Settle(torch.autograd.Function):
    """The numbers of a `Late`."""

    @staticmethod
    def forward(ctx: Any, x: Late) -> Tensor:
        return x._compute() if x._now is None else x._now.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad
