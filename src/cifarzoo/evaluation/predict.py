"""`predict`: what is on these pictures?"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet
from cifarzoo.data.image import convert_image
from cifarzoo.data.photo import is_file
from cifarzoo.errors import InputError
from cifarzoo.evaluation.calibration import check_temperature
from cifarzoo.evaluation.inference import probabilities
from cifarzoo.frozen import freeze_fields
from cifarzoo.zoo.card import get_card, names_of_outputs

__all__ = ["Prediction", "Prepared", "classify", "find_images", "predict", "prepare"]

_SIZE = 32
_AT_ONCE = 500
# formats that Pillow knows by name only, or that are no pictures
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# photos that Pillow may not read, but that nobody wants to be passed over in silence
_OTHER_PHOTOS = {".heic", ".heif"}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model sees in one image.

    Args:
        label: The most probable class.
        probability: Its probability, 0..1.
        top: The most probable classes with their probabilities, best first, at most five.
        note: What was done to the image beforehand, as in "turned upright (EXIF orientation 6);
            resized from 640x480 to 32x32"; else empty.
        file: Path of the image; empty when it is from none. Predictions of one image are equal
            wherever it is from.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    note: str = ""
    file: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        freeze_fields(self)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An image that is ready for a network.

    Args:
        pixels: uint8 (3, 32, 32) in 0..255.
        note: What was done to it.
        file: Its path, or empty.
    """

    pixels: Tensor
    note: str
    file: str


@overload
def predict(
    model: nn.Module,
    images: list[Any] | tuple[Any, ...] | Iterator[Any] | ImageSet,
    *,
    temperature: float = ...,
    device: Device = ...,
    precision: Precision = ...,
) -> list[Prediction]: ...
@overload
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = ...,
    device: Device = ...,
    precision: Precision = ...,
) -> Prediction | list[Prediction]: ...
def predict(
    model: nn.Module,
    images: Any,
    *,
    temperature: float = 1.0,
    device: Device = None,
    precision: Precision = "auto",
) -> Prediction | list[Prediction]:
    """Classify an image, or several.

    A photo is turned as its EXIF field says, 16 bits are scaled to 8, what is transparent is put on
    white, of an animation the first frame is taken, and another size than 32x32 is resized as a
    whole, whatever its shape. The prediction notes all of this. Colour profiles are not applied.

    Args:
        model: A network for 32x32 images; normalization and class names come from its card.
        images: A file path, the bytes of a file, a binary file open for reading, a PIL image, an
            array (H, W), (H, W, C) or tensor (C, H, W) with 1, 3 or 4 channels of uint8, uint16 or
            of floats in 0..1, not normalized; or several of these: a list, tuple, generator or
            other iterable in order, a batch (N, 3, H, W) or (N, H, W, 3), an ImageSet, or a folder,
            whose images are taken with those of the folders in it, sorted by path.
        temperature: What the logits are divided by, as `calibrate` finds it.
        device: Where; where the model is unless given. "auto" takes the fastest device.
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
    several = _several(images)
    # one after the other: a generator's or a folder's full-size photos need not fit into memory
    waiting = iter([prepare(images)]) if several is None else _prepare_each(several)
    place = Place.find(device, precision, model=model)
    found: list[Prediction] = []
    while part := list(itertools.islice(waiting, _AT_ONCE)):
        found += classify(model, part, temperature=temperature, device=place)
    if not found:
        raise InputError("there are no images to classify")
    return found[0] if several is None else found


def prepare(item: Any) -> Prepared:
    """Bring one image to the size that networks take.

    Raises:
        InputError: It cannot be read, or is of no kind that `predict` knows.
    """
    from PIL import Image

    pixels, notes = convert_image(item)
    height, width = pixels.shape[1:]
    if (height, width) != (_SIZE, _SIZE):
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        small = image.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)
        notes = (*notes, f"resized from {width}x{height} to {_SIZE}x{_SIZE}")
    file = os.fspath(item) if isinstance(item, str | os.PathLike) else ""
    return Prepared(pixels, "; ".join(notes), str(file))


def classify(
    model: nn.Module,
    prepared: Sequence[Prepared],
    *,
    temperature: float = 1.0,
    device: Device = None,
    precision: Precision = "auto",
) -> list[Prediction]:
    """What ``model`` sees in images that are ready for it; arguments as for `predict`."""
    pixels = torch.stack([image.pixels for image in prepared])
    found = probabilities(
        model, pixels, temperature=temperature, device=device, precision=precision
    )
    outputs = found.shape[1]
    names = names_of_outputs(get_card(model).classes, outputs) or tuple(map(str, range(outputs)))
    return [_name(row, names, image) for row, image in zip(found, prepared, strict=True)]


def find_images(folder: str | os.PathLike[str]) -> tuple[list[Path], int]:
    """The image files in a folder and the folders in it, sorted by path, and how many others.

    They are told by their suffixes. Hidden files and folders, whose names begin with a dot, are
    passed over and not counted. A folder that may not be opened stands among the files, so that
    whoever reads them says so.
    """
    suffixes = _suffixes()
    files: list[Path] = []
    closed: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=lambda e: closed.append(Path(e.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    found = [file for file in files if file.suffix.lower() in suffixes]
    return sorted([*found, *closed]), len(files) - len(found)


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
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        found, _ = find_images(images)
        if not found:
            raise InputError(f"there are no images in the folder {os.fspath(images)}")
        return found
    if isinstance(images, Set):
        raise InputError("images in a set have no order; pass a list")
    if isinstance(images, Mapping) or is_file(images) or hasattr(images, "getexif"):
        return None
    return images if isinstance(images, Iterable) else None


def _suffixes() -> set[str]:
    """Of the files that are images, lower case."""
    from PIL import Image

    known = Image.registered_extensions()  # also of what a plugin such as pillow-heif adds
    return _OTHER_PHOTOS | {
        suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _NO_PICTURES
    }


def _name(probabilities: Tensor, names: Sequence[str], image: Prepared) -> Prediction:
    best = probabilities.topk(min(5, len(names)))
    top = tuple(
        (names[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )
    return Prediction(
        label=top[0][0], probability=top[0][1], top=top, note=image.note, file=image.file
    )
