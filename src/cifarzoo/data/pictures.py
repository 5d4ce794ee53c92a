"""Pictures from anywhere, made ready for networks that take 32x32 pixels."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.image import convert_image

__all__ = ["Prepared", "find_images", "prepare"]

_SIZE = 32
# formats that Pillow knows by name only, or that are no pictures
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# photos that Pillow may not read, but that nobody wants to be passed over in silence
_OTHER_PHOTOS = {".heic", ".heif"}


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


def find_images(folder: str | os.PathLike[str]) -> tuple[list[Path], int]:
    """The image files in a folder and the folders in it, sorted by path, and how many others.

    They are told by their suffixes. Hidden files and folders, whose names begin with a dot, are
    passed over and not counted. Links to folders are followed; a folder is seen once. One that may
    not be opened stands among the files, so that whoever reads them says so.
    """
    suffixes = _suffixes()
    files: list[Path] = []
    closed: list[Path] = []
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(
        folder, onerror=lambda error: closed.append(Path(error.filename)), followlinks=True
    ):
        visible = [name for name in sorted(folders) if not name.startswith(".")]
        new = {os.path.realpath(os.path.join(place, name)): name for name in visible}
        folders[:] = [name for path, name in new.items() if path not in seen]
        seen |= new.keys()
        files += [Path(place, name) for name in names if not name.startswith(".")]
    found = [file for file in files if file.suffix.lower() in suffixes]
    return sorted([*found, *closed], key=lambda file: file.parts), len(files) - len(found)


def _suffixes() -> set[str]:
    """Of the files that are images, lower case."""
    from PIL import Image

    known = Image.registered_extensions()  # also of what a plugin such as pillow-heif adds
    return _OTHER_PHOTOS | {
        suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _NO_PICTURES
    }
