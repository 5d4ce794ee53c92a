"""The embedded sample of CIFAR-10: small, balanced, always there."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np
import torch

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.sets.splits import Split, check_split
from cifarzoo.zoo.card import CIFAR10_CLASSES

__all__ = ["load_sample"]

_FOLDER = resources.files("cifarzoo.data") / "sample"
_MOSAIC_COLUMNS = 50


def load_sample(split: Split = "train") -> ImageSet:
    """Load the sample in the package: 2,000 training or 1,000 test images of CIFAR-10.

    They are the first 200 (100) images of each class of the official training (test) set, in
    official order, stored without loss. Use them to try things out, and in tests. Accuracies on
    them are not CIFAR-10 results.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, chapter 3.

    Args:
        split: "train" or "test".

    Example:
        >>> load_sample("test")
        ImageSet('cifar10 sample test', 1,000 images 32x32, 10 classes)
    """
    check_split(split)
    labels = json.loads((_FOLDER / "labels.json").read_text(encoding="utf-8"))[split]
    mosaic = _read_mosaic(split)
    rows = len(labels) // _MOSAIC_COLUMNS
    images = mosaic.reshape(rows, 32, _MOSAIC_COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3)
    return ImageSet(
        torch.from_numpy(images.reshape(-1, 3, 32, 32).copy()),
        torch.tensor(labels),
        CIFAR10_CLASSES,
        f"cifar10 sample {split}",
    )


def _read_mosaic(split: str) -> np.ndarray[Any, Any]:
    """All images of a split as one picture, (32 x rows, 32 x columns, 3)."""
    from PIL import Image

    with (_FOLDER / f"{split}.webp").open("rb") as file:
        return np.asarray(Image.open(file).convert("RGB"))
