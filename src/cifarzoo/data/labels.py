"""Labels, in the form that people have them, as int64 (N,)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.image import from_numpy
from cifarzoo.errors import InputError

__all__ = ["are_shares", "as_labels", "row_width"]

_ROUNDING = 1e-2  # of shares that were added up in bfloat16


def as_labels(
    labels: Any,
    classes: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    takes_soft: bool = False,
) -> Tensor:
    """Class numbers from whatever holds them.

    Args:
        labels: Tensor, array or list of whole numbers of any dtype, (N,) or (N, 1); or rows with
            exactly one 1 (N, C); or, where there are ``classes``, their names.
        classes: Names of the classes in label order.
        columns: How many classes rows must tell apart; the number of ``classes`` unless given.
        takes_soft: Whether rows may be shares of several classes, as MixUp makes them.

    Returns:
        int64 (N,), where ``labels`` lies; float32 (N, C) for shares. Ranges are not checked.

    Raises:
        InputError: They are names that are not known, True and False, fractions, or shares of
            several classes.

    Example:
        >>> as_labels([[0, 0, 1], [1, 0, 0]]), as_labels(["dog"], ("cat", "dog"))
        (tensor([2, 0]), tensor([1]))
    """
    found = labels if isinstance(labels, Tensor) else _as_tensor(labels, classes)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    elif found.ndim == 2:
        width = len(classes) if columns is None and classes is not None else columns
        if width is not None and found.shape[1] != width:
            raise InputError(
                f"labels that are rows must be ({len(found)}, {width}), with a column for each "
                f"class; got {tuple(found.shape)}"
            )
        if takes_soft and _is_soft(found):
            return found.float()
        found = _from_one_hot(found)
    if found.dtype == torch.int64:
        return found
    if found.dtype == torch.bool or found.is_complex():
        raise InputError(
            f"labels must be numbers of classes; got {found.dtype}: convert them, as in "
            "labels.astype('int64'), and name the class of False first"
        )
    if found.is_floating_point():
        wrong = ~(found.isfinite() & (found == found.round()))  # written so that NaN is wrong too
        if bool(wrong.any()):
            example = float(found.flatten()[int(wrong.flatten().nonzero()[0])])
            raise InputError(
                f"labels must be whole numbers, one class for each image; got {example:.4g}: this "
                "library classifies and does no regression"
            )
    return found.to(torch.int64)


def row_width(labels: Any) -> int:
    """Columns of labels that `as_labels` takes for rows; 0 for numbers."""
    found = labels if isinstance(labels, Tensor) else _as_tensor(labels, None)
    return found.shape[1] if found.ndim == 2 and found.shape[1] > 1 else 0


def _as_tensor(labels: Any, classes: Sequence[str] | None) -> Tensor:
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], Tensor):
        try:
            return torch.stack([torch.as_tensor(label).detach().cpu() for label in labels])
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"labels must all have one form; {error}") from error
    if np.ma.is_masked(labels):
        raise InputError("each image needs a label; some of these are masked")
    try:
        array = np.asarray(labels)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"labels must be one number for each image; got a mix ({error})") from None
    if array.dtype == object and array.ndim == 1 and all(isinstance(x, str) for x in array):
        array = array.astype(str)
    if array.dtype.kind == "U" and array.ndim == 1:
        return _from_names(array.tolist(), classes)
    if array.dtype.kind not in "buif":
        kind = type(labels).__name__ if array.ndim == 0 else str(array.dtype)
        raise InputError(f"labels must be one whole number for each image; got {kind}")
    return from_numpy(array)


def _from_names(names: list[str], classes: Sequence[str] | None) -> Tensor:
    numbers = {name: number for number, name in enumerate(classes or ())}
    unknown = [name for name in names if name not in numbers]
    if not unknown:
        return torch.tensor([numbers[name] for name in names])
    if classes is None:
        raise InputError(
            f"labels must be numbers where classes have no names; got {unknown[0]!r}: pass "
            "classes=[...], all names in the order of their numbers, to ImageSet or from_dataset, "
            "or numbers: [classes.index(name) for name in labels]"
        )
    some = ", ".join([*map(repr, classes[:5]), "..."][: len(classes)])
    raise InputError(f"the label {unknown[0]!r} is none of the classes {some}")


def _is_soft(rows: Tensor) -> bool:
    """Whether rows are shares of classes: not negative, one altogether, not all of one class."""
    if not rows.is_floating_point():
        return False
    return are_shares(rows.float(), _ROUNDING) and bool((rows.amax(1) < 1).any())


def are_shares(rows: Tensor, rounding: float = 1e-3) -> bool:
    """Whether each row (N, C) is a distribution: not negative, and one altogether.

    Args:
        rows: Numbers of any kind; NaN is no share.
        rounding: How far the sum of a row may be from one.
    """
    return bool(((rows >= 0).all() & ((rows.sum(1) - 1).abs() <= rounding).all()).item())


def _from_one_hot(rows: Tensor) -> Tensor:
    """The place of the 1 in each row."""
    # both sums: a row of 0.5 and 0.5 has no 1, and one of 1 and 0.5 has more than that
    one, others = (rows == 1).sum(1), (rows != 0).sum(1)
    if not bool(((one == 1) & (others == 1)).all()):
        raise InputError(
            f"labels must be one number for each image, or rows with one 1; got {rows.dtype} "
            f"{tuple(rows.shape)} with other rows: take the most probable class, "
            "labels.argmax(1), or mix images by the recipe"
        )
    return (rows == 1).to(torch.uint8).argmax(1)
