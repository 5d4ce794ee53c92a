"""Augmentations by name: which operations on which images, how strong, drawn how.

An augmentation is a function ``(images, generator) -> images`` on uint8 batches (B, 3, H, W). It
changes each image in its own way, on the device of the images, and draws from the generator alone.
Those here follow torchvision's transforms of the same names, in each operation and in what they
draw, but each image of a batch has its own draws; torchvision draws once for all of them.

Each is two steps that can be used apart: ``draws`` makes the draws for a batch, and
``operations`` carries them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten
from cifarzoo.recipe.augmentation.draws import (
    draw_auto_augment,
    draw_color_jitter,
    draw_erasing,
    draw_rand_augment,
    draw_trivial_augment,
)
from cifarzoo.recipe.augmentation.operations import (
    apply_in_turn,
    apply_operations,
    check_colour,
    erase,
)
from cifarzoo.recipe.augmentation.registry import BatchAugmentation, register_augmentation

__all__ = ["auto_augment", "color_jitter", "rand_augment", "random_erasing", "trivial_augment"]


_MOST_BINS, _MOST_OPERATIONS = 10_000, 100


@register_augmentation("trivial_augment")
def trivial_augment(
    *, num_magnitude_bins: int = 31, fill: int | Sequence[int] = 0
) -> BatchAugmentation:
    """Apply one operation of any strength to each image (Mueller & Hutter 2021, arXiv:2103.10158).

    It equals torchvision's ``v2.TrivialAugmentWide``, except for rounding. The ranges are those of
    the paper's "TA (Wide)".

    Args:
        num_magnitude_bins: Number of strengths.
        fill: Value in 0..255 of pixels that come from outside the image, or one for each channel.
    """
    _check_whole("num_magnitude_bins", num_magnitude_bins, 2, _MOST_BINS)
    check_colour("fill", fill)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        draws = draw_trivial_augment(len(images), generator, num_magnitude_bins=num_magnitude_bins)
        return apply_operations(images, *draws, fill=fill)

    return augment


@register_augmentation("rand_augment")
def rand_augment(
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
    fill: int | Sequence[int] = 0,
) -> BatchAugmentation:
    """Apply some operations of one strength to each image (Cubuk et al. 2019, arXiv:1909.13719).

    Source: section 3 of the paper. It equals torchvision's ``v2.RandAugment``, except for rounding.

    Args:
        num_ops: Number of operations on each image, one after the other.
        magnitude: Strength of all of them, below ``num_magnitude_bins``.
        num_magnitude_bins: Number of strengths.
        fill: Value in 0..255 of pixels that come from outside the image, or one for each channel.
    """
    _check_whole("num_ops", num_ops, 0, _MOST_OPERATIONS)
    _check_whole("num_magnitude_bins", num_magnitude_bins, 2, _MOST_BINS)
    _check_whole("magnitude", magnitude, 0, num_magnitude_bins - 1)
    check_colour("fill", fill)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        draws = draw_rand_augment(
            len(images),
            generator,
            size=_size(images),
            num_ops=num_ops,
            magnitude=magnitude,
            num_magnitude_bins=num_magnitude_bins,
        )
        return apply_in_turn(images, *draws, fill=fill)

    return augment


@register_augmentation("auto_augment")
def auto_augment(*, fill: int | Sequence[int] = 0) -> BatchAugmentation:
    """Apply what a search found for CIFAR-10 (Cubuk et al. 2018, arXiv:1805.09501, appendix).

    Each image gets one of 25 pairs of operations, and each operation is applied with its own
    probability. It equals torchvision's ``v2.AutoAugment(AutoAugmentPolicy.CIFAR10)``, which has
    the magnitudes for ImageNet: images move by up to 150/331 of their side, and Posterize keeps 8
    to 4 bits. In the authors' code for CIFAR-10, images move by up to 10 pixels, and Posterize
    keeps 4 bits to none. The authors also cut out a square of 16 pixels.

    Args:
        fill: Value in 0..255 of pixels that come from outside the image, or one for each channel.
    """
    check_colour("fill", fill)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        draws = draw_auto_augment(len(images), generator, size=_size(images))
        return apply_in_turn(images, *draws, fill=fill)

    return augment


@register_augmentation("color_jitter")
def color_jitter(
    *,
    brightness: float | Sequence[float] = 0.0,
    contrast: float | Sequence[float] = 0.0,
    saturation: float | Sequence[float] = 0.0,
    hue: float | Sequence[float] = 0.0,
) -> BatchAugmentation:
    """Change brightness, contrast, saturation and hue at random, in random order.

    It equals torchvision's ``v2.ColorJitter``; 0 leaves a property as it is.

    Args:
        brightness: A number x, and the factor is drawn from [max(0, 1 - x), 1 + x]; or the range
            itself.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: A number x up to 0.5, and the turn of the colour circle is drawn from [-x, x]; or the
            range itself.
    """
    ranges = {
        "brightness": _range("brightness", brightness, centre=1.0, low=0.0),
        "contrast": _range("contrast", contrast, centre=1.0, low=0.0),
        "saturation": _range("saturation", saturation, centre=1.0, low=0.0),
        "hue": _range("hue", hue, centre=0.0, low=-0.5, high=0.5),
    }

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        return apply_in_turn(images, *draw_color_jitter(len(images), generator, **ranges))

    return augment


@register_augmentation("random_erasing")
def random_erasing(
    *,
    probability: float = 0.5,
    scale: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
    value: int | Sequence[int] | str = 0,
) -> BatchAugmentation:
    """Replace a rectangle in each image (Zhong et al. 2017, arXiv:1708.04896, section 3.2).

    It equals torchvision's ``v2.RandomErasing``, whose largest rectangle is a third of the image;
    the paper's is 0.4 of it. "random" is the noise of the paper, in which all levels are equally
    probable. torchvision's noise has a normal distribution and is made for normalized images.

    Args:
        probability: Probability with which an image gets a rectangle.
        scale: Range of the rectangle's area, as a fraction of the image's.
        ratio: Range of the rectangle's height divided by its width.
        value: Level in 0..255, three of them, or "random", which draws each value of each pixel.
    """
    if not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise ArgumentError(f"probability must be a number in [0, 1]; got {probability!r}")
    limits = {
        "scale": _range("scale", scale, low=0.0, high=1.0),
        "ratio": _range("ratio", ratio, low=1e-3),
    }
    if value != "random":
        check_colour('value, unless "random",', value)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        rectangles = draw_erasing(
            len(images), generator, size=_size(images), probability=probability, **limits
        )
        colour = (
            torch.randint(
                256, images.shape, dtype=torch.uint8, generator=generator, device=generator.device
            )
            if value == "random"
            else torch.tensor(value, dtype=torch.uint8).view(-1, 1, 1)
        )
        return erase(images, *rectangles, value=colour)

    return augment


def _size(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[2:]
    return height, width


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ArgumentError(f"{name} must be a whole number in {low}..{high}; got {shorten(value)}")


def _range(
    name: str, value: Any, *, low: float, high: float = math.inf, centre: float | None = None
) -> tuple[float, float]:
    """The range that ``value`` states: a pair, or a distance from ``centre`` where there is one."""
    pair = value
    try:
        if centre is not None and isinstance(value, int | float):
            pair = max(centre - value, low), centre + value
        first, last = (float(end) for end in pair)
        valid = low <= first <= last <= high and last < math.inf
    except (OverflowError, TypeError, ValueError):
        valid = False
    if not valid:
        number = "" if centre is None else "a number or "
        limits = f"of at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ArgumentError(f"{name} must be {number}a rising pair {limits}; got {shorten(value)}")
    return first, last
