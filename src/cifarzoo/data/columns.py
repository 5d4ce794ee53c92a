"""Which entry of a dict holds the images, and which the labels."""

from __future__ import annotations

from collections.abc import Iterable

from cifarzoo.errors import InputError

__all__ = ["find_columns", "find_label_column"]

_IMAGES = ("img", "imgs", "image", "images", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "fine_labels", "target", "targets", "class")
_COARSE = ("coarse_label", "coarse_labels")  # taken when there is no other


def find_columns(keys: Iterable[object]) -> tuple[str, str]:
    """The keys of the images and of the labels.

    Raises:
        InputError: There is none for one of them, or more than one.

    Example:
        >>> find_columns(["img", "label", "index"])
        ('img', 'label')
    """
    keys = list(keys)
    images = [key for key in _IMAGES if key in keys]
    label = find_label_column(keys)
    if len(images) != 1 or label is None:
        raise InputError(
            f"a dict must have one key for the images ({', '.join(_IMAGES)}) and one for the "
            f"labels ({', '.join(_LABELS)}); got {', '.join(map(repr, keys)) or 'none'}: rename "
            "or remove some, or pass pairs (images, labels)"
        )
    return images[0], label


def find_label_column(keys: Iterable[object]) -> str | None:
    """The one key of the labels; of CIFAR-100's two the fine one. None unless it is clear."""
    keys = list(keys)
    found = [key for key in _LABELS if key in keys] or [key for key in _COARSE if key in keys]
    return found[0] if len(found) == 1 else None
