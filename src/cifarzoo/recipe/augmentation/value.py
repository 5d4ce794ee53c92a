"""Random changes to training images, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from cifarzoo.errors import ArgumentError
from cifarzoo.frozen import FrozenList, thaw
from cifarzoo.recipe.augmentation.registry import BatchAugmentation, build_augmentation
from cifarzoo.recipe.fields import freeze_plain, take_number

__all__ = ["Augmentation", "Flip"]

Flip = Literal["none", "random", "alternating"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Names random changes to training images, drawn anew for each image in each epoch.

    Args:
        flip: Whether to exchange left and right: "none", "random" (with probability one half) or
            "alternating" (each image in every other epoch; Jordan 2024, arXiv:2404.00498, section
            3.6).
        crop_padding: Pixels that are added on each side by reflection, before a random crop of the
            original size; 0 leaves the image in place.
        cutout: Side in pixels of a square that is set to the mean of the normalization; 0 for none
            (DeVries & Taylor 2017, arXiv:1708.04552).
        contrast: Strength of random changes of contrast, in [0, 1). The normalized pixels of each
            image are multiplied by a number from [1 - contrast, 1 + contrast]. Contrast and
            brightness follow the speed run github.com/hiverge/cifar10-speedrun (2025).
        brightness: Strength of random changes of brightness. A number from
            [-brightness, brightness] is added to all pixels of an image; its unit is the standard
            deviation of the normalization.
        policies: Augmentations of ``list_augmentations()``. They are applied one after the other to
            the uint8 images, after crop and flip. Each is a name, or a mapping with "name" and
            options, as in ``["trivial_augment", {"name": "random_erasing", "probability": 0.1}]``.
    """

    flip: Flip = "none"
    crop_padding: int = 0
    cutout: int = 0
    contrast: float = 0.0
    brightness: float = 0.0
    policies: Sequence[str | Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.flip not in get_args(Flip):
            raise ArgumentError(f"flip must be one of {get_args(Flip)}; got {self.flip!r}")
        take_number(self, "crop_padding", 0, 31, whole=True)
        take_number(self, "cutout", 0, 32, whole=True)
        take_number(self, "contrast", 0, 1, below=True)
        take_number(self, "brightness", 0, 10)
        object.__setattr__(self, "policies", _check_policies(self.policies))
        self.build_policies()  # refuses options before any work is done

    def changes(self) -> dict[str, Any]:
        """The fields that are not off, as plain data."""
        plain = Augmentation()
        return {k: thaw(v) for k, v in vars(self).items() if v != getattr(plain, k)}

    def build_policies(self) -> list[BatchAugmentation]:
        """Build the augmentations that ``policies`` names."""
        return [
            build_augmentation(policy)
            if isinstance(policy, str)
            else build_augmentation(**thaw(policy))
            for policy in self.policies
        ]


def _check_policies(given: Any) -> FrozenList:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise ArgumentError(
            f"augmentation.policies must be a list; got {given!r}: write [{given!r}]"
        )
    for policy in given:
        name = policy.get("name") if isinstance(policy, Mapping) else policy
        if not isinstance(name, str):
            raise ArgumentError(
                "an augmentation in policies is its name, or a mapping with its name and options, "
                f'as in {{"name": "rand_augment", "num_ops": 1}}; got {policy!r}'
            )
    return FrozenList(freeze_plain(policy, "augmentation.policies") for policy in given)
