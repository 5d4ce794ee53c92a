"""Muon for filters and, if wanted, dense layers; SGD for everything else: one optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifarzoo.compute.machine import computes_bfloat16
from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten

__all__ = ["MuonSGD", "orthogonalize"]

# a quintic with the steepest slope at 0 that still keeps singular values near 1
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS_BY_GRAM = 3  # more lose small singular values; so do two in bfloat16


class MuonSGD(Optimizer):
    """Moves filters by orthogonalized gradients, and all other parameters by SGD.

    Both have Nesterov momentum.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", and its
    use in airbench94_muon. A filter is a parameter of four dimensions. Its gradient, with momentum,
    is taken as a matrix with a row for each output, whose singular values are then moved to about
    1. Before each step the filters of a layer are scaled to one norm, on average 1 for each output.
    If a batch normalization follows, the scale of the filters has no effect, but the relative size
    of the step has one. If none follows, the signal keeps about its size.

    Args:
        params: Parameters or groups of parameters.
        lr: Learning rate; for filters, it is the relative size of a step.
        momentum: Nesterov momentum.
        weight_decay: Weight decay, which is added to the gradient; filters have none.
        steps: Number of Newton-Schulz iterations.
        dense: Whether to move the matrices of dense layers like filters. The last dense layer is
            left out: it gives the logits and must be free to grow.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.24,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        steps: int = 3,
        dense: bool = False,
    ) -> None:
        if not isinstance(dense, bool):
            raise ArgumentError(f"dense must be True or False; got {shorten(dense)}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "steps": steps,
            "dense": dense,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's overloads
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = [p for group in self.param_groups for p in group["params"] if p.ndim == 2]
        hidden = {id(p) for p in matrices[:-1]}
        for group in self.param_groups:
            filters: list[nn.Parameter] = []
            others: list[nn.Parameter] = []
            for p in group["params"]:
                if p.grad is not None:
                    is_filter = p.ndim == 4 or (group["dense"] and id(p) in hidden)
                    (filters if is_filter else others).append(p)
            if filters:
                self._move_filters(filters, group)
            if others:
                self._move_others(others, group)
        return loss

    def _move_others(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients: Any = [p.grad for p in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, list(parameters), alpha=group["weight_decay"])
        updates = self._with_momentum(parameters, gradients, group)
        torch._foreach_add_(list(parameters), updates, alpha=-group["lr"])

    def _move_filters(self, filters: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = self._with_momentum(filters, [p.grad for p in filters], group)
        same_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, update in enumerate(updates):
            same_shape[tuple(update.shape)].append(i)
        for members in same_shape.values():
            # all of one shape at once: on a GPU each operation waits for its launch
            steps = orthogonalize(
                torch.stack([_as_rows(updates[i]) for i in members]), group["steps"]
            )
            rows = torch.stack([_as_rows(filters[i]) for i in members])
            # a filter bank may begin at zero, as the last of a residual branch
            norms = torch.linalg.matrix_norm(rows, keepdim=True).clamp_min_(1e-7)
            rows = rows.mul_(rows.shape[1] ** 0.5 / norms).sub_(steps, alpha=group["lr"])
            shape = filters[members[0]].shape
            torch._foreach_copy_(
                [filters[i] for i in members], [_as_filters(row, shape) for row in rows]
            )

    def _with_momentum(
        self, parameters: list[nn.Parameter], gradients: Any, group: dict[str, Any]
    ) -> Any:
        if not group["momentum"]:
            return gradients
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        return torch._foreach_add(gradients, buffers, alpha=group["momentum"])


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Move the singular values of each matrix towards 1 by Newton-Schulz iterations.

    Args:
        matrices: (N, rows, columns), float32.
        steps: Number of iterations. Singular values that are not small end between about 0.7 and
            1.2.

    Returns:
        Float32 (N, rows, columns); computed in bfloat16 where the device does so natively.
    """
    fast = computes_bfloat16(matrices.device)
    x: Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16) if fast else x
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    if fast or 2 * x.shape[2] <= 3 * x.shape[1]:
        a, b, c = _COEFFICIENTS
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
    else:  # of wide matrices, it is less work to find first what they will be multiplied by
        for left in range(steps, 0, -_STEPS_BY_GRAM):
            x = _factor(x @ x.mT, min(left, _STEPS_BY_GRAM)) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


def _factor(gram: Tensor, steps: int) -> Tensor:
    """What so many iterations multiply matrices X by, from their X X^T; (N, rows, rows).

    The factor of each follows from X X^T, which it multiplies from both sides.

    Source: Zhang, Amsel, Chen, Dao 2026, "Gram Newton-Schulz".
    """
    factor = found = _polynomial(gram)
    for _ in range(steps - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        found = factor @ found
    return found


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    factor = b * gram + c * gram @ gram
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


def _as_rows(filters: Tensor) -> Tensor:
    """View (out, in, ...) as (out, all the rest), in the order filters have in memory."""
    return filters.movedim(1, -1).flatten(1)


def _as_filters(rows: Tensor, shape: torch.Size) -> Tensor:
    """What `_as_rows` made rows of."""
    outputs, inputs, *kernel = shape
    return rows.view(outputs, *kernel, inputs).movedim(-1, 1)
