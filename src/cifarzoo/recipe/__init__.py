"""How a network is trained, as a value: recipe, augmentation, optimizer, schedule."""

from cifarzoo.recipe.augmentation import Augmentation, Flip
from cifarzoo.recipe.recipe import Recipe

__all__ = ["Augmentation", "Flip", "Recipe"]
