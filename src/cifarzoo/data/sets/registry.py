"""Image sets by name: how each is loaded and normalized."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.sets.folder import load_folder
from cifarzoo.data.sets.splits import Split
from cifarzoo.errors import ArgumentError, DuplicateNameError, InputError
from cifarzoo.files.paths import user_path
from cifarzoo.frozen import FrozenDict, freeze_fields
from cifarzoo.names import check_name, unknown_name
from cifarzoo.zoo.card import CIFAR10_PREPROCESSING, Preprocessing

__all__ = [
    "DatasetInfo",
    "get_dataset_info",
    "list_datasets",
    "load_dataset",
    "register_dataset",
]

_FOLDER = "folder:"
_Load = TypeVar("_Load", bound=Callable[..., ImageSet])


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Describes a registered image set.

    Args:
        name: Name that `load_dataset` takes.
        load: Function that loads a part: ``(split, *, root, download) -> ImageSet``.
        preprocessing: Normalization of networks that are trained on it.
        splits: Its parts: "train" and "test", or one of them.
        description: What the images are, in one sentence.
        md5: MD5 checksum of every file, by the name of the file.
        set_name: Name of its image sets, before the part; ``name`` unless given.
        classes: Names of its classes, where they are known without its files.
    """

    name: str
    load: Callable[..., ImageSet]
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING
    splits: tuple[str, ...] = ("train", "test")
    description: str = ""
    md5: Mapping[str, str] = FrozenDict()
    set_name: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze_fields(self)
        if not self.set_name:
            object.__setattr__(self, "set_name", self.name)


_SETS: dict[str, DatasetInfo] = {}


def register_dataset(
    name: str,
    *,
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
    splits: tuple[str, ...] = ("train", "test"),
    description: str = "",
    md5: Mapping[str, str] | None = None,
    set_name: str = "",
    classes: tuple[str, ...] = (),
) -> Callable[[_Load], _Load]:
    """Register the decorated function as the one that loads the image set called ``name``.

    Args:
        name: Name of the image set; must be new.
        preprocessing: Mean and standard deviation of its training pixels.
        splits: Its parts: "train" and "test", or one of them.
        description: What the images are, in one sentence.
        md5: MD5 checksum of every file, by the name of the file. Weights that are trained on the
            images note it.
        set_name: Name of its image sets, before the part; ``name`` unless given.
        classes: Names of its classes, where they are known without its files.

    Returns:
        A decorator that returns the function unchanged. It takes ``(split, *, root, download)``
        and returns an `ImageSet`, which knows its classes.

    Raises:
        DuplicateNameError: The name is taken.

    Example:
        >>> import torch
        >>> from cifarzoo import ImageSet
        >>> @register_dataset("noise", description="Nothing to be seen.")
        ... def noise(split, *, root=None, download=True):
        ...     images = torch.randint(256, (20, 3, 32, 32), dtype=torch.uint8)
        ...     return ImageSet(images, torch.arange(20) % 2, ("one", "other"))
        >>> load_dataset("noise", "test")
        ImageSet('noise test', 20 images 32x32, 2 classes)
    """
    check_name("image set", name)

    def register(load: _Load) -> _Load:
        if name in _SETS or name.startswith(_FOLDER):
            raise DuplicateNameError(f"image set {name!r} is already registered; choose another")
        _SETS[name] = DatasetInfo(
            name, load, preprocessing, splits, description, FrozenDict(md5 or {}), set_name, classes
        )
        return load

    return register


def list_datasets() -> list[str]:
    """List the names of the registered image sets, sorted."""
    return sorted(_SETS)


def get_dataset_info(name: str) -> DatasetInfo:
    """Return what is known about the image set called ``name``, or about a "folder:PATH".

    Raises:
        UnknownNameError: No image set has this name.
    """
    if isinstance(name, str) and name.startswith(_FOLDER):
        path = user_path(name.removeprefix(_FOLDER))

        def load(split: Split, *, root: str | Path | None = None, **ignored: Any) -> ImageSet:
            return load_folder(path if root is None else root, split)

        return DatasetInfo(name, load, description="The images of a folder.", set_name=path.name)
    try:
        return _SETS[name]
    except (KeyError, TypeError):  # a list, say, is no name
        raise unknown_name(
            "image set", name, _SETS, hint="Images of your own: folder:PATH."
        ) from None


def load_dataset(
    name: str, split: Split = "train", *, root: str | Path | None = None, download: bool = True
) -> ImageSet:
    """Load a part of the image set called ``name``.

    Args:
        name: A name of ``list_datasets()``, or "folder:PATH" (see `load_folder`).
        split: "train" or "test".
        root: Folder of the files, if the image set has files. For "folder:PATH", it is the folder
            itself, if that no longer lies at PATH.
        download: Whether to fetch the files when they are missing.

    Raises:
        UnknownNameError: No image set has this name.
        ArgumentError: It has no such part.
        InputError: Its function did not return an ImageSet.

    Example:
        >>> load_dataset("sample", "test")
        ImageSet('cifar10 sample test', 1,000 images 32x32, 10 classes)
    """
    info = get_dataset_info(name)
    if split not in info.splits:
        raise ArgumentError(
            f"the image set {name!r} has no {split!r} images, only "
            f"{' and '.join(map(repr, info.splits))} images; choose another set"
        )
    images = info.load(split, root=root, download=download)
    if not isinstance(images, ImageSet):
        raise InputError(
            f"the function that loads {name!r} must return an ImageSet; it returned "
            f"{type(images).__name__}"
        )
    return dataclasses.replace(images, name=f"{info.set_name} {split}")
