"""Learning from a teacher: a trained network whose probabilities are part of the target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.place import Place, dtype_of
from cifarzoo.data.augment import downsample
from cifarzoo.data.batches import check_logits
from cifarzoo.data.classes import class_numbers
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import split_tag
from cifarzoo.recipe import Recipe
from cifarzoo.zoo.builds import BUILDERS, describe
from cifarzoo.zoo.card import get_card, names_of_outputs

__all__ = ["Distillation", "check_teacher"]


def check_teacher(model: nn.Module, teacher: nn.Module | None, recipe: Recipe) -> None:
    """Raise ArgumentError when ``teacher`` is missing, unwanted, another, or sees other images."""
    if teacher is None and not recipe.teacher:
        return
    wanted, tag = split_tag(recipe.teacher, BUILDERS)
    if teacher is None:
        raise ArgumentError(
            f"the recipe learns from {recipe.teacher!r}; pass teacher=create_model({wanted!r}, "
            f"pretrained={tag or True!r}), or train without: recipe.replace(teacher='')"
        )
    if not recipe.teacher:
        raise ArgumentError(
            "there is a teacher, but the recipe names none; take "
            f"recipe.replace(teacher={describe(teacher).name!r})"
        )
    name = describe(teacher).name
    if name not in (recipe.teacher, wanted):
        raise ArgumentError(
            f"the recipe learns from {recipe.teacher!r}, and the teacher is {name!r}; pass the one "
            f"that it names, or take recipe.replace(teacher={name!r})"
        )
    if (dtype := dtype_of(teacher)) != torch.float32:
        raise ArgumentError(
            f"the teacher holds {str(dtype).removeprefix('torch.')}: teacher.float() makes it "
            "float32"
        )
    learning = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if any(id(parameter) in learning for parameter in teacher.parameters()):
        raise ArgumentError(
            "the teacher holds parameters of the model, and would change while it teaches; pass "
            "teacher=copy.deepcopy(model), which stays as it is now"
        )
    ours, theirs = get_card(model).preprocessing, get_card(teacher).preprocessing
    if ours != theirs:
        raise ArgumentError(
            f"the teacher takes images normalized by {theirs}, the model by {ours}; they must agree"
        )


class Distillation:
    """The part of the loss that comes from a teacher (Hinton et al. 2015, arXiv:1503.02531).

    Teacher and student see the same images, augmented and mixed alike.

    Args:
        teacher: The trained network, in evaluation mode and on the device of ``place``.
        recipe: Weight and temperature.
        place: Where.
    """

    def __init__(self, teacher: nn.Module, recipe: Recipe, place: Place) -> None:
        self._numbers: Tensor | None = None  # of the student's classes among the teacher's
        self._teacher = teacher
        self._weight = recipe.distillation_weight
        self._temperature = recipe.distillation_temperature
        self._sizes = [int(size) for _, size in recipe.image_sizes]
        self._place = place

    @torch.no_grad()
    def match(self, images: Tensor, classes: Sequence[str] | None, num_classes: int) -> None:
        """Take the teacher's outputs by the student's class names; of more classes only those.

        Args:
            images: (B, 3, H, W), normalized; the teacher is asked about the first one.
            classes: Names of the student's classes, where they are known.
            num_classes: Outputs of the student.

        Raises:
            InputError: The teacher knows some of the student's classes and not the others.
            ArgumentError: The teacher has another number of classes, or cannot take a size that the
                recipe trains at.
        """
        with self._place.autocast():
            logits = self._teacher(images[:1])
            check_logits(logits, 1, "a teacher")
            outputs = logits.shape[1]
            for size in self._sizes:
                try:
                    self._teacher(downsample(images[:1], size))
                except (InputError, RuntimeError) as error:
                    raise ArgumentError(
                        f"image_sizes trains at {size} pixels, which the teacher cannot take: "
                        f"{error}; leave image_sizes out, or choose another teacher"
                    ) from error
        known = names_of_outputs(get_card(self._teacher).classes, outputs)
        numbers = class_numbers(classes, known, whose="the teacher")
        if numbers is not None:
            self._numbers = torch.tensor(numbers, device=self._place.device)
        taught = outputs if numbers is None else len(numbers)
        if taught != num_classes:
            raise ArgumentError(
                f"the teacher has {taught} classes, and the model has {num_classes}; "
                "choose a teacher that was trained on the same classes"
            )

    def blend(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The loss by the labels, and what the teacher thinks of the same images.

        Args:
            loss: Scalar, by the labels.
            logits: Float32 (B, C), the student's.
            images: (B, 3, H, W), what it saw.

        Returns:
            Scalar: (1 - w) loss + w T^2 KL(teacher || student), both softened by T.
        """
        with torch.no_grad(), self._place.autocast():
            taught = self._teacher(images)
            if self._numbers is not None:
                taught = taught.index_select(1, self._numbers)
        temperature = self._temperature
        divergence = F.kl_div(
            (logits / temperature).log_softmax(1),
            (taught.float() / temperature).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        return torch.lerp(loss, temperature**2 * divergence, self._weight)
