"""Eight bits from more, and one colour from a transparent one."""

from __future__ import annotations

import torch
from torch import Tensor

from cifarzoo.errors import InputError

__all__ = ["SIXTEEN_BITS", "TWELVE_BITS", "on_white", "reduce_depth"]

SIXTEEN_BITS = "scaled from 16 bits to 8"
TWELVE_BITS = 4095  # white, as some cameras write it into 16 bits; as it stands, nearly black


def reduce_depth(values: Tensor, bits: int | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Bring the values of an image to 8 bits, where black and white are known.

    Args:
        values: uint8 in 0..255, uint16 in 0..65535, float in 0..1, or bool; of any shape.
        bits: 16 for values in 0..65535 that lie in another whole dtype.

    Returns:
        uint8 in 0..255 of the same shape, and what was done, in words.

    Raises:
        InputError: The values are others; nothing is clipped.

    Example:
        >>> reduce_depth(torch.tensor([0.0, 0.5, 1.0]))[0].tolist()
        [0, 128, 255]
    """
    if values.dtype == torch.uint8:
        return values, ()
    if values.dtype == torch.bool:
        return values.to(torch.uint8) * 255, ()
    if bits == 16 or values.dtype == torch.uint16:
        values = values.to(torch.int32)
        _check_brightness(int(values.max()) if values.numel() else 0)
        return ((values + 128) // 257).to(torch.uint8), (SIXTEEN_BITS,)
    # written so that NaN fails too
    if values.is_floating_point() and bool(((values >= 0) & (values <= 1)).all()):
        return (values * 255).round().to(torch.uint8), ()
    advice = (
        "divide values in 0..255 by 255"
        if values.is_floating_point()
        else "convert values in 0..255 to uint8"
    )
    raise InputError(
        "an image must be uint8 in 0..255, uint16 in 0..65535 or float in 0..1, not normalized; "
        f"got {values.dtype}{_range(values)}: {advice}"
    )


def _check_brightness(high: int) -> None:
    """Raise InputError where the largest of 16-bit values tells that they are meant for fewer."""
    if 0 < high <= 255:
        raise InputError(
            f"the largest value of this 16-bit image is {high} of 65535, so it is black: "
            "convert it to uint8 if its values are meant for 8 bits, else brighten it"
        )
    if 0 < high <= TWELVE_BITS:
        raise InputError(
            f"the largest value of this 16-bit image is {high} of 65535, so it is nearly black: "
            "multiply values of 12 bits by 16, those of 10 bits by 64, or brighten it"
        )


def _range(values: Tensor) -> str:
    """Where values lie, for a message; nothing where torch cannot say."""
    if values.numel() == 0 or values.is_complex():
        return ""
    # torch compares no uint32 and uint64
    low, high = (float(x) for x in torch.aminmax(values.double()))
    return f" in {low:.4g}..{high:.4g}"


def on_white(pixels: Tensor, alpha: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Put an image with transparent parts on a white ground.

    Args:
        pixels: uint8 (3, H, W) in 0..255, colours as if opaque.
        alpha: uint8 (H, W), from 0 for clear to 255 for opaque.

    Returns:
        uint8 (3, H, W), and what was done, in words; nothing when all is opaque.
    """
    if bool((alpha == 255).all()):
        return pixels.contiguous(), ()
    weight = alpha.to(torch.int32)
    mixed = pixels.to(torch.int32) * weight + 255 * (255 - weight)
    return ((mixed + 127) // 255).to(torch.uint8), ("transparent parts put on white",)
