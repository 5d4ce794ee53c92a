"""Images of one's own: a folder for each class."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.pictures import find_images, prepare
from cifarzoo.errors import ArgumentError, DataError, DataNotFoundError, InputError
from cifarzoo.files.paths import reason_of, user_path
from cifarzoo.plain import shorten

__all__ = ["load_folder"]

# what the part that is not trained on is called by others
_NAMES = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


def load_folder(path: str | Path, split: Literal["train", "test"] | None = None) -> ImageSet:
    """Read images of your own: a folder for each class, with image files in it.

    Images of another size than 32x32 are resized as a whole, and the logger "cifarzoo" is told how
    many. They are read as `predict` reads them: photos are turned upright, 16 bits are scaled to 8,
    and transparent parts become white.

    Args:
        path: A folder that holds a folder for each class; the classes are numbered in the order of
            their names. Or a folder with such folders for its parts, as in ``train/cat``.
        split: "train" reads the folder "train" in it, "test" reads "test" or "val". If there are no
            parts, "test" reads all images. None reads the folder itself.

    Returns:
        The set of uint8 images (N, 3, 32, 32), sorted by path.

    Raises:
        DataNotFoundError: There is no such folder, or no class in it, or a single one whose images
            lie in folders of its own.
        ArgumentError: ``split`` is none of these, or is None where there are parts.
        DataError: A file in it cannot be read.
    """
    folder = _find_part(user_path(path), split)
    # by name alone: Windows compares paths without regard to case
    classes = sorted((x for x in _folders(folder) if find_images(x)[0]), key=lambda x: x.name)
    if not classes:
        raise DataNotFoundError(
            f"{folder} holds no folder with images; make one for each class, and give it the "
            "class's name"
        )
    if split is None:
        _check_parts(classes, folder)
    if len(classes) == 1:
        _check_depth(classes[0])
    pixels: list[Tensor] = []
    labels: list[int] = []
    resized = passed_over = 0
    for number, each in enumerate(classes):
        files, others = find_images(each)
        passed_over += others
        for file in files:
            try:
                found = prepare(file)
            except InputError as error:
                raise DataError(f"{error}; remove it, or repair it") from error
            pixels.append(found.pixels)
            resized += "resized" in found.note
            labels.append(number)
    log = logging.getLogger("cifarzoo")
    if resized:
        log.warning("%s: %d of %d images were resized to 32x32", folder, resized, len(pixels))
    if passed_over:
        log.warning("%s: other files than images were left out: %d", folder, passed_over)
    names = [each.name for each in classes]
    return ImageSet(torch.stack(pixels), torch.tensor(labels), names, folder.name)


def _check_depth(only: Path) -> None:
    """Refuse a single class whose images all lie in folders of its own: those are the classes."""
    counts = [count for each in _folders(only) if (count := len(find_images(each)[0]))]
    if len(counts) > 1 and sum(counts) == len(find_images(only)[0]):
        raise DataNotFoundError(
            f"{only.parent} holds a single class, {only.name!r}, whose images lie in "
            f"{len(counts)} folders; if those are the classes, name {only}"
        )


def _find_part(path: Path, split: str | None) -> Path:
    if not path.is_dir():
        raise DataNotFoundError(f"there is no folder {path.absolute()}")
    if split is None:
        return path
    if split not in [*_NAMES]:  # a list: what cannot be looked up may be asked for
        raise ArgumentError(f"split must be 'train', 'test' or None; got {shorten(split)}")
    # of "Train" and "train" the one in small letters, which comes later; another may be a class
    known = {name for names in _NAMES.values() for name in names}
    found = {
        each.name.casefold(): each
        for each in sorted(_folders(path))
        if each.name in known or any(find_images(part)[0] for part in _folders(each))
    }
    for name in _NAMES[split]:
        if name in found:
            return found[name]
    has_parts = any(name in found for names in _NAMES.values() for name in names)
    if split == "test" and not has_parts:
        return path
    raise DataNotFoundError(
        f"{path} holds no folder {_NAMES[split][0]!r}; put the images to train on into "
        "train/CLASS/, those to measure on into test/CLASS/"
    )


def _check_parts(classes: list[Path], folder: Path) -> None:
    """Raise ArgumentError when what seem to be classes are the parts of a set, with classes."""
    parts = {name for names in _NAMES.values() for name in names}
    names = [each.name for each in classes]
    if not {name.casefold() for name in names} <= parts:
        return
    if not any(file.parent == each for each in classes for file in find_images(each)[0]):
        raise ArgumentError(
            f"{folder} holds the parts {' and '.join(names)}, and no classes; choose one by "
            "split='train' or split='test'"
        )


def _folders(path: Path) -> list[Path]:
    try:
        return [each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {reason_of(error)}; choose another folder"
        ) from error
