"""Operations on uint8 images, many images at once, as pure functions of what was drawn.

An augmentation draws an operation and a magnitude for each image; `apply_operations` carries them
out. Nothing here draws random numbers, see `cifarzoo.recipe.augmentation.draws` for that.

Each image gets what torchvision's ``transforms.v2.functional`` gives that image alone, with nearest
interpolation. The operations are those of AutoAugment (Cubuk et al. 2018, arXiv:1805.09501, list in
the appendix), without its SamplePairing and Cutout, plus "Identity" and "Hue":

===============  ===================================================================================
operation        magnitude
===============  ===================================================================================
Identity         none
ShearX, ShearY   pixels of shift for each pixel of distance from the top or left edge; either sign
TranslateX       pixels to the right, its whole part
TranslateY       pixels down, its whole part
Rotate           degrees counterclockwise, about the centre
Brightness       factor - 1; at factor 0 the image is black
Color            factor - 1; at factor 0 the image is grey (ITU-R 601 luma)
Contrast         factor - 1; at factor 0 every pixel has the image's mean luma
Sharpness        factor - 1; at factor 0 the image is smoothed by a 3x3 filter
Posterize        bits that are kept in each value, its whole part, 0..8
Solarize         threshold / 255; values at or above the threshold are inverted
AutoContrast     none; the smallest value of each channel becomes 0, the largest 255
Equalize         none; the histogram of each channel becomes as flat as possible
Invert           none
Hue              turn of the colour circle, -0.5..0.5
===============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.errors import ArgumentError, InputError

__all__ = [
    "OPERATIONS",
    "apply_in_turn",
    "apply_operations",
    "check_colour",
    "check_images",
    "erase",
]

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Invert",
    "Hue",
)
"""Names of the operations; an operation's number is its place here."""


def apply_operations(
    images: Tensor, operations: Tensor, magnitudes: Tensor, *, fill: int | Sequence[int] = 0
) -> Tensor:
    """Apply to each image its own operation.

    Images with the same operation are handled together; there is no loop over images.

    Args:
        images: uint8 (B, 3, H, W), on any device, in any memory format.
        operations: int64 (B,), places in `OPERATIONS`. They are read on the CPU, so they are best
            drawn there: a GPU then need not be waited for.
        magnitudes: Floating point (B,), in the units of the operations; on the CPU as well.
        fill: Value in 0..255 of the pixels that come from outside the image, or one value for each
            channel.

    Returns:
        uint8 (B, 3, H, W), a new tensor in the memory format of ``images``.

    Raises:
        InputError: A tensor has another shape or dtype, or no operation has such a number.
        ArgumentError: ``fill`` is no colour.

    Example:
        >>> images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        >>> which = torch.tensor([OPERATIONS.index("Brightness"), OPERATIONS.index("Invert")])
        >>> apply_operations(images, which, torch.tensor([0.5, 0.0]))[:, 0, 0, 0]
        tensor([150, 155], dtype=torch.uint8)
    """
    check_images(images)
    check_colour("fill", fill)
    operations, magnitudes = operations.cpu(), magnitudes.cpu()
    _check_draws(len(images), operations, magnitudes)
    order = operations.argsort(stable=True)
    counts = operations.bincount(minlength=len(OPERATIONS)).tolist()
    # channel after channel is the faster layout for nearly all operations
    parts = _take(images.contiguous(), order).split_with_sizes(counts)
    strengths = _take(magnitudes.double(), order).split_with_sizes(counts)
    changed = [
        _change(name, part, strength, fill) if len(part) else part
        for name, part, strength in zip(OPERATIONS, parts, strengths, strict=True)
    ]
    return _laid_out_as(images, _take(torch.cat(changed), order.argsort()))


def apply_in_turn(
    images: Tensor, operations: Tensor, magnitudes: Tensor, *, fill: int | Sequence[int] = 0
) -> Tensor:
    """Apply several operations to each image, one after the other.

    Args:
        images: uint8 (B, 3, H, W).
        operations: int64 (K, B): the first of each image, the second, and so on.
        magnitudes: Floating point (K, B).
        fill: As for `apply_operations`.

    Returns:
        uint8 (B, 3, H, W).
    """
    check_images(images)
    changed = images.contiguous()
    for turn, strengths in zip(operations, magnitudes, strict=True):
        changed = apply_operations(changed, turn, strengths, fill=fill)
    return _laid_out_as(images, changed)


def erase(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    *,
    value: Tensor,
) -> Tensor:
    """Replace a rectangle in each image (Zhong et al. 2017, arXiv:1708.04896).

    Args:
        images: uint8 (B, 3, H, W).
        top: int64 (B,), first row of each rectangle.
        left: int64 (B,), first column.
        height: int64 (B,), in pixels; 0 leaves the image as it is.
        width: int64 (B,), in pixels.
        value: uint8, broadcastable to ``images``: what the rectangles are filled with.

    Returns:
        uint8 (B, 3, H, W), a new tensor.

    Example:
        >>> images, one = torch.ones(1, 3, 2, 4, dtype=torch.uint8), torch.tensor([1])
        >>> erase(images, one, one, one, one * 2, value=torch.tensor(9, dtype=torch.uint8))[0, 0]
        tensor([[1, 1, 1, 1],
                [1, 9, 9, 1]], dtype=torch.uint8)
    """
    check_images(images)
    top, left, height, width = (
        each.to(images.device)[:, None] for each in (top, left, height, width)
    )
    row, column = (torch.arange(size, device=images.device) for size in images.shape[2:])
    row_inside = (row >= top) & (row < top + height)
    column_inside = (column >= left) & (column < left + width)
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return torch.where(inside, value.to(images.device), images)


def check_images(images: Tensor) -> None:
    """Raise InputError unless ``images`` is a batch of uint8 colour images."""
    if not isinstance(images, Tensor):
        raise InputError(f"images must be a uint8 tensor (B, 3, H, W); got {type(images).__name__}")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"images must be uint8 (B, 3, H, W); got {images.dtype} {tuple(images.shape)}: "
            "augment before the images are normalized"
        )


def check_colour(name: str, value: Any) -> None:
    """Raise ArgumentError unless ``value`` is a level in 0..255, or three of them."""
    levels = list(value) if isinstance(value, Sequence) else [value] * 3
    whole = all(isinstance(level, int) and not isinstance(level, bool) for level in levels)
    if not whole or len(levels) != 3 or not all(0 <= level <= 255 for level in levels):
        raise ArgumentError(
            f"{name} must be a whole number in 0..255, or three of them; got {value!r}"
        )


def _check_draws(count: int, operations: Tensor, magnitudes: Tensor) -> None:
    if operations.shape != (count,) or magnitudes.shape != (count,):
        raise InputError(
            f"{count} images need {count} operations and magnitudes; "
            f"got {tuple(operations.shape)} and {tuple(magnitudes.shape)}"
        )
    if operations.dtype != torch.int64 or not magnitudes.is_floating_point():
        raise InputError(
            "operations must be int64 and magnitudes floating point; "
            f"got {operations.dtype} and {magnitudes.dtype}"
        )
    if count and not 0 <= int(operations.min()) <= int(operations.max()) < len(OPERATIONS):
        raise InputError(
            f"operations are numbers in 0..{len(OPERATIONS) - 1}, places in OPERATIONS; "
            f"got {int(operations.min())}..{int(operations.max())}"
        )


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.index_select(0, index.to(values.device))


def _laid_out_as(images: Tensor, changed: Tensor) -> Tensor:
    if images.is_contiguous():
        return changed
    return torch.empty_like(images).copy_(changed)


def _change(name: str, images: Tensor, magnitudes: Tensor, fill: int | Sequence[int]) -> Tensor:
    """One operation on all ``images``; ``magnitudes`` is float64 (B,) on the CPU."""
    if name in _MOVING:
        return _move(images, _source_matrices(name, magnitudes, *images.shape[2:]), fill)
    return _CHANGES[name](images, magnitudes)


# --- operations that move pixels -----------------------------------------------------------------

_MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def _source_matrices(name: str, magnitudes: Tensor, height: int, width: int) -> Tensor:
    """Float64 (B, 2, 3): from a pixel's place, x and y from the centre, to where it comes from."""
    matrices = torch.eye(2, 3, dtype=torch.float64).repeat(len(magnitudes), 1, 1)
    if name == "ShearX":  # the top edge stays in place
        matrices[:, 0, 1] = magnitudes
        matrices[:, 0, 2] = magnitudes * height / 2
    elif name == "ShearY":  # the left edge
        matrices[:, 1, 0] = magnitudes
        matrices[:, 1, 2] = magnitudes * width / 2
    elif name == "TranslateX":
        matrices[:, 0, 2] = -magnitudes.trunc()
    elif name == "TranslateY":
        matrices[:, 1, 2] = -magnitudes.trunc()
    else:
        angle = magnitudes.deg2rad()
        matrices[:, 0, 0] = matrices[:, 1, 1] = angle.cos()
        matrices[:, 0, 1], matrices[:, 1, 0] = -angle.sin(), angle.sin()
    return matrices


def _move(images: Tensor, matrices: Tensor, fill: int | Sequence[int]) -> Tensor:
    """Take each pixel from the nearest place that ``matrices`` name."""
    height, width = images.shape[2:]
    half = torch.tensor([width / 2, height / 2])
    # rounded in the order torchvision rounds, so that a place right between two pixels takes the
    # same one; no matrix product, which may be of low precision on a GPU or under autocast
    matrices = (matrices.float() / half[:, None]).to(images.device)
    by_x, by_y, constant = matrices[..., None, None].unbind(2)  # each (B, 2, 1, 1)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    places = x * by_x + y[:, None] * by_y + constant
    # what lies outside counts as 0
    outside = torch.tensor(fill, dtype=torch.float32).view(-1, 1, 1).to(images.device)
    moved = F.grid_sample(
        images.float() - outside, places.permute(0, 2, 3, 1), mode="nearest", align_corners=False
    )
    return (moved + outside).to(torch.uint8)


# --- operations that change values ---------------------------------------------------------------


def _brightness(images: Tensor, magnitudes: Tensor) -> Tensor:
    return _to_bytes(images * _factor(images, 1 + magnitudes))


def _color(images: Tensor, magnitudes: Tensor) -> Tensor:
    return _blend(images, _luma(images), magnitudes)


def _contrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    return _blend(images, _luma(images).mean((1, 2, 3), keepdim=True), magnitudes)


def _sharpness(images: Tensor, magnitudes: Tensor) -> Tensor:
    if min(images.shape[2:]) <= 2:
        return images
    whole = images.short()
    rows = whole[..., :-2, :] + whole[..., 1:-1, :] + whole[..., 2:, :]
    square = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    sharp = images.float()
    inner = sharp[..., 1:-1, 1:-1]  # the filter leaves the border as it is
    smooth = ((square + inner * 4) / 13).round_()  # the middle weighs 5, its neighbours 1
    inner += _factor(images, -magnitudes) * (smooth - inner)
    return _to_bytes(sharp)


def _posterize(images: Tensor, magnitudes: Tensor) -> Tensor:
    dropped = 8 - magnitudes.long().clamp(0, 8)
    mask = (255 >> dropped) << dropped
    return images & mask.to(torch.uint8).to(images.device).view(-1, 1, 1, 1)


def _solarize(images: Tensor, magnitudes: Tensor) -> Tensor:
    threshold = (255 * magnitudes).float().ceil().clamp(0, 255).to(torch.uint8)
    return torch.where(images >= threshold.to(images.device).view(-1, 1, 1, 1), ~images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = (high - low).float()
    stretched = (images - low.float()) / (spread * (1 / 255)).clamp(min=1 / 255)
    return torch.where(spread > 0, _to_bytes(stretched), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """As Pillow's ``ImageOps.equalize``."""
    values = images.flatten(2).long()
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    up_to = histogram.cumsum(2)
    brightest = values.amax(2, keepdim=True)
    step = (values.shape[2] - histogram.gather(2, brightest)) // 255
    below = F.pad(up_to[..., :-1], (1, 0))
    table = (below + step // 2) // step.clamp(min=1)
    # a step of 0: nearly all pixels have the largest value, there is nothing to spread
    table = torch.where(step > 0, table.clamp_(max=255), torch.arange(256, device=images.device))
    return table.to(torch.uint8).gather(2, values).view(images.shape)


def _hue(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Turn the hue in the cone of hue, saturation and value; the other two stay."""
    pixels = images.float()
    red, green, blue = pixels.chunk(3, dim=1)
    high, low = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    spread = high - low
    # hue in sixths of the circle: red at 0, green at 2, blue at 4
    hue = torch.where(
        high == red,
        green - blue,
        torch.where(high == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (hue / spread.clamp(min=1) + _factor(images, 6 * magnitudes)).remainder_(6)
    # a channel is full for two sixths on either side of its own hue, but for a ramp of one
    share = torch.cat(((hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()), 1)
    turned = low + spread * share.clamp_(0, 1)
    return _to_bytes(turned * (255.999 / 255))  # torchvision's way from 0..1 to 0..255


_CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Identity": lambda images, _: images,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda images, _: ~images,
    "Hue": _hue,
}


def _factor(images: Tensor, values: Tensor) -> Tensor:
    """One float32 value for each image, ready to be multiplied: (B, 1, 1, 1)."""
    return values.to(torch.float32).to(images.device).view(-1, 1, 1, 1)


def _luma(images: Tensor) -> Tensor:
    """Whole grey levels, float32 (B, 1, H, W)."""
    red, green, blue = images.chunk(3, dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blend(images: Tensor, plain: Tensor, magnitudes: Tensor) -> Tensor:
    """From ``plain``, at magnitude -1, through ``images``, at 0, and beyond."""
    factor, rest = _factor(images, 1 + magnitudes), _factor(images, -magnitudes)
    return _to_bytes(images * factor + plain * rest)


def _to_bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)
