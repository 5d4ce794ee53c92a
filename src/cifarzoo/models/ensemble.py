"""Several networks as one, which answers with the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu.native import is_eager
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.models.input import check_input
from cifarzoo.names import first_difference
from cifarzoo.plain import shorten
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import ModelCard, Preprocessing, attach_card

__all__ = ["Ensemble", "ensemble"]

# its images are pixels from 0 to 1: each member normalizes them as it was trained
_PIXELS = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_BEYOND = 0.5


class Ensemble(nn.Module):
    """Networks that answer together (Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4).

    Args:
        members: The networks.
        preprocessing: The normalization of each.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, members: Sequence[nn.Module], preprocessing: Sequence[Preprocessing]):
        super().__init__()
        self.members = nn.ModuleList(members)
        for name, values in (
            ("means", [each.mean for each in preprocessing]),
            ("stds", [each.std for each in preprocessing]),
        ):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms (B, num_classes) of the mean probabilities; pixels (B, 3, H, W) in 0..1.

        Raises:
            InputError: The images are normalized, or in 0..255.
        """
        if is_eager() and images.numel():
            _check_pixels(images)
        logarithms = [
            F.log_softmax(member((images - mean) / std), 1)
            for member, mean, std in zip(self.members, self.means, self.stds, strict=True)
        ]
        return torch.logsumexp(torch.stack(logarithms), 0) - math.log(len(logarithms))


def _check_pixels(images: Tensor) -> None:
    """Refuse what is far outside of 0..1: a resized or disturbed image may be a little outside."""
    low, high = (float(value) for value in images.detach().aminmax())
    if low < -_BEYOND or high > 1 + _BEYOND:
        raise InputError(
            "an ensemble takes pixels in 0..1, which each of its networks normalizes by itself; "
            f"got {low:.3g} to {high:.3g}: divide values in 0..255 by 255, and normalize nothing"
        )


def ensemble(models: Sequence[nn.Module]) -> Ensemble:
    """Make one network that averages the probabilities of several.

    `evaluate`, `predict`, `compare` and the HTML report take it like any other network. Each member
    has its own normalization, so members may be of different kinds.

    Args:
        models: Networks with cards that have the same classes in the same order. They become parts
            of the ensemble; they are not copied.

    Returns:
        The ensemble in evaluation mode, with a card. Its outputs are logarithms of probabilities.

    Raises:
        ArgumentError: It is no list, there is no network in it, or their classes, dtypes or devices
            differ.

    Example:
        >>> from cifarzoo import create_model, evaluate, load_sample
        >>> members = [create_model(name, pretrained=True) for name in ("simple", "resnet20")]
        >>> report = evaluate(ensemble(members), load_sample("test"))
        >>> report.accuracy > 0.9
        True
    """
    is_one = isinstance(models, nn.Module) and not isinstance(models, nn.ModuleList)
    if is_one or not isinstance(models, Iterable):
        raise ArgumentError(
            f"an ensemble is made of a list of networks; got {shorten(models)}: ensemble([model]) "
            "takes one"
        )
    members = list(models)
    if not members:
        raise ArgumentError("an ensemble needs at least one network; got none")
    for member in members:
        if not isinstance(member, nn.Module):
            raise ArgumentError(f"an ensemble is made of networks; got a {type(member).__name__}")
    cards = [describe(member) for member in members]
    first = cards[0]
    for card in cards[1:]:
        if (card.num_classes, card.classes) != (first.num_classes, first.classes):
            raise ArgumentError(
                "the networks of an ensemble must have the same classes in the same order: "
                + _difference(first, card)
            )
    firsts = [next(member.parameters(), None) for member in members]
    kinds = dict.fromkeys((p.dtype, str(p.device)) for p in firsts if p is not None)
    if len(kinds) > 1:
        raise ArgumentError(
            "the networks of an ensemble must have parameters of one dtype on one device; got "
            + " and ".join(f"{dtype} on {device}" for dtype, device in kinds)
        )
    together = Ensemble(members, [card.preprocessing for card in cards]).eval()
    parameter = next(together.parameters(), None)
    if parameter is not None:
        together.means = together.means.to(parameter)
        together.stds = together.stds.to(parameter)
    check_input(together, None)
    attach_card(together, ModelCard("Ensemble", first.num_classes, {}, _PIXELS, first.classes))
    return together


def _difference(first: ModelCard, second: ModelCard) -> str:
    """How the classes of two networks differ, which they do."""
    if first.num_classes == second.num_classes and first.classes and second.classes:
        return first_difference(first.classes, second.classes)
    return f"{first.name} has {_count(first)}, and {second.name} has {_count(second)}"


def _count(card: ModelCard) -> str:
    return f"{card.num_classes} classes" + ("" if card.classes else " without names")
