"""Random changes to training images: as a value, by name, and any function of uint8 batches."""

from cifarzoo.recipe.augmentation import policies as policies  # registers them
from cifarzoo.recipe.augmentation.registry import (
    BatchAugmentation,
    adapt_transform,
    build_augmentation,
    check_augmentation,
    list_augmentations,
    register_augmentation,
)
from cifarzoo.recipe.augmentation.value import Augmentation, Flip

__all__ = [
    "Augmentation",
    "BatchAugmentation",
    "Flip",
    "adapt_transform",
    "build_augmentation",
    "check_augmentation",
    "list_augmentations",
    "register_augmentation",
]
