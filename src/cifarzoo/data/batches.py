"""What a batch from anywhere must look like before a network sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cifarzoo.errors import InputError

__all__ = [
    "Batches",
    "as_pair",
    "check_batch",
    "check_image_range",
    "check_labels",
    "check_logits",
    "check_normalized",
    "check_shape",
]

Batches = Iterable[tuple[Tensor, Tensor]]

# normalized CIFAR images lie within about +-2.2; raw ones reach 255
_LARGEST_NORMALIZED = 30.0
_ENOUGH_IMAGES = 8  # that not one of them has a pixel darker than the mean: not by accident


def as_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """``batch`` as ``(images, labels)``; raises InputError when it is something else."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        images, labels = batch
        if isinstance(images, Tensor) and isinstance(labels, Tensor):
            return images, labels
        got = f"({type(images).__name__}, {type(labels).__name__})"
    else:
        got = type(batch).__name__
    raise InputError(f"batches must be pairs of tensors (images, labels); got {got}")


def check_shape(images: Tensor) -> None:
    """Raise InputError when a batch does not hold images."""
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise InputError(
            "batches must hold images of shape (batch, 3, height, width); got "
            f"{tuple(images.shape)}"
        )


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Raise InputError when a batch is not images with one label each."""
    check_shape(images)
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels must be int64 ({len(images)},), one for each image; got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )


def check_normalized(images: Tensor) -> None:
    """Raise InputError when float images, which are taken as normalized, are not."""
    check_shape(images)
    low, high = (float(x) for x in torch.aminmax(images))
    check_image_range(low, high, in_01=len(images) >= _ENOUGH_IMAGES and low >= 0 and 0 < high <= 1)


def check_image_range(low: float, high: float, *, in_01: bool = False) -> None:
    """Raise InputError when float images with these extremes cannot be normalized ones."""
    # written so that NaN fails too
    if in_01 or not (low >= -_LARGEST_NORMALIZED and high <= _LARGEST_NORMALIZED):
        raise InputError(
            f"float images must be normalized; these lie in {low:.4g}..{high:.4g}: pass uint8 "
            "images, which are normalized here, or (images - mean) / std of images in 0..1"
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise InputError when a label has no output in a network with ``num_classes``."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels must be in 0..{num_classes - 1} for a model with {num_classes} classes; got "
            f"{low}..{high}: build the model with num_classes={high + 1}, or check the labels"
        )


def check_logits(output: Any, count: int) -> None:
    """Raise InputError when a network's ``output`` is not one row of logits for each image."""
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == count:
        return
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise InputError(f"a model must return logits ({count}, classes); this one returns {got}")
