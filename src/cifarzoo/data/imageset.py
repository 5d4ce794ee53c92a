"""A labelled set of images, held in memory as uint8."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cifarzoo.compute.seeding import as_seed
from cifarzoo.data.classes import check_names
from cifarzoo.data.index import as_index
from cifarzoo.data.labels import as_labels
from cifarzoo.data.reading import read_dataset, to_pixels
from cifarzoo.display.frames import data_frame
from cifarzoo.display.html import picture, render
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import whole_number
from cifarzoo.plain import shorten

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["ImageSet"]

_ONE_BY_ONE = "ImageSet.from_dataset() reads images one by one"
_GRAY = (
    "gray images need their channel three times, as images.expand(-1, 3, -1, -1) gives it; where "
    "there is none, images[:, None] makes one"
)

_SHOWN = 24  # images in a notebook


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Holds images with their labels; is also a torch ``Dataset`` of ``(uint8 (3, H, W), int)``.

    Args:
        images: Tensor or array (N, 3, H, W) or (N, H, W, 3) of uint8 in 0..255, uint16 in 0..65535
            or floats in 0..1; or a list of such images.
        labels: Tensor, array or list of N class numbers in 0..len(classes)-1, of any integer dtype,
            (N,) or (N, 1); or one-hot rows (N, len(classes)); or N names of classes.
        classes: Names of the classes, all different, in the order of the labels.
        name: Name of the set in reports, such as "cifar10 test".

    Attributes:
        images: uint8 (N, 3, H, W) in 0..255.
        labels: int64 (N,) in 0..len(classes)-1.

    Raises:
        InputError: A shape, dtype, label or class is not as above, or the set is empty.

    Example:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> ImageSet(images, [0, 1, 0, 1], ("cat", "dog"))
        ImageSet('images', 4 images 32x32, 2 classes)
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"

    def __init__(
        self, images: Any, labels: Any, classes: Sequence[str], name: str = "images"
    ) -> None:
        names = check_names(classes)
        for field, value in (
            ("classes", names),
            ("images", to_pixels(images)),
            ("labels", as_labels(labels, names)),
            ("name", name),
        ):
            object.__setattr__(self, field, value)
        self._check()

    def _check(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.shape[1] != 3:
            without = images.ndim == 3 and len(images) == len(labels)
            advice = _GRAY if without or 1 in images.shape[1:] else _ONE_BY_ONE
            raise InputError(
                f"images must be (N, 3, H, W) or (N, H, W, 3); got {tuple(images.shape)}: {advice}"
            )
        if labels.shape != images.shape[:1]:
            raise InputError(
                f"labels must be ({len(images)},), one for each image; got {tuple(labels.shape)}"
            )
        if len(images) == 0:
            raise InputError("an image set needs at least one image; got none")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"labels must be in 0..{len(self.classes) - 1} for {len(self.classes)} classes; "
                f"got {low}..{high}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not hasattr(index, "__index__"):
            raise ArgumentError(
                f"the index of an image must be a whole number; got {index!r}: subset() takes "
                "several"
            )
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        height, width = self.images.shape[2:]
        return (
            f"ImageSet({self.name!r}, {len(self):,} images {height}x{width}, "
            f"{len(self.classes)} classes)"
        )

    def _repr_html_(self) -> str:
        height, width = self.images.shape[2:]
        count = min(_SHOWN, len(self))
        places = [place * len(self) // count for place in range(count)]
        return render(
            "images.html",
            name=self.name,
            count=len(self),
            height=height,
            width=width,
            classes=len(self.classes),
            shown=[
                (place, self.classes[int(self.labels[place])], picture(self.images[place], side=64))
                for place in places
            ],
        )

    def to_dataframe(self) -> DataFrame:
        """Make a data frame of pandas: a row for each image, with its label and the label's name.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            {"label": label, "class": self.classes[label]} for label in self.labels.tolist()
        )

    def subset(
        self, indices: Tensor | Iterable[int] | slice | Any, *, name: str | None = None
    ) -> ImageSet:
        """Copy the images at ``indices``, in that order, or those where a mask is true.

        Args:
            indices: Whole numbers or one boolean for each image, in a list, tensor, array or range;
                or a slice. Negative numbers count from the end.
            name: Name of the new set; None keeps the name.

        Returns:
            The new set, with the same classes.

        Raises:
            ArgumentError: A number is beyond the set, or ``indices`` is something else.

        Example:
            >>> from cifarzoo import load_sample
            >>> images = load_sample("test")
            >>> images.subset(images.labels == 3)
            ImageSet('cifar10 sample test', 100 images 32x32, 10 classes)
        """
        index = as_index(indices, len(self)).to(self.labels.device)
        return dataclasses.replace(
            self, images=self.images[index], labels=self.labels[index], name=name or self.name
        )

    def split(self, size: int, *, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Hold out ``size`` images, with the same share of every class.

        Shares that are not whole are rounded so that the sizes are exact. Both parts keep the
        order of the images.

        Args:
            size: Number of images to hold out, at least 1 and fewer than there are.
            seed: Seed of the choice; the same seed gives the same split everywhere.

        Returns:
            The rest and the held-out part, as in ``train, val = train.split(5_000)``.

        Raises:
            ArgumentError: ``size`` leaves one of the parts empty, or ``seed`` is no seed.
        """
        count = whole_number(size)
        if count is None or not 0 < count < len(self):
            raise ArgumentError(
                f"split size must be a whole number in 1..{len(self) - 1} for a set of "
                f"{len(self)}; got {shorten(size)}"
            )
        generator = torch.Generator().manual_seed(as_seed(seed))
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels.cpu()[order]
        # each image's place within its class, as a fraction: the smallest fractions are held out,
        # which takes the same share of every class
        rank = torch.empty(len(self), dtype=torch.float64)
        for label in range(len(self.classes)):
            members = (labels == label).nonzero().squeeze(1)
            rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
        chosen = order[rank.argsort(stable=True)]
        held_out, rest = chosen[:count].sort().values, chosen[count:].sort().values
        return self.subset(rest), self.subset(held_out, name=f"{self.name} held out")

    def sha256(self, *, with_labels: bool = True) -> str:
        """Compute the SHA-256 of the pixels and labels, in their order, as hexadecimal text.

        Args:
            with_labels: Whether the labels count; False for the pixels alone.
        """
        running = hashlib.sha256(self.images.cpu().contiguous().numpy().data)
        if with_labels:
            running.update(self.labels.cpu().numpy().tobytes())
        return running.hexdigest()

    @classmethod
    def from_dataset(
        cls, dataset: Any, *, classes: Sequence[str] | None = None, name: str | None = None
    ) -> ImageSet:
        """Read every item of a dataset into memory.

        Args:
            dataset: Anything with a length and numbered items, or that can be iterated. An item is
                a pair (image, label); or a dict with a key for each, as in the library
                ``datasets``; or three things, of which the last is a number or name of the image.
                Images may be PIL images, paths, uint8 arrays (H, W, 3), uint8 tensors (3, H, W),
                floats in 0..1 or 16 bits, all of one size. They are turned as their EXIF field
                says, and put on white where they are transparent. Labels are whole numbers,
                one-hot, or names of classes.
            classes: Names of the classes. If they are not given, they are those of ``dataset``, of
                the data set that a Subset was taken from, or of the parts of a ConcatDataset. If
                these have no names, the numbers are the names.
            name: Name of the set in reports; the name of the dataset's class unless given.

        Returns:
            The set, in the order of the items.

        Raises:
            InputError: It is empty, an item is of another form, or the parts disagree.
            ArgumentError: ``classes`` has its own names in another order, and labels are numbers.
        """
        images, labels, names = read_dataset(dataset, classes)
        return cls(images, labels, names, name or type(dataset).__name__)
