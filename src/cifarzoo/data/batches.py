"""What a batch from anywhere must look like before a network sees it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.columns import find_columns
from cifarzoo.data.depth import reduce_depth
from cifarzoo.data.image import from_numpy, to_uint8
from cifarzoo.data.labels import as_labels
from cifarzoo.errors import InputError
from cifarzoo.zoo.card import CIFAR10_PREPROCESSING, Preprocessing

__all__ = [
    "Batches",
    "as_images",
    "as_pair",
    "check_batch",
    "check_extra",
    "check_image_range",
    "check_labels",
    "check_logits",
    "check_normalized",
    "check_shape",
    "unpack",
]

Batches = Iterable[Any]
"""What `as_pair` takes, one after the other."""

# normalized CIFAR images lie within about +-2.2; raw ones reach 255
_LARGEST_NORMALIZED = 30.0
_ENOUGH_IMAGES = 8  # that not one of them has a pixel darker than the mean: not by accident
_NO_NORMALIZATION = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_OVERSHOOT = 0.5  # of images in 0..1 that were resized or sharpened


def as_pair(
    batch: Any,
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    takes_soft: bool = False,
) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch from anywhere, in the one form that networks take.

    Args:
        batch: A pair (images, labels); or three with the images' numbers or names at the end; or a
            dict with one key for each, as "img" and "label". Images are a tensor or array
            (B, 3, H, W) or (B, H, W, 3), or a list of images; labels as `as_labels` takes them.
        classes: Names of the classes in label order.
        columns: How many classes labels must tell apart that are rows; any number unless given.
        takes_soft: Whether labels may be shares of several classes, float (B, C).

    Returns:
        Images (B, 3, H, W), uint8 in 0..255 or float as they came, and int64 labels (B,). Sizes
        are for `check_batch` to check.

    Raises:
        InputError: It is something else, or could mean two things.
    """
    images, labels, extra = unpack(batch)
    if extra is not None:
        check_extra(extra)
    numbers = as_labels(labels, classes, columns=columns, takes_soft=takes_soft)
    return as_images(images), numbers


def unpack(item: Any, what: str = "batches") -> tuple[Any, Any, Any]:
    """Images, labels, and None or what stands behind them, of a batch or of one item.

    Args:
        item: A pair, three things or a dict.
        what: What such things are called, for the message.

    Raises:
        InputError: It is no pair, no three and no dict.
    """
    if isinstance(item, Mapping):
        image, label = find_columns(item)
        return item[image], item[label], None
    if isinstance(item, tuple | list) and len(item) in (2, 3):
        images, labels, *extra = item
        return images, labels, extra[0] if extra else None
    got = (
        f"{type(item).__name__} {tuple(item.shape)}"
        if isinstance(item, Tensor | np.ndarray)
        else f"{type(item).__name__} of {len(item)}"
        if isinstance(item, tuple | list)
        else type(item).__name__
    )
    raise InputError(
        f"{what} must be pairs (images, labels), or dicts with a key for each; got {got}"
    )


def check_extra(extra: Any) -> None:
    """Raise InputError when what stands behind the labels may be labels too.

    Different whole numbers count the images, and texts name them.
    """
    if not isinstance(extra, Tensor | np.ndarray):
        if isinstance(extra, list | tuple) and all(isinstance(x, str | os.PathLike) for x in extra):
            return
        try:
            extra = np.asarray(extra)
        except (RuntimeError, TypeError, ValueError):
            extra = np.empty((), dtype=object)
    values = extra.reshape(-1).tolist()
    are_whole = all(isinstance(x, int) and not isinstance(x, bool) for x in values)
    if extra.ndim != 1 or not are_whole or len(set(values)) < len(values):
        raise InputError(
            "in a batch of three things, the last must be the numbers or names of the images, all "
            "different, or it is not known which are the labels: pass pairs (images, labels)"
        )


def as_images(images: Any) -> Tensor:
    """Images of a batch as one tensor, channels first where that is the only reading.

    Args:
        images: Tensor or array (B, 3, H, W) or (B, H, W, 3), uint8, uint16 or float; or a list of
            tensors, arrays, PIL images or nested lists of numbers, all of one size.

    Returns:
        uint8 in 0..255, or floats as they came, (B, 3, H, W); other shapes as they came, for
        `check_shape` to refuse.

    Raises:
        InputError: They are of another kind, or may be read in two ways.
    """
    if isinstance(images, list | tuple):
        if not images:
            raise InputError("the list of images is empty; give at least one")
        found = _stack(images)
    elif isinstance(images, np.ndarray):
        found = from_numpy(images)
    elif isinstance(images, Tensor):
        found = images
    else:
        raise InputError(
            "batches must hold images as a tensor, an array or a list; got "
            f"{type(images).__name__}: ImageSet.from_dataset() reads single images"
        )
    if found.dtype == torch.uint16:
        found = reduce_depth(found)[0]
    if found.dtype != torch.uint8 and not found.is_floating_point():
        raise InputError(
            f"images must be uint8 in 0..255, or float; got {found.dtype}: convert values in "
            "0..255 to uint8"
        )
    if found.ndim == 4 and found.shape[3] == 3:
        if found.shape[1] != 3:
            return found.permute(0, 3, 1, 2)
        if isinstance(images, np.ndarray):
            raise InputError(
                f"an array of shape {tuple(found.shape)} could have its channels first or last; "
                "pass a tensor, which has them first"
            )
    return found


def _stack(images: Sequence[Any]) -> Tensor:
    """A list of images as one tensor; floats stay what they are."""
    first = images[0]
    if isinstance(first, list | tuple):
        return _from_numbers(images)
    if isinstance(first, np.ndarray):
        images = [from_numpy(x) if isinstance(x, np.ndarray) else x for x in images]
    is_float = isinstance(images[0], Tensor) and images[0].is_floating_point()
    found = [x if is_float else to_uint8(x) for x in images]
    if any(not isinstance(x, Tensor) or x.dtype != found[0].dtype for x in found):
        raise InputError("the images of a batch must all be of one kind; these are a mix")
    shapes = {tuple(x.shape) for x in found}
    if len(shapes) > 1:
        raise InputError(f"all images must have one size; got {sorted(shapes)[:3]}")
    return torch.stack(found)


def _from_numbers(images: Sequence[Any]) -> Tensor:
    """Nested lists, which say nothing about a dtype: pixels in 0..255 as uint8, else floats."""
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise InputError(f"images in nested lists must have one size; {error}") from error
    if array.dtype.kind == "f":
        return from_numpy(array.astype(np.float32))
    # a highest value of 1 may be the white of 0..1, or nearly the black of 0..255
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255 and array.max() != 1:
        return from_numpy(array.astype(np.uint8))
    raise InputError(
        "images in nested lists must be numbers in 0..255; pass an array, whose dtype says what "
        "its numbers mean"
    )


def check_shape(images: Tensor) -> None:
    """Raise InputError when a batch does not hold images."""
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        advice = ""
        if images.ndim == 3:
            advice = ": one image is images[None]"
        elif images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):
            advice = ": give grey images three equal channels"
        elif images.ndim == 4 and 4 in (images.shape[1], images.shape[3]):
            advice = ": put transparent images on a ground first, and leave the fourth channel out"
        raise InputError(
            "batches must hold images of shape (batch, 3, height, width); got "
            f"{tuple(images.shape)}{advice}"
        )


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Raise InputError when a batch is not images with one label each."""
    check_shape(images)
    if labels.is_floating_point() and labels.ndim == 2 and len(labels) == len(images):
        return  # shares of classes, which `as_pair` has let pass
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels must be int64 ({len(images)},), one for each image; got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )


def check_normalized(
    images: Tensor, preprocessing: Preprocessing = CIFAR10_PREPROCESSING
) -> tuple[float, float]:
    """The extremes of float images, or InputError when they, taken as normalized, are not.

    A network whose ``preprocessing`` changes nothing normalizes inside: it takes floats in 0..1.
    """
    check_shape(images)
    if not images.is_floating_point():
        raise InputError(
            f"images must be uint8 in 0..255, which are normalized here, or normalized floats; got "
            f"{images.dtype}: images.to(torch.uint8) makes bytes of whole numbers in 0..255"
        )
    low, high = (float(x) for x in torch.aminmax(images))
    check_image_range(low, high, len(images), preprocessing)
    return low, high


def check_image_range(
    low: float, high: float, count: int, preprocessing: Preprocessing = CIFAR10_PREPROCESSING
) -> None:
    """Raise InputError when ``count`` float images with these extremes are not normalized."""
    in_01 = count >= _ENOUGH_IMAGES and low >= 0 and 0 < high <= 1
    # both conditions are written so that NaN fails too
    if preprocessing == _NO_NORMALIZATION:
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise InputError(
                "this network normalizes inside, so float images must lie in 0..1; these lie in "
                f"{low:.4g}..{high:.4g}: pass uint8 images, or divide those in 0..255 by 255"
            )
    elif in_01 or not (low >= -_LARGEST_NORMALIZED and high <= _LARGEST_NORMALIZED):
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


def check_logits(output: Any, count: int, whose: str = "a model") -> None:
    """Raise InputError when a network's ``output`` is not one row of logits for each image."""
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == count:
        return
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise InputError(f"{whose} must return logits ({count}, classes); this one returns {got}")
