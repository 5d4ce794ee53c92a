"""What training makes smaller: the loss by the labels, and what a teacher adds to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import NotRequired, TypedDict  # pydantic takes typing's from Python 3.12 on

from cifarzoo.compute.place import Place
from cifarzoo.errors import ArgumentError, CheckpointError, InputError
from cifarzoo.plain import problem_of
from cifarzoo.recipe import Recipe
from cifarzoo.training.distillation import Distillation

__all__ = ["Loss", "Objective", "check_loss"]


class _Kept(TypedDict):
    """What `Objective.state_dict` returns of a loss with buffers."""

    began: NotRequired[dict[str, Any]]
    now: NotRequired[dict[str, Any]]


Loss = Callable[[Tensor, Tensor], Tensor]
"""``(float32 logits (B, C), targets) -> scalar``: targets are int64 (B,), or shares of the classes,
float (B, C), of mixed images."""


def check_loss(loss: Any, recipe: Recipe) -> None:
    """Raise ArgumentError unless ``loss`` can be called and the recipe asks nothing else of it."""
    if loss is None:
        return
    if isinstance(loss, type) or not callable(loss):
        raise ArgumentError(
            f"loss is a function of logits and targets, or an object such as "
            f"nn.CrossEntropyLoss(weight=...); got {loss!r}"
        )
    if recipe.label_smoothing:
        raise ArgumentError(
            f"the recipe's label_smoothing={recipe.label_smoothing:g} belongs to its own loss; set "
            "it to 0, and smooth in your loss"
        )


class Objective:
    """The loss of a run.

    Args:
        recipe: Label smoothing, and the teacher's share.
        loss: In place of cross-entropy. The parameters of a module are not trained.
        teacher: A trained network to learn from as well.
        place: Where.
    """

    def __init__(
        self, recipe: Recipe, loss: Loss | None, teacher: nn.Module | None, place: Place
    ) -> None:
        self._smoothing = recipe.label_smoothing
        # the user's stays where it is
        self._own = copy.deepcopy(loss).to(place.device) if isinstance(loss, nn.Module) else loss
        self._device = place.device
        self._began = _buffers(self._own)
        self._teacher = Distillation(teacher, recipe, place) if teacher is not None else None

    def match(self, images: Tensor, classes: Sequence[str] | None, num_classes: int) -> None:
        """Understand the teacher, if there is one, by the names of the classes."""
        if self._teacher is not None:
            self._teacher.match(images, classes, num_classes)

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            logits: Float32 (B, C).
            targets: int64 (B,), or float (B, C).
            images: (B, 3, H, W), what the network saw.

        Returns:
            A scalar.
        """
        if self._own is None:
            loss = F.cross_entropy(logits, targets, label_smoothing=self._smoothing)
        else:
            loss = self._checked(self._ask(logits, targets))
        return loss if self._teacher is None else self._teacher.blend(loss, logits, images)

    @property
    def is_own(self) -> bool:
        """Whether the loss is one of the user's."""
        return self._own is not None

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean of the user's loss, by the labels alone, of images that are only measured.

        All of them at once: a mean that is weighted by classes is not the mean over its batches. A
        module is asked as a copy in evaluation mode: what it counts is of training images.

        Args:
            logits: Float32 (N, C).
            labels: int64 (N,).

        Returns:
            A scalar.
        """
        own = self._own
        if isinstance(own, nn.Module):
            own = copy.deepcopy(own).eval()
        assert own is not None
        return self._checked(own(logits, labels))

    def state_dict(self) -> dict[str, Any]:
        """What the loss keeps in buffers, and had there at the beginning; empty without any."""
        now = _buffers(self._own)
        return {"began": self._began, "now": now} if now or self._began else {}

    def check(self, state: Any) -> None:
        """Raise CheckpointError unless a run whose `state_dict` was ``state`` had the same loss.

        Checkpoints of older versions do not tell: theirs is None.
        """
        if state is None:
            return
        if problem := problem_of(state, _Kept):
            raise CheckpointError(f"learner.loss is not what a loss keeps: {problem}")
        began, now = state.get("began", {}), state.get("now", {})
        parts = dict(self._own.named_modules()) if isinstance(self._own, nn.Module) else {}
        wrong = [name for name in {*began, *self._began} if not self._began_with(name, began)]
        wrong += [name for name in now if name.rpartition(".")[0] not in parts]
        wrong += [name for name, value in now.items() if not isinstance(value, Tensor)]
        if wrong:
            raise CheckpointError(
                f"the loss differs from the one that the run began with, in its buffer "
                f"{min(wrong)!r}; continue it with that one"
            )

    def _began_with(self, name: str, before: dict[str, Any]) -> bool:
        """Whether a buffer was, when this run began, what it was ``before``."""
        both = [each[name] for each in (before, self._began) if name in each]
        if len(both) < 2 or not all(isinstance(each, Tensor) for each in both):
            return False
        return torch.equal(*(each.cpu() for each in both))

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go back to what `state_dict` returned, and `check` has found fit."""
        for name, value in (state or {}).get("now", {}).items():
            holder, _, own = name.rpartition(".")
            # as it may have grown, or been made since the beginning
            assert isinstance(self._own, nn.Module)
            self._own.get_submodule(holder)._buffers[own] = value.to(self._device)

    def _ask(self, logits: Tensor, targets: Tensor) -> Any:
        assert self._own is not None
        try:
            return self._own(logits, targets)
        except Exception as error:  # whatever a loss does with what it does not expect
            if targets.ndim == 1:
                raise
            raise InputError(
                f"loss cannot take shares of classes {tuple(targets.shape)}, which mixup_alpha, "
                f"cutmix_alpha and labels in rows make: {error}; set both to 0, or let it take them"
            ) from error

    def _checked(self, loss: Any) -> Tensor:
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(f"loss must return one number, the mean over the batch; got {got}")
        return loss.squeeze()


def _buffers(loss: Any) -> dict[str, Tensor]:
    """A copy of the buffers of a loss that is a module."""
    found = loss.named_buffers() if isinstance(loss, nn.Module) else ()
    return {name: value.detach().clone() for name, value in found}
