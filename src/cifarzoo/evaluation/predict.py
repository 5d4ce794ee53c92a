"""`predict`: what is on these pictures?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from cifarzoo.card import get_card
from cifarzoo.data import ImageSet
from cifarzoo.data.imageset import to_uint8
from cifarzoo.device import Precision
from cifarzoo.errors import InputError
from cifarzoo.evaluation.calibration import check_temperature
from cifarzoo.evaluation.inference import collect_logits
from cifarzoo.frozen import freeze_fields

__all__ = ["Prediction", "predict"]

_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model sees in one image.

    Args:
        label: The most probable class.
        probability: Its probability, 0..1.
        top: The most probable classes with their probabilities, best first, at most five.
        note: What was done to the image beforehand, as in "resized from 640x480 to 32x32"; else
            empty.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    note: str = ""

    def __post_init__(self) -> None:
        freeze_fields(self)


@overload
def predict(
    model: nn.Module,
    images: Sequence[Any],
    *,
    temperature: float = ...,
    device: str | torch.device = ...,
    precision: Precision = ...,
) -> list[Prediction]: ...
@overload
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = ...,
    device: str | torch.device = ...,
    precision: Precision = ...,
) -> Prediction | list[Prediction]: ...
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = 1.0,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Prediction | list[Prediction]:
    """Classify an image, or several.

    Args:
        model: A network for 32x32 images; normalization and class names come from its card.
        images: A file path, PIL image, uint8 array (H, W, 3) or tensor (3, H, W) of uint8 or of
            floats in 0..1, not normalized; or a list of these, a batch (N, 3, H, W) or
            (N, H, W, 3), or an ImageSet. Other sizes are resized to 32x32, which the prediction
            notes.
        temperature: What the logits are divided by, as `calibrate` finds it.
        device: "auto", or any torch device.
        precision: As for ``evaluate``.

    Returns:
        A `Prediction`; a list of them for several images.

    Raises:
        ArgumentError: The temperature is not a positive number.
        InputError: A file cannot be read, or an image is of another kind.

    Example:
        >>> from cifarzoo import create_model
        >>> prediction = predict(create_model("simple"), torch.zeros(3, 48, 64))
        >>> prediction.note
        'resized from 64x48 to 32x32'
    """
    check_temperature(temperature)
    if isinstance(images, ImageSet):
        images = images.images
    is_batch = isinstance(images, Tensor | np.ndarray) and images.ndim == 4
    is_several = is_batch or isinstance(images, list | tuple)
    items = list(images) if is_several else [images]
    if not items:
        raise InputError("there are no images to classify")
    prepared = [_prepare(item) for item in items]
    pixels = torch.stack([pixels for pixels, _ in prepared])
    unknown = torch.zeros(len(pixels), dtype=torch.int64)
    logits, _ = collect_logits(
        model, ImageSet(pixels, unknown, ("unknown",)), device=device, precision=precision
    )
    probabilities = (logits / temperature).softmax(1)
    names = get_card(model).classes or ()
    if len(names) != logits.shape[1]:
        names = tuple(str(i) for i in range(logits.shape[1]))
    found = [
        _name(row, names, note) for row, (_, note) in zip(probabilities, prepared, strict=True)
    ]
    return found if is_several else found[0]


def _prepare(item: Any) -> tuple[Tensor, str]:
    """One image as uint8 (3, 32, 32), and what was done to it."""
    from PIL import Image

    if isinstance(item, str | Path):
        try:
            with Image.open(item) as file:
                pixels = to_uint8(file)
        except OSError as error:
            raise InputError(f"cannot read an image from {item}: {error}") from error
    else:
        pixels = to_uint8(item)
    height, width = pixels.shape[1:]
    if (height, width) == (_SIZE, _SIZE):
        return pixels, ""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    small = image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
    return to_uint8(small), f"resized from {width}x{height} to {_SIZE}x{_SIZE}"


def _name(probabilities: Tensor, names: Sequence[str], note: str) -> Prediction:
    best = probabilities.topk(min(5, len(names)))
    top = tuple(
        (names[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
    return Prediction(label=top[0][0], probability=top[0][1], top=top, note=note)
