"""What augmentations draw: an operation and its magnitude for each image, or a rectangle.

Each function here makes all draws for a batch. They depend on the generator, the number of images
and their size alone, and lie on the generator's device. `operations` carries them out, and
`policies` gives names to the whole.

The draws of each image have the distribution of torchvision's transform of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cifarzoo.recipe.augmentation.operations import OPERATIONS

__all__ = [
    "Draws",
    "draw_auto_augment",
    "draw_color_jitter",
    "draw_erasing",
    "draw_rand_augment",
    "draw_trivial_augment",
]

Draws = tuple[Tensor, Tensor]
"""Operations, int64, and magnitudes, float32, as `apply_operations` takes them."""

_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}
_FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")
_SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", *_FACTORS)
_CHOICES = _NUMBERS["Invert"]  # TrivialAugment and RandAugment choose among those before it

# AutoAugment's policy for CIFAR-10: each line is two operations, each with its probability and its
# magnitude, 0..9
_CIFAR10_POLICY = """
Invert       0.1 0  Contrast     0.2 6
Rotate       0.7 2  TranslateX   0.3 9
Sharpness    0.8 1  Sharpness    0.9 3
ShearY       0.5 8  TranslateY   0.7 9
AutoContrast 0.5 0  Equalize     0.9 0
ShearY       0.2 7  Posterize    0.3 7
Color        0.4 3  Brightness   0.6 7
Sharpness    0.3 9  Brightness   0.7 9
Equalize     0.6 0  Equalize     0.5 0
Contrast     0.6 7  Sharpness    0.6 5
Color        0.7 7  TranslateX   0.5 8
Equalize     0.3 0  AutoContrast 0.4 0
TranslateY   0.4 3  Sharpness    0.2 6
Brightness   0.9 6  Color        0.2 8
Solarize     0.5 2  Invert       0.0 0
Equalize     0.2 0  AutoContrast 0.6 0
Equalize     0.2 0  Equalize     0.6 0
Color        0.9 9  Equalize     0.6 0
AutoContrast 0.8 0  Solarize     0.2 8
Brightness   0.1 3  Color        0.7 0
Solarize     0.4 5  AutoContrast 0.9 0
TranslateY   0.9 9  TranslateY   0.7 9
AutoContrast 0.9 0  Solarize     0.8 3
Equalize     0.8 0  Invert       0.1 0
TranslateY   0.7 9  AutoContrast 0.9 0
"""


def draw_trivial_augment(
    count: int, generator: torch.Generator, *, num_magnitude_bins: int = 31
) -> Draws:
    """Draw one operation and its magnitude for each image.

    Args:
        count: Number of images, B.
        generator: Source of the draws.
        num_magnitude_bins: Number of strengths.

    Returns:
        Operations, int64 (B,), and magnitudes, float32 (B,), on the generator's device.

    Example:
        >>> operations, magnitudes = draw_trivial_augment(128, torch.Generator().manual_seed(0))
        >>> operations.shape, magnitudes.shape
        (torch.Size([128]), torch.Size([128]))
    """
    bins = num_magnitude_bins
    operations, chosen = (_integers(limit, (count,), generator) for limit in (_CHOICES, bins))
    table = _magnitude_table(
        bins, shear=0.99, shift=(32.0, 32.0), degrees=135.0, factor=0.99, dropped_bits=6
    )
    return operations, _signed(operations, chosen, table, generator)


def draw_rand_augment(
    count: int,
    generator: torch.Generator,
    *,
    size: tuple[int, int] = (32, 32),
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
) -> Draws:
    """Draw ``num_ops`` operations and their signs for each image.

    Args:
        count: Number of images, B.
        generator: Source of the draws.
        size: Height and width in pixels.
        num_ops: Operations on each image.
        magnitude: Strength of all of them, below ``num_magnitude_bins``.
        num_magnitude_bins: Number of strengths.

    Returns:
        Operations, int64 (num_ops, B), and magnitudes, float32 (num_ops, B).
    """
    operations = _integers(_CHOICES, (num_ops, count), generator)
    chosen = torch.full_like(operations, magnitude)
    return operations, _signed(
        operations, chosen, _narrow_table(num_magnitude_bins, size), generator
    )


def draw_auto_augment(
    count: int, generator: torch.Generator, *, size: tuple[int, int] = (32, 32)
) -> Draws:
    """Draw a line of AutoAugment's policy for each image, and which of its operations to apply.

    Args:
        count: Number of images, B.
        generator: Source of the draws.
        size: Height and width in pixels.

    Returns:
        Operations, int64 (2, B), "Identity" where one is not applied, and magnitudes, float32
        (2, B).
    """
    policy = [line.split() for line in _CIFAR10_POLICY.strip().splitlines()]
    line = _integers(len(policy), (count,), generator)

    def look_up(first: int, read: Callable[[str], float]) -> Tensor:
        """Column ``first`` of both operations (2, B)."""
        columns = [[read(words[first + offset]) for words in policy] for offset in (0, 3)]
        return torch.tensor(columns, device=generator.device)[:, line]

    operations = look_up(0, _NUMBERS.__getitem__)
    is_applied = _uniform((2, count), generator) < look_up(1, float)
    magnitudes = _signed(operations, look_up(2, int), _narrow_table(10, size), generator)
    return operations * is_applied, magnitudes * is_applied  # Identity is 0


def draw_color_jitter(
    count: int,
    generator: torch.Generator,
    *,
    brightness: tuple[float, float] = (1.0, 1.0),
    contrast: tuple[float, float] = (1.0, 1.0),
    saturation: tuple[float, float] = (1.0, 1.0),
    hue: tuple[float, float] = (0.0, 0.0),
) -> Draws:
    """Draw factors of brightness, contrast and saturation, a turn of the hue, and their order.

    Args:
        count: Number of images, B.
        generator: Source of the draws.
        brightness: Range of the factor.
        contrast: Range of the factor.
        saturation: Range of the factor.
        hue: Range of the turn, -0.5..0.5.

    Returns:
        Operations, int64 (4, B), in the order in which each image gets them, and magnitudes,
        float32 (4, B). A range that holds only what changes nothing becomes "Identity".
    """
    device = generator.device
    neutral = (1.0, 1.0, 1.0, 0.0)
    ranges = (brightness, contrast, saturation, hue)
    names = [
        name if limits != (value, value) else "Identity"
        for name, limits, value in zip(
            ("Brightness", "Contrast", "Color", "Hue"), ranges, neutral, strict=True
        )
    ]
    low, high = torch.tensor(ranges, device=device).T[..., None]
    drawn = low + (high - low) * _uniform((4, count), generator)
    magnitudes = drawn - torch.tensor(neutral, device=device)[:, None]
    order = _uniform((4, count), generator).argsort(0)
    operations = torch.tensor([_NUMBERS[name] for name in names], device=device)
    return operations[order], magnitudes.gather(0, order)


def draw_erasing(
    count: int,
    generator: torch.Generator,
    *,
    size: tuple[int, int] = (32, 32),
    probability: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a rectangle inside each image.

    A rectangle that is not smaller than the image, in both directions, is drawn again, up to ten
    times in all.

    Args:
        count: Number of images, B.
        generator: Source of the draws.
        size: Height and width of the images in pixels.
        probability: Share of images that get one.
        scale: Range of its area, as a fraction of the image's.
        ratio: Range of its height divided by its width, whose logarithm is drawn evenly.

    Returns:
        Its top, left, height and width, int64 (B,) each; the height is 0 where there is none.
    """
    area = size[0] * size[1] * _between(*scale, (10, count), generator)
    shape = _between(math.log(ratio[0]), math.log(ratio[1]), (10, count), generator).exp()
    heights, widths = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (heights < size[0]) & (widths < size[1])
    first = fits.to(torch.uint8).argmax(0, keepdim=True)
    is_erased = fits.any(0) & (_uniform((count,), generator) < probability)
    height = heights.gather(0, first)[0] * is_erased
    width = widths.gather(0, first)[0] * is_erased
    top = (_uniform((count,), generator) * (size[0] - height + 1)).floor()
    left = (_uniform((count,), generator) * (size[1] - width + 1)).floor()
    return top.long(), left.long(), height.long(), width.long()


def _magnitude_table(
    bins: int,
    *,
    shear: float,
    shift: tuple[float, float],
    degrees: float,
    factor: float,
    dropped_bits: int,
) -> Tensor:
    """Magnitudes (number of operations, bins) of rising strength, without signs."""
    largest = {"ShearX": shear, "ShearY": shear, "Rotate": degrees}
    largest |= {"TranslateX": shift[1], "TranslateY": shift[0]}
    largest |= dict.fromkeys(_FACTORS, factor)
    rows = {name: torch.linspace(0.0, high, bins) for name, high in largest.items()}
    rows["Posterize"] = (8 - torch.arange(bins) / ((bins - 1) / dropped_bits)).round()
    rows["Solarize"] = torch.linspace(1.0, 0.0, bins)
    return torch.stack([rows.get(name, torch.zeros(bins)) for name in OPERATIONS])


def _narrow_table(bins: int, size: tuple[int, int]) -> Tensor:
    """The magnitudes of AutoAugment and RandAugment."""
    height, width = size
    shift = (150.0 / 331.0 * height, 150.0 / 331.0 * width)
    return _magnitude_table(bins, shear=0.3, shift=shift, degrees=30.0, factor=0.9, dropped_bits=4)


def _signed(operations: Tensor, bins: Tensor, table: Tensor, generator: torch.Generator) -> Tensor:
    """Look up magnitudes, and turn half of those that have a sign."""
    magnitudes = table.to(operations.device)[operations, bins]
    has_sign = torch.tensor([name in _SIGNED for name in OPERATIONS], device=operations.device)
    turned = has_sign[operations] & (_uniform(operations.shape, generator) < 0.5)
    return torch.where(turned, -magnitudes, magnitudes)


def _integers(limit: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Int64, evenly from 0 to below ``limit``."""
    return torch.randint(limit, shape, generator=generator, device=generator.device)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Float32 in [0, 1)."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * _uniform(shape, generator)
