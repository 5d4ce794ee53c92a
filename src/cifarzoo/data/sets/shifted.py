"""Other test sets for CIFAR-10's classes: the official files of CIFAR-10-C, CIFAR-10.1, CIFAR-10H.

The files are those their authors publish, put on the disk by the user. Arrays are read without
pickle. Folders are looked for as ``root`` says: it, or ``$CIFARZOO_DATA``, or the cache folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.labels import are_shares
from cifarzoo.data.sets.cifar import data_root
from cifarzoo.errors import ArgumentError, DataError, DataNotFoundError
from cifarzoo.names import whole_number
from cifarzoo.plain import shorten
from cifarzoo.zoo.card import CIFAR10_CLASSES

__all__ = ["Cifar10_1Version", "load_cifar10_1", "load_cifar10c", "load_cifar10h"]

_TEST_IMAGES = 10_000
_SEVERITIES = 5
Cifar10_1Version = Literal["v4", "v6"]


def load_cifar10c(corruption: str, severity: int, *, root: str | Path | None = None) -> ImageSet:
    """Load the 10,000 test images of CIFAR-10 under one corruption, from the official files.

    Source: Hendrycks & Dietterich 2019, arXiv:1903.12261; the files are CIFAR-10-C.tar of
    https://zenodo.org/records/2535967.

    Args:
        corruption: Name of a file without its suffix, such as "fog" or "gaussian_noise".
        severity: Strength of the corruption, 1 to 5.
        root: Folder that holds ``CIFAR-10-C``, or that folder itself.

    Raises:
        ArgumentError: The severity is outside 1..5.
        DataNotFoundError: There is no such file.
        DataError: A file is not as published.
    """
    strength = whole_number(severity)  # a small integer of numpy's would overflow below
    if strength is None or not 1 <= strength <= _SEVERITIES:
        raise ArgumentError(
            f"severity must be a whole number in 1..{_SEVERITIES}; got {shorten(severity)}"
        )
    source = "CIFAR-10-C.tar of https://zenodo.org/records/2535967"
    count = _SEVERITIES * _TEST_IMAGES
    part = slice((strength - 1) * _TEST_IMAGES, strength * _TEST_IMAGES)
    folder = "CIFAR-10-C"
    pixels = _read(root, folder, f"{corruption}.npy", (count, 32, 32, 3), np.uint8, source)[part]
    labels = _read(root, folder, "labels.npy", (count,), np.uint8, source)[part]
    return _image_set(pixels, labels, f"cifar10-c {corruption} {strength}")


def load_cifar10_1(version: Cifar10_1Version = "v6", *, root: str | Path | None = None) -> ImageSet:
    """Load CIFAR-10.1: new images of CIFAR-10's classes, gathered as the original ones were.

    Source: Recht et al. 2018, Do CIFAR-10 Classifiers Generalize to CIFAR-10?, arXiv:1806.00451;
    the files are in ``datasets`` of https://github.com/modestyachts/CIFAR-10.1.

    Args:
        version: "v6" has 2,000 images, equally many of each class; "v4" has 2,021.
        root: Folder that holds the files, or a folder ``CIFAR-10.1`` with them.

    Raises:
        ArgumentError: There is no such version.
        DataNotFoundError: A file is missing.
        DataError: A file is not as published.
    """
    if version not in get_args(Cifar10_1Version):
        raise ArgumentError(f"version must be one of {get_args(Cifar10_1Version)}; got {version!r}")
    source = "datasets of https://github.com/modestyachts/CIFAR-10.1"
    count = {"v4": 2021, "v6": 2000}[version]
    name = f"cifar10.1_{version}"
    pixels = _read(root, "CIFAR-10.1", f"{name}_data.npy", (count, 32, 32, 3), np.uint8, source)
    labels = _read(root, "CIFAR-10.1", f"{name}_labels.npy", (count,), np.integer, source)
    return _image_set(pixels, labels, f"cifar10.1 {version}")


def load_cifar10h(*, root: str | Path | None = None) -> Tensor:
    """Load CIFAR-10H: for each test image, the share of about fifty people that chose each class.

    Source: Peterson et al. 2019, Human Uncertainty Makes Classification More Robust,
    arXiv:1908.07086; the file is ``data/cifar10h-probs.npy`` of
    https://github.com/jcpeterson/cifar-10h.

    Args:
        root: Folder that holds the file, or a folder ``cifar-10h`` with it.

    Returns:
        Shares in 0..1 for each test image, in official order, float64 (10000, 10).

    Raises:
        DataNotFoundError: The file is missing.
        DataError: The file is not as published.
    """
    source = "data of https://github.com/jcpeterson/cifar-10h"
    name = "cifar10h-probs.npy"
    shares = _read(root, "cifar-10h", name, (_TEST_IMAGES, 10), np.floating, source)
    found = torch.from_numpy(np.array(shares, dtype=np.float64))
    if not are_shares(found):
        raise DataError(f"{name} holds rows that are no distributions; get it again: {source}")
    return found


def _read(
    root: str | Path | None, folder: str, name: str, shape: tuple[int, ...], dtype: Any, source: str
) -> np.ndarray[Any, Any]:
    """One array, mapped rather than read, for only a part may be wanted."""
    base = data_root(root)
    path = next((p for p in (base / folder / name, base / name) if p.is_file()), None)
    if path is None:
        there = base / folder if (base / folder).is_dir() else base
        elsewhere = (
            f"set root= or $CIFARZOO_DATA to the folder that holds {folder}"
            if root is None
            else f"name the folder that holds {folder} instead"
        )
        raise DataNotFoundError(
            f"no {name} in {there}; get {source}, and put it there, or {elsewhere}"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is altered or truncated ({error}); get it again: {source}"
        ) from error
    if array.shape != shape or not np.issubdtype(array.dtype, dtype):
        raise DataError(
            f"{path} must hold {np.dtype(dtype).name if dtype is np.uint8 else dtype.__name__} "
            f"{shape}; it holds {array.dtype} {array.shape}: get it again: {source}"
        )
    return array  # type: ignore[no-any-return]  # numpy says Any


def _image_set(pixels: Any, labels: Any, name: str) -> ImageSet:
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous()
    numbers = torch.from_numpy(np.array(labels, dtype=np.int64))
    return ImageSet(images, numbers, CIFAR10_CLASSES, name)
