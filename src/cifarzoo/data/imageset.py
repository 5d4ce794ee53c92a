"""A labelled set of images, held in memory as uint8."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import whole_number

__all__ = ["ImageSet", "to_uint8"]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images with labels; also a torch ``Dataset`` of ``(uint8 (3, H, W), int)`` pairs.

    Args:
        images: uint8 (N, 3, H, W) in 0..255.
        labels: int64 (N,) in 0..len(classes)-1.
        classes: Class names in label order.
        name: Name for reports, as in "cifar10 test".

    Raises:
        InputError: A shape, dtype or label is not as above, or the set is empty.

    Example:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> ImageSet(images, torch.tensor([0, 1, 0, 1]), ("cat", "dog"))
        ImageSet('images', 4 images 32x32, 2 classes)
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        object.__setattr__(self, "classes", tuple(self.classes))
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"images must be uint8 (N, 3, H, W) in 0..255; got {images.dtype} "
                f"{tuple(images.shape)}: ImageSet.from_dataset() converts other forms"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InputError(
                f"labels must be int64 ({len(images)},), one for each image; "
                f"got {labels.dtype} {tuple(labels.shape)}"
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
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        height, width = self.images.shape[2:]
        return (
            f"ImageSet({self.name!r}, {len(self):,} images {height}x{width}, "
            f"{len(self.classes)} classes)"
        )

    def subset(self, indices: Tensor | Sequence[int], *, name: str | None = None) -> ImageSet:
        """The images at ``indices``, in that order, copied; or those where a mask is true.

        Args:
            indices: Integers, or one boolean for each image.
            name: Of the new set; None keeps the name.

        Example:
            >>> from cifarzoo import load_sample
            >>> images = load_sample("test")
            >>> images.subset(images.labels == 3)
            ImageSet('cifar10 sample test', 100 images 32x32, 10 classes)
        """
        index = torch.as_tensor(indices)
        if index.dtype == torch.bool:
            if index.shape != self.labels.shape:
                raise ArgumentError(
                    f"a mask must hold one boolean for each of the {len(self)} images; got shape "
                    f"{tuple(index.shape)}"
                )
            index = index.nonzero().squeeze(1)
        elif len(index) and index.is_floating_point():
            raise ArgumentError(f"indices must be integers or booleans; got {index.dtype}")
        index = index.to(self.labels.device, torch.int64)
        return dataclasses.replace(
            self, images=self.images[index], labels=self.labels[index], name=name or self.name
        )

    def split(self, size: int, *, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Hold out ``size`` images, with the same share of every class.

        Shares that are not whole are rounded so that the sizes are exact; both parts keep the
        order of the images.

        Args:
            size: Images to hold out, at least 1 and fewer than there are.
            seed: Decides which; the same seed gives the same split everywhere.

        Returns:
            The rest and the held-out part, as in ``train, val = train.split(5_000)``.

        Raises:
            ArgumentError: ``size`` leaves one of the parts empty.
        """
        count, start = whole_number(size), whole_number(seed)
        if count is None or not 0 < count < len(self):
            raise ArgumentError(
                f"split size must be a whole number in 1..{len(self) - 1} for a set of "
                f"{len(self)}; got {size}"
            )
        if start is None:
            raise ArgumentError(f"seed must be a whole number; got {seed!r}")
        generator = torch.Generator().manual_seed(start)
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels[order]
        # each image's place within its class, as a fraction: the smallest fractions are held out,
        # which takes the same share of every class
        rank = torch.empty(len(self), dtype=torch.float64)
        for label in range(len(self.classes)):
            members = (labels == label).nonzero().squeeze(1)
            rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
        chosen = order[rank.argsort(stable=True)]
        held_out, rest = chosen[:count].sort().values, chosen[count:].sort().values
        return self.subset(rest), self.subset(held_out, name=f"{self.name} held out")

    def sha256(self) -> str:
        """Checksum of the pixels and labels, in their order, hexadecimal."""
        running = hashlib.sha256(self.images.cpu().contiguous().numpy().tobytes())
        running.update(self.labels.cpu().numpy().tobytes())
        return running.hexdigest()

    @classmethod
    def from_dataset(
        cls, dataset: Any, *, classes: Sequence[str] | None = None, name: str | None = None
    ) -> ImageSet:
        """Read every ``(image, label)`` pair of a torchvision-style dataset into memory.

        Args:
            dataset: Has ``__len__`` and ``__getitem__``. Images may be PIL images, uint8 arrays
                (H, W, 3), uint8 tensors (3, H, W) or float tensors (3, H, W) in 0..1; all of one
                size.
            classes: Class names; ``dataset.classes`` unless given.
            name: Name for reports; the dataset's class name unless given.

        Raises:
            InputError: An image is of another kind, or sizes differ.
        """
        names = classes if classes is not None else getattr(dataset, "classes", None)
        images, labels = [], []
        for index in range(len(dataset)):
            image, label = dataset[index]
            images.append(to_uint8(image))
            labels.append(int(label))
        if not images:
            raise InputError("an image set needs at least one image; the dataset is empty")
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise InputError(f"all images must have one size; got {sorted(shapes)[:3]}")
        if names is None:
            names = [str(label) for label in range(max(labels) + 1)]
        return cls(
            torch.stack(images),
            torch.tensor(labels),
            tuple(names),
            name or type(dataset).__name__,
        )


def to_uint8(image: Any) -> Tensor:
    """Convert one image to uint8 (3, H, W).

    Args:
        image: PIL image of any mode, uint8 array (H, W), (H, W, 3) or (H, W, 4), uint8 tensor
            (3, H, W), or float tensor (3, H, W) in 0..1.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise InputError(
                f"an image tensor must have shape (3, height, width); got {tuple(image.shape)}"
            )
        if image.dtype == torch.uint8:
            return image
        if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):
            raise InputError(
                f"an image tensor must be uint8 in 0..255 or float in 0..1, not normalized; got "
                f"{image.dtype} in {float(image.min()):.4g}..{float(image.max()):.4g}"
            )
        return (image * 255).round().to(torch.uint8)
    if hasattr(image, "convert"):  # a PIL image
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise InputError(
            f"an image array must be uint8 (height, width, 3) in 0..255; "
            f"got {array.dtype} {array.shape}"
        )
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.shape[2] not in (3, 4):
        raise InputError(f"an image array must have 3 channels, last; got {array.shape}")
    # copied: PIL hands out read-only arrays, which torch warns about
    return torch.from_numpy(array[:, :, :3].copy()).permute(2, 0, 1)
