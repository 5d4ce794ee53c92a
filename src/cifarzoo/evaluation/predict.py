"""`predict`: what is on these pictures?"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet
from cifarzoo.data.photo import is_file
from cifarzoo.data.pictures import Prepared, find_images, prepare
from cifarzoo.display.frames import data_frame
from cifarzoo.display.html import render
from cifarzoo.errors import InputError
from cifarzoo.evaluation.inference import as_probabilities, check_temperature, infer
from cifarzoo.files.paths import home_path
from cifarzoo.frozen import freeze_fields
from cifarzoo.names import check_count, one_line
from cifarzoo.zoo.card import get_card, names_of_outputs

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Prediction", "check_top", "classify", "predict"]

_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Says what a network recognizes in one image.

    Args:
        label: The most probable class.
        probability: Its probability, 0..1.
        top: The most probable classes with their probabilities, best first; five unless `predict`
            was asked for another number.
        note: What was done to the image beforehand, such as "turned upright (EXIF orientation 6);
            resized from 640x480 to 32x32"; or empty.
        file: Path of the image; empty if the image is from no file. It does not count when
            predictions are compared.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    note: str = ""
    file: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        freeze_fields(self)

    def __repr__(self) -> str:
        file = f", file {one_line(self.file)!r}" if self.file else ""
        return f"Prediction({one_line(self.label)!r} {self.probability:.1%}{file})"

    def __str__(self) -> str:
        ranking = ", ".join(f"{name} {probability:.1%}" for name, probability in self.top)
        file = f"{self.file}: " if self.file else ""
        note = f" ({self.note})" if self.note else ""
        return one_line(f"{file}{ranking}{note}")

    def _repr_html_(self) -> str:
        return render("prediction.html", p=self)

    def to_dataframe(self) -> DataFrame:
        """Make a data frame of pandas: a row for each of the most probable classes, best first.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame({"class": name, "probability": share} for name, share in self.top)


@overload
def predict(
    model: nn.Module,
    images: list[Any] | tuple[Any, ...] | Iterator[Any] | ImageSet,
    *,
    temperature: float = ...,
    top: int = ...,
    device: Device = ...,
    precision: Precision = ...,
) -> list[Prediction]: ...
@overload
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = ...,
    top: int = ...,
    device: Device = ...,
    precision: Precision = ...,
) -> Prediction | list[Prediction]: ...
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = 1.0,
    top: int = 5,
    device: Device = None,
    precision: Precision = "auto",
) -> Prediction | list[Prediction]:
    """Classify an image, or several.

    A photo is turned as its EXIF field says. Images of 16 bits are scaled to 8. Transparent parts
    become white. An animation is represented by its first frame. An image of another size than
    32x32 is resized as a whole, whatever its shape. The note of the prediction says what was done.
    Colour profiles are not applied.

    Args:
        model: A network for 32x32 images; normalization and class names come from its card.
        images: A file path, the bytes of a file, a binary file open for reading, a PIL image, an
            array (H, W) or (H, W, C), or a tensor (C, H, W), with 1, 3 or 4 channels of uint8,
            uint16 or of floats in 0..1, not normalized. Or several of these: a list, tuple,
            generator or other iterable, a batch (N, 3, H, W) or (N, H, W, 3), an ImageSet, or
            a folder, whose images and those of the folders in it are taken, sorted by path.
        temperature: Number that divides the logits; `calibrate` finds it.
        top: Number of most probable classes to return, at least 1; all of them if there are fewer.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.

    Returns:
        A `Prediction`; a list of them for several images.

    Raises:
        ArgumentError: The temperature is no positive number of float32, or ``top`` is below 1.
        InputError: A file cannot be read, or an image is of another kind.

    Example:
        >>> from cifarzoo import create_model
        >>> prediction = predict(create_model("simple"), torch.zeros(3, 48, 64))
        >>> prediction.note
        'resized from 64x48 to 32x32'
    """
    check_temperature(temperature)
    check_top(top)
    several = _several(images)
    # one after the other: a generator's or a folder's full-size photos need not fit into memory
    waiting = iter([prepare(images)]) if several is None else _prepare_each(several)
    place = Place.find(device, precision, model=model)
    found: list[Prediction] = []
    while part := list(itertools.islice(waiting, _AT_ONCE)):
        found += classify(model, part, temperature=temperature, top=top, device=place)
    if not found:
        raise InputError("there are no images to classify")
    return found[0] if several is None else found


def classify(
    model: nn.Module,
    prepared: Sequence[Prepared],
    *,
    temperature: float = 1.0,
    top: int = 5,
    device: Device = None,
    precision: Precision = "auto",
) -> list[Prediction]:
    """What ``model`` sees in images that are ready for it; arguments as for `predict`."""
    pixels = torch.stack([image.pixels for image in prepared])
    answers, _ = infer(model, pixels, place=Place.find(device, precision, model=model))
    logits = answers["none"]
    outputs = logits.shape[1]
    names = names_of_outputs(get_card(model).classes, outputs) or tuple(map(str, range(outputs)))
    # a small temperature makes many probabilities 0, which have no order
    best = logits.topk(min(top, outputs)).indices
    shares = as_probabilities(logits, temperature).gather(1, best)
    rows = zip(best.tolist(), shares.tolist(), prepared, strict=True)
    return [
        _tell([(names[i], p) for i, p in zip(numbers, found, strict=True)], image)
        for numbers, found, image in rows
    ]


def check_top(top: int) -> None:
    """Raise ArgumentError when so many classes cannot be told."""
    check_count("top", top)


def _prepare_each(items: Iterable[Any]) -> Iterator[Prepared]:
    for place, item in enumerate(items):
        try:
            yield prepare(item)
        except InputError as error:
            if isinstance(item, str | os.PathLike):  # the message names it
                raise
            raise InputError(f"image {place}: {error}") from error


def _several(images: Any) -> Iterable[Any] | None:
    """The images one by one; None when it is one."""
    if isinstance(images, ImageSet):
        return images.images
    if isinstance(images, Tensor | np.ndarray):
        return images if images.ndim == 4 else None
    if isinstance(images, str | os.PathLike) and images and os.path.isdir(home_path(images)):
        found, _ = find_images(home_path(images))
        if not found:
            raise InputError(f"there are no images in the folder {os.fspath(images)}")
        return found
    if isinstance(images, Set):
        raise InputError("images in a set have no order; pass a list")
    if isinstance(images, Mapping) or is_file(images) or hasattr(images, "getexif"):
        return None
    return images if isinstance(images, Iterable) else None


def _tell(top: Sequence[tuple[str, float]], image: Prepared) -> Prediction:
    label, probability = top[0]
    return Prediction(label, probability, top=tuple(top), note=image.note, file=image.file)
