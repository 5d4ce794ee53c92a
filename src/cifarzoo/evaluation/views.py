"""Test-time augmentation: the mean of a network's answers to several views of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from cifarzoo.errors import ArgumentError

__all__ = ["UNSURE", "TestTimeAugmentation", "average_views", "check_views", "count_views"]

TestTimeAugmentation = Literal["none", "flip", "flip_shift", "flip_shift_unsure"]
UNSURE: TestTimeAugmentation = "flip_shift_unsure"

# weight of each view: whether mirrored, pixels moved up and left (down and right when negative)
_VIEWS: dict[str, dict[tuple[bool, int], float]] = {
    "none": {(False, 0): 1.0},
    "flip": {(False, 0): 0.5, (True, 0): 0.5},
    "flip_shift": {
        (mirrored, shift): 0.25 if shift == 0 else 0.125
        for mirrored in (False, True)
        for shift in (0, 1, -1)
    },
}


def check_views(ways: Sequence[TestTimeAugmentation]) -> None:
    """Raise ArgumentError when one of ``ways`` is unknown, or there is none."""
    if not ways:
        raise ArgumentError("name at least one way to look at the images, such as 'none'; got none")
    for tta in ways:
        if tta not in get_args(TestTimeAugmentation):
            raise ArgumentError(f"tta must be one of {get_args(TestTimeAugmentation)}; got {tta!r}")


def count_views(ways: Sequence[TestTimeAugmentation], images: int) -> int:
    """How many views of so many images the network looks at, for all of ``ways`` together.

    Example:
        >>> count_views(["none", "flip"], 100), count_views(["flip_shift_unsure"], 100)
        (200, 250)
    """
    shared = {view for way in ways for view in _VIEWS["none" if way == UNSURE else way]}
    again = len(_VIEWS["flip_shift"]) * math.ceil(images / 4) if UNSURE in ways else 0
    return len(shared) * images + again


def average_views(
    answer: Callable[[Tensor], Tensor], images: Tensor, ways: Iterable[TestTimeAugmentation]
) -> dict[TestTimeAugmentation, Tensor]:
    """Answers (B, C) for each way: the mean over its views of ``images``, which the ways share.

    Args:
        answer: From images (B, 3, H, W) to float32 (B, C).
        images: Normalized (B, 3, H, W).
        ways: Any but "flip_shift_unsure", which needs the answers to all images first.
    """
    height, width = images.shape[2:]
    means: dict[TestTimeAugmentation, Tensor] = {}
    for mirrored, shift in _VIEWS["flip_shift"]:
        weights = {way: _VIEWS[way].get((mirrored, shift)) for way in ways}
        if not any(weights.values()):
            continue
        view = images
        if shift:
            view = F.pad(view, (1, 1, 1, 1), mode="reflect")
            view = view[:, :, 1 + shift : 1 + shift + height, 1 + shift : 1 + shift + width]
        view = view.flip(3) if mirrored else view
        found = answer(view)
        for way, weight in weights.items():
            if weight:
                means[way] = means.get(way, 0.0) + weight * found
    return means
