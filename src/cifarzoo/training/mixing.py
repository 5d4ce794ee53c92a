"""Mixed images and targets: mixup and CutMix, through torchvision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cifarzoo.recipe import Recipe

__all__ = ["Mixer", "build_mixer"]

Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(images (B, 3, H, W), labels (B,)) -> (mixed images, class probabilities (B, classes))``."""


def build_mixer(recipe: Recipe, num_classes: int) -> Mixer | None:
    """What ``recipe`` wants done to each batch; None for nothing.

    Draws come from torch's global generator, which the Trainer seeds and saves.
    """
    if not recipe.mixup_alpha and not recipe.cutmix_alpha:
        return None
    from torchvision.transforms import v2

    kinds: list[Mixer] = []
    if recipe.mixup_alpha:
        kinds.append(v2.MixUp(alpha=float(recipe.mixup_alpha), num_classes=num_classes))
    if recipe.cutmix_alpha:
        kinds.append(v2.CutMix(alpha=float(recipe.cutmix_alpha), num_classes=num_classes))

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        kind = kinds[int(torch.randint(len(kinds), ()))] if len(kinds) > 1 else kinds[0]
        # torchvision mixes neighbours, and the Loader puts mirrored images beside each other
        order = torch.randperm(len(images))
        back = order.argsort().to(images.device)
        order = order.to(images.device)
        mixed, targets = kind(images[order], labels[order])
        return mixed[back], targets[back]

    return mix
