"""Every item of a dataset, read into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from cifarzoo.data.batches import as_images, as_pair, check_extra, unpack
from cifarzoo.data.classes import check_names, class_names, wholes_of
from cifarzoo.data.columns import find_columns
from cifarzoo.data.depth import reduce_depth
from cifarzoo.data.image import to_uint8
from cifarzoo.data.labels import as_labels
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import first_difference

__all__ = ["read_dataset", "to_pixels"]


def read_dataset(
    dataset: Any, classes: Sequence[str] | None = None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images, labels and class names of a dataset; see `ImageSet.from_dataset`.

    Returns:
        uint8 (N, 3, H, W) in 0..255, int64 (N,), and a name for each class.
    """
    names = class_names(dataset) if classes is None else check_names(classes)
    if isinstance(dataset, Mapping):  # of columns
        _check_order(dataset, dataset[find_columns(dataset)[1]], classes)
        images, numbers = as_pair(dataset, classes=names)
        return to_pixels(images), numbers, names or _numbered(numbers)
    pixels: list[Tensor] = []
    labels: list[Any] = []
    extras: list[Any] = []
    for place, item in enumerate(_items(dataset)):
        try:
            image, label, extra = unpack(item, "items")
            if isinstance(image, Tensor) and image.ndim == 4:
                raise InputError("it holds a batch; pass the dataset behind the DataLoader")
            pixels.append(to_uint8(image))
        except InputError as error:
            raise InputError(f"item {place} of the dataset: {error}") from error
        labels.append(label)
        extras += [] if extra is None else [extra]
    if not pixels:
        raise InputError("an image set needs at least one image; the dataset is empty")
    shapes = {tuple(image.shape) for image in pixels}
    if len(shapes) > 1:
        raise InputError(
            f"all images must have one size; got {sorted(shapes)[:3]}: resize them first"
        )
    if extras:
        check_extra(extras)
    _check_order(dataset, labels, classes)
    numbers = as_labels(labels, names)
    return torch.stack(pixels), numbers, names or _numbered(_all_labels(dataset, numbers))


def _check_order(dataset: Any, labels: Any, classes: Sequence[str] | None) -> None:
    """Refuse ``classes`` that are the data set's own in another order: labels are its numbers."""
    is_list = isinstance(labels, list | tuple)
    if classes is None or (is_list and any(isinstance(label, str) for label in labels)):
        return
    makers = [kind for kind in type(dataset).__mro__ if "__getitem__" in vars(kind)]
    if len(makers) > 1 and makers[1] is not Dataset:  # it makes items of another's, perhaps with
        return  # other labels
    with contextlib.suppress(InputError):  # parts that disagree, which ``classes`` settles
        own = class_names(dataset)
        if own is not None and own != (given := check_names(classes)) and {*own} == {*given}:
            raise ArgumentError(
                "classes has the data set's own names in another order: "
                f"{first_difference(own, given)}; leave classes out, for its labels are numbers in "
                "its own order"
            )


def to_pixels(images: Any) -> Tensor:
    """Images of a set as uint8 (N, 3, H, W); floats must lie in 0..1."""
    return reduce_depth(as_images(images))[0]


def _items(dataset: Any) -> Iterator[Any]:
    # one that has numbered items is not trusted to end by itself; one that only iterates must be
    if (
        hasattr(dataset, "__getitem__")
        and hasattr(dataset, "__len__")
        and not isinstance(dataset, IterableDataset)
    ):
        return (dataset[i] for i in range(len(dataset)))
    if isinstance(dataset, Iterable):
        return iter(dataset)
    raise InputError(
        "a dataset must have items (image, label), with a length and by number or one after the "
        f"other; got {dataset!r}"
    )


def _all_labels(dataset: Any, labels: Tensor) -> Tensor:
    """Those of everything that a nameless dataset is a part of: the part may lack a class."""
    wholes = wholes_of(dataset)
    if not wholes:
        return labels
    found = [
        _all_labels(whole, as_labels([unpack(item)[1] for item in _items(whole)]))
        for whole in wholes
    ]
    return torch.cat(found)


def _numbered(labels: Tensor) -> tuple[str, ...]:
    return tuple(str(label) for label in range(int(labels.max()) + 1))
