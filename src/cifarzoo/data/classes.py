"""Which of a model's classes the labels of images mean: by name, wherever there are names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cifarzoo.data.columns import find_label_column
from cifarzoo.errors import InputError
from cifarzoo.names import first_difference, texts
from cifarzoo.plain import shorten

if TYPE_CHECKING:
    from cifarzoo.data.imageset import ImageSet

__all__ = [
    "align",
    "check_names",
    "class_names",
    "class_numbers",
    "describe_numbers",
    "describe_strangers",
    "knows_all",
    "renumber",
    "wholes_of",
]

# data sets and loaders of these hand on labels as they are; another package's may change them
_HANDING_ON = frozenset({"torch", "timm", "accelerate", "cifarzoo"})


def class_names(source: Any) -> tuple[str, ...] | None:
    """The names of the classes in what holds images, in label order; None when it does not say.

    Args:
        source: An `ImageSet`, a `Loader`, a torch DataLoader, or a dataset. A Subset is looked
            through; the parts of a ConcatDataset that have names must agree. A data set of the
            library ``datasets`` says it in its ``features``. Names do not count where a
            ``target_transform`` changes the labels.

    Raises:
        InputError: Data sets that are put together number their classes differently.
    """
    names = texts(getattr(source, "classes", None)) or texts(_feature_names(source))
    if names:
        transform = getattr(source, "target_transform", None)
        return names if transform is None or _keeps(transform, len(names)) else None
    found = [names for names in map(class_names, wholes_of(source)) if names is not None]
    for each in found[1:]:
        if each != found[0]:
            raise InputError(
                "data sets that are put together must have the same classes in the same order: "
                f"{first_difference(found[0], each)}; give their labels one numbering first"
            )
    return found[0] if found else None


def wholes_of(source: Any) -> list[Any]:
    """The data sets whose items ``source`` hands on: of a Subset, a ConcatDataset or a DataLoader.

    Empty for those of other libraries, and for a subclass that makes its items itself: they may
    change the labels.
    """
    for method in ("__iter__", "__getitem__", "__getitems__"):
        owner = next((kind for kind in type(source).__mro__ if method in vars(kind)), None)
        if owner is not None and owner.__module__.partition(".")[0] not in _HANDING_ON:
            return []
    parts = getattr(source, "datasets", None)
    if isinstance(parts, list | tuple):
        return [*parts]
    inner = getattr(source, "dataset", None)
    return [] if inner is None or inner is source else [inner]


def check_names(classes: Any) -> tuple[str, ...]:
    """``classes`` as names in label order; raises InputError when they are none, or not different.

    Example:
        >>> check_names(["cat", "dog"])
        ('cat', 'dog')
    """
    names = texts(classes)
    if not names:
        raise InputError(
            f"classes must be a list of names, one or more; got {shorten(classes)}: list them in "
            "the order of the labels"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"each class must have a name of its own; {twice[0]!r} stands twice among the "
            f"{len(names)} classes: write what tells them apart, as in {twice[0] + ' (2)'!r}"
        )
    return names


def class_numbers(
    names: Sequence[str] | None, known: Sequence[str] | None, *, whose: str = "the model"
) -> tuple[int, ...] | None:
    """For each class of the images its number in the model; None where labels hold as they are.

    They hold where one side has no names, and where no name is shared and the images have not fewer
    classes than the model. They also hold where the names that are shared have the same numbers, if
    both sides have as many names (a class may have been renamed) or if all of the model's are
    shared (labels of the images' further classes have no output). Upper and lower case are one,
    unless that makes two classes of one side the same.

    Args:
        names: Class names of the images, in label order.
        known: Class names of the model, in the order of its outputs.
        whose: What the names in ``known`` belong to, for the message.

    Raises:
        InputError: Some of the images' classes are known under other numbers and others are not; or
            they are fewer than the model's, which knows none of them; or a name that is shared
            stands twice on one side.

    Example:
        >>> class_numbers(("cat", "dog", "ship"), ("ship", "dog", "bird", "cat"))
        (3, 1, 0)
    """
    if not names or not known:
        return None
    theirs, ours = _comparable(names, known)
    shared = {*theirs} & {*ours}
    moved = [i for i, name in enumerate(theirs) if name in shared and name not in ours[i : i + 1]]
    has_all = len(theirs) == len(ours) or (len(theirs) > len(ours) and shared == {*ours})
    if not shared and len(names) < len(known):
        raise InputError(
            f"none of the images' {len(names)} classes ({_few(names)}) is among {_of(whose)} "
            f"{len(known)} ({_few(known)}), so nobody knows which outputs they mean; use images of "
            "its classes, or give the images the names that it has for them"
        )
    if not shared or (not moved and has_all):
        return None
    counts = Counter(theirs) + Counter(ours)
    twice = sorted(name for name in shared if counts[name] > 2)
    if twice:
        raise InputError(
            f"the class {twice[0]!r} stands twice among the images' {len(names)} or {_of(whose)} "
            f"{len(known)} classes, so its number is not known; give each class one name"
        )
    unknown = [name for name, plain in zip(names, theirs, strict=True) if plain not in shared]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        others = [
            f"{names[i]!r} (number {i} of the images, {ours.index(theirs[i])} of {whose})"
            for i in moved[:3]
        ]
        known_too = f" It knows {', '.join(others)}." if others else ""
        by_number = (
            "; or, to train it for these, give it a new last layer: reset_classifier(model, "
            f"{len(names)}, classes=images.classes); or, to go by numbers alone, give it the "
            "images' names: attach_card(model, dataclasses.replace(get_card(model), "
            "classes=images.classes))"
        )
        raise InputError(
            f"some of the images' classes are not among {_of(whose)}: {_few(unknown)} {verb} "
            f"unknown to it.{known_too} Use images of its classes ({_few(known)})"
            f"{by_number if whose == 'the model' else ''}"
        )
    return tuple(ours.index(name) for name in theirs)


def align(images: ImageSet, known: Sequence[str] | None) -> ImageSet:
    """The images with the labels and class names of a model, where `class_numbers` knows how."""
    numbers = class_numbers(images.classes, known)
    if numbers is None or known is None:
        return images
    labels = renumber(images.labels, numbers)
    return dataclasses.replace(images, labels=labels, classes=tuple(known))


def knows_all(names: Sequence[str], known: Sequence[str]) -> bool:
    """Whether all of the images' class ``names`` are among the model's, as `class_numbers` does.

    Example:
        >>> knows_all(("Dog", "cat"), ("cat", "dog", "ship"))
        True
    """
    theirs, ours = _comparable(names, known)
    return {*theirs} <= {*ours}


def renumber(labels: Tensor, numbers: Sequence[int]) -> Tensor:
    """Int64 labels (N,) in 0..len(numbers)-1 by the model's numbers."""
    return torch.tensor(numbers, device=labels.device)[labels]


def describe_numbers(numbers: Sequence[int], known: Sequence[str]) -> str:
    """What was done to the labels, in a line for a report."""
    pairs = [f"{i} is {known[number]}" for i, number in enumerate(numbers)]
    shown = ", ".join(pairs[:10]) + (", ..." if len(pairs) > 10 else "")
    left = len(known) - len(numbers)
    rest = "1 class of the model has" if left == 1 else f"{left} classes of the model have"
    without = f"; {rest} no images" if left else ""
    return f"labels were taken by the names of the classes ({shown}){without}"


def describe_strangers(names: Sequence[str], known: Sequence[str]) -> str:
    """What a report says where labels hold by their numbers, and classes have other names.

    Example:
        >>> describe_strangers(("plane", "car", "bird"), ("airplane", "automobile", "bird"))
        "labels were taken by their numbers: 'plane' as 'airplane', 'car' as 'automobile'"
        >>> describe_strangers(("cat", "dog"), ("Cat", "dog"))
        ''
    """
    pairs = [
        f"{theirs!r} as {ours!r}"
        for theirs, ours in zip(names, known, strict=False)
        if not knows_all([theirs], [ours])
    ]
    if not pairs:
        return ""
    shown = ", ".join(pairs[:10]) + (", ..." if len(pairs) > 10 else "")
    return f"labels were taken by their numbers: {shown}"


def _keeps(transform: Any, count: int) -> bool:
    """Whether a ``target_transform`` leaves each of so many labels its number, also as one-hot."""
    try:
        changed = [torch.as_tensor(transform(label)) for label in range(count)]
        numbers = [int(each if each.numel() == 1 else each.argmax()) for each in changed]
    except Exception:  # somebody else's function, perhaps for labels of another kind
        return False
    return numbers == [*range(count)]


def _feature_names(source: Any) -> Sequence[str] | None:
    """Class names as the library ``datasets`` keeps them: of the column that labels are taken from.

    Where that is not clear, of the one feature that is a class.
    """
    features = getattr(source, "features", None)
    if not isinstance(features, Mapping):
        return None
    column = find_label_column(features)
    columns = [features[column]] if column else features.values()
    found = [names for each in columns if (names := getattr(each, "names", None))]
    return found[0] if len(found) == 1 else None


def _comparable(names: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both as they are compared: without regard to case, unless case tells classes apart."""
    plain = [[name.strip().casefold() for name in side] for side in (names, known)]
    if any(len({*p}) < len({*side}) for p, side in zip(plain, (names, known), strict=True)):
        return list(names), list(known)
    return plain[0], plain[1]


def _of(whose: str) -> str:
    return f"{whose}'" if whose.endswith("s") else f"{whose}'s"


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
