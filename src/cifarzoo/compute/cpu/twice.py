"""Gradients that are themselves to be differentiated, computed by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients_to_differentiate"]


def gradients_to_differentiate(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor | None],
    wanted: Sequence[bool],
    grad: Tensor,
) -> list[Tensor | None]:
    """What a backward pass hands on, computed once more in a way that torch can follow.

    Args:
        function: Computes the result of the forward pass from ``inputs``, by operations of torch.
        inputs: Those of the forward pass.
        wanted: Which of them want a gradient: ``ctx.needs_input_grad``, whose rest is not read.
        grad: Gradient of the result.

    Returns:
        The gradient of each input, None where none is wanted.
    """
    # Views of its own: one input may be made of another, or be the same, and each has hooks. From
    # the tensors themselves, torch would go on to what they were made of, and then do so again.
    views: list[Any] = [x if x is None else x.view_as(x) for x in inputs]
    wanted = wanted[: len(views)]
    targets = [x for x, is_wanted in zip(views, wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(function(*views), targets, grad, create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]
