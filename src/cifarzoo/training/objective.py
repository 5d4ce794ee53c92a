"""What training makes smaller: the loss by the labels, and what a teacher adds to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.place import Place
from cifarzoo.compute.unchanged import unchanged
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.recipe import Recipe
from cifarzoo.training.distillation import Distillation

__all__ = ["Loss", "Objective", "check_loss"]

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

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss by the labels alone, of images that are only measured.

        All of them at once: a mean that is weighted by classes is not the mean over its batches.

        Args:
            logits: Float32 (N, C).
            labels: int64 (N,).

        Returns:
            A scalar.
        """
        if self._own is None:
            return F.cross_entropy(logits, labels)
        own = self._own if isinstance(self._own, nn.Module) else nn.Module()
        with unchanged(own):  # a loss that counts what it sees counts what is trained
            return self._checked(self._own(logits, labels))

    def state_dict(self) -> dict[str, Any]:
        """What the loss keeps, where it is a module that keeps something."""
        return self._own.state_dict() if isinstance(self._own, nn.Module) else {}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go back to what `state_dict` returned; older checkpoints have nothing of it."""
        if isinstance(self._own, nn.Module) and state:
            self._own.load_state_dict(state)

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
