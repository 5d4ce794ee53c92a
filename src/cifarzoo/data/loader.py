"""Batches from memory: gathered, augmented and normalized without per-image work."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from cifarzoo.compute.cpu.windows import windows, windows_takes
from cifarzoo.compute.place import Device, Place
from cifarzoo.data.augment import crop, crop_rows, cut_out, flip_first, reflect_pad
from cifarzoo.data.imageset import ImageSet
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import check_count, check_kind, whole_number
from cifarzoo.plain import problem_of, shorten
from cifarzoo.recipe import Augmentation
from cifarzoo.recipe.augmentation import adapt_transform
from cifarzoo.zoo.card import CIFAR10_PREPROCESSING, Preprocessing
from cifarzoo.zoo.facts import Count

__all__ = ["Loader", "Transform", "tell_what_is_not_applied"]

_log = logging.getLogger("cifarzoo")

Transform = Callable[[Tensor], Tensor]
"""From uint8 images (B, 3, H, W) to the same."""


class _State(TypedDict):
    """Where an iteration stands."""

    epoch: Count
    next_batch: Count
    generator: Any


@dataclasses.dataclass(frozen=True)
class _Plan:
    """All random draws of one epoch, in the order of the batches."""

    index: Tensor  # int64 (N,): which image
    top: Tensor  # int64 (N,): first row of its window in the padded image
    left: Tensor  # int64 (N,): first column
    flips: list[int]  # images to mirror in each batch; they come first
    cutout: tuple[Tensor, Tensor] | None  # int64 (N,) each: corner of the square
    light: Tensor | None  # float32 (2, N, 1): factor and shift of the normalized pixels
    bounds: list[tuple[int, int]]  # where each batch lies in the tensors above
    seed: int  # of the augmentations by name, which draw for each batch


class Loader:
    """Iterates over an `ImageSet` in batches of normalized images, on any device.

    The set stays uint8 in memory. All random numbers of an epoch are drawn from the
    generator when the epoch begins. So an epoch depends on the generator's state alone, can be
    continued in its middle, and is divided among processes without messages between them.

    Args:
        images: The set.
        batch_size: Number of images in a batch, over all processes together.
        augmentation: Random changes of the images; none unless given.
        transform: A further change of each batch, after the augmentation: any function from uint8
            (B, 3, H, W) to the same, such as one of torchvision's v2 transforms; see
            `adapt_transform`.
        preprocessing: Normalization; CIFAR-10's unless given.
        shuffle: Whether each epoch has a new order.
        drop_last: Whether to leave out a last batch that is not full.
        device: Device on which the set is held and batches are made.
        dtype: Dtype of the batches: float32, bfloat16 or float16.
        channels_last: Whether batches have the memory format channels_last; otherwise they are
            contiguous.
        generator: Generator of all random numbers, on the CPU; a new one with seed 0 unless given.
        rank: Number of this process, 0..world_size-1.
        world_size: Number of processes; each takes its own share of every batch.
        kernels: Whether to make batches in one pass where the layers in C are compiled, see
            `cpu_kernels`. The batches are the same.

    Raises:
        ArgumentError: An argument is of another kind; ``batch_size`` is below 1, or larger than the
            set with ``drop_last``; the images are not square, not larger than ``crop_padding``, or
            fewer than the processes; ``rank`` is the number of no process.

    Example:
        >>> from cifarzoo import load_sample
        >>> loader = Loader(load_sample("test"), batch_size=250)
        >>> images, labels = next(iter(loader))
        >>> images.shape, images.dtype, len(loader)
        (torch.Size([250, 3, 32, 32]), torch.float32, 4)
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        transform: Transform | None = None,
        preprocessing: Preprocessing = CIFAR10_PREPROCESSING,
        shuffle: bool = False,
        drop_last: bool = False,
        device: Device = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
        kernels: bool = True,
    ) -> None:
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        check_kind("images", images, ImageSet, "ImageSet.from_dataset(dataset) makes one")
        check_kind("augmentation", self.augmentation, Augmentation)
        check_kind("preprocessing", preprocessing, Preprocessing)
        check_kind("generator", self.generator, torch.Generator)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ArgumentError(f"dtype must be a floating-point torch.dtype; got {shorten(dtype)}")
        self._changes = self.augmentation.build_policies()
        if transform is not None:
            self._changes.append(adapt_transform(transform))
        size, padding = images.images.shape[3], self.augmentation.crop_padding
        self.batch_size = whole_number(batch_size) or 0
        _check(images, batch_size, padding, drop_last, rank, world_size)
        self.preprocessing = preprocessing
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.device = Place.find(device, "float32").device
        self.dtype = dtype
        self.channels_last = channels_last
        self.rank, self.world_size = rank, world_size
        self.num_images = len(images)
        self.classes = images.classes
        self.labels = images.labels.to(self.device)
        self.kernels = kernels
        self._images = images.images.to(self.device)
        self._size, self._padding = size, padding
        # one scale and bias for each value of a row-major, channels-last image
        scale, bias = preprocessing.scale_and_bias()
        self._scale, self._bias = (x.repeat(size * size).to(self.device) for x in (scale, bias))
        # and what each of the 256 values of each channel becomes
        values = torch.arange(256)
        self._table = torch.addcmul(bias[:, None], values, scale[:, None]).to(dtype)
        self._epoch = 0
        self._next_batch = self._resume_at = 0
        self._epoch_state = self.generator.get_state()

    def __len__(self) -> int:
        """Batches in one epoch."""
        full, rest = divmod(self.num_images, self.batch_size)
        # every process must have a share of the last batch, or they would wait for each other
        return full + int(rest >= self.world_size and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(images, labels)``: normalized (B, 3, H, W) in ``dtype``, int64 (B,)."""
        first, self._resume_at = self._resume_at, 0
        if first == 0:
            self._epoch_state = self.generator.get_state()
        plan = self._draw()
        for batch in range(first, len(plan.bounds)):
            # counted before it is handed out: the caller may never come back for more
            is_last = batch + 1 == len(plan.bounds)
            self._next_batch = 0 if is_last else batch + 1
            self._epoch += is_last
            yield self._make(plan, batch)

    def twin(self) -> Loader:
        """Copy the Loader: the copy stands where this one does, and goes its own way.

        Of a subclass, what it adds is shared.
        """
        twin = copy.copy(self)
        twin.generator = torch.Generator().manual_seed(self.generator.initial_seed())
        twin.generator.set_state(self.generator.get_state())
        return twin

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration stands: the epoch, its random state and the next batch."""
        is_between = self._next_batch == 0
        return {
            "epoch": self._epoch,
            "next_batch": self._next_batch,
            "generator": self.generator.get_state() if is_between else self._epoch_state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration continue where ``state`` was taken, with the same draws.

        Raises:
            InputError: ``state`` is something else, or counts more batches; nothing is changed.
        """
        if problem := problem_of(state, _State):
            raise InputError(f"this is not the state of a Loader: {problem}")
        if state["next_batch"] >= len(self):
            raise InputError(f"next_batch {state['next_batch']} lies beyond {len(self)} batches")
        try:
            torch.Generator().set_state(state["generator"])
        except (RuntimeError, TypeError) as error:
            raise InputError(f"this is not the state of a Loader's generator: {error}") from error
        self._epoch = state["epoch"]
        self._next_batch = self._resume_at = state["next_batch"]
        self._epoch_state = state["generator"]
        self.generator.set_state(self._epoch_state)

    def _draw(self) -> _Plan:
        count, generator = self.num_images, self.generator
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        flip = self._draw_flips()
        places = 2 * self.augmentation.crop_padding + 1
        offset = torch.randint(places, (2, count), generator=generator) if places > 1 else None
        light = self._draw_light()
        side = self.augmentation.cutout
        corner = (
            torch.randint(self._size, (2, count), generator=generator) - side // 2 if side else None
        )
        seed = int(torch.randint(2**40, (), generator=generator)) if self._changes else 0
        shares = [
            order[start : start + self.batch_size][self.rank :: self.world_size]
            for start in range(0, len(self) * self.batch_size, self.batch_size)
        ]
        flips = [0] * len(shares)
        if flip is not None:
            chosen = [flip[share] for share in shares]
            flips = [int(c.sum()) for c in chosen]
            shares = [torch.cat((s[c], s[~c])) for s, c in zip(shares, chosen, strict=True)]
        index = torch.cat(shares)
        top, left = (offset[0][index], offset[1][index]) if offset is not None else (index * 0,) * 2
        return _Plan(
            index=index.to(self.device),
            top=top.to(self.device),
            left=left.to(self.device),
            flips=flips,
            cutout=None
            if corner is None
            else (corner[0][index].to(self.device), corner[1][index].to(self.device)),
            light=None if light is None else light[:, index].to(self.device),
            bounds=_bounds(shares),
            seed=seed,
        )

    def _draw_flips(self) -> Tensor | None:
        """Bool (N,): which images to mirror in this epoch."""
        if self.augmentation.flip == "none":
            return None
        if self.augmentation.flip == "random":
            return torch.rand(self.num_images, generator=self.generator) < 0.5
        # alternating: a side for each image, fixed by the seed, that changes with every epoch
        fixed = torch.Generator().manual_seed(self.generator.initial_seed())
        side = torch.rand(self.num_images, generator=fixed) < 0.5
        return side ^ bool(self._epoch % 2)

    def _draw_light(self) -> Tensor | None:
        """Float32 (2, N, 1): what each image is multiplied by, and what is then added to it."""
        contrast, brightness = self.augmentation.contrast, self.augmentation.brightness
        if not contrast and not brightness:
            return None
        drawn = torch.rand(2, self.num_images, 1, generator=self.generator) * 2 - 1
        return torch.stack((1 + contrast * drawn[0], brightness * drawn[1]))

    def _make(self, plan: _Plan, batch: int) -> tuple[Tensor, Tensor]:
        part = slice(*plan.bounds[batch])
        index = plan.index[part]
        in_one_pass = self.kernels and not self._changes and plan.light is None
        if in_one_pass and windows_takes(self._images, self.dtype):
            images = windows(
                self._images,
                index,
                (plan.top[part], plan.left[part]),
                self._table,
                padding=self._padding,
                mirrored=plan.flips[batch],
                square=plan.cutout and (plan.cutout[0][part], plan.cutout[1][part]),
                side=self.augmentation.cutout,
            )
        else:
            images = self._step_by_step(plan, batch)
        if not self.channels_last:
            images = images.contiguous()
        return images, self.labels.index_select(0, index)

    def _step_by_step(self, plan: _Plan, batch: int) -> Tensor:
        """The images of a batch in channels_last, by torch's operations."""
        part = slice(*plan.bounds[batch])
        index = plan.index[part]
        padded, rows = self._padded
        pixels = crop(padded, rows, index, plan.top[part], plan.left[part])
        pixels = flip_first(pixels, plan.flips[batch])
        if self._changes:
            # one for each batch and process, so that a run can go on in the middle of an epoch
            number = (plan.seed + batch) * self.world_size + self.rank
            generator = torch.Generator().manual_seed(number)
            for change in self._changes:
                pixels = change(pixels, generator)
        flat = pixels.permute(0, 2, 3, 1).reshape(len(index), -1)
        images = torch.addcmul(self._bias, flat, self._scale)
        if plan.light is not None:
            factor, shift = plan.light[:, part]
            images.mul_(factor).add_(shift)
        images = (
            images.to(self.dtype).view(len(index), self._size, self._size, 3).permute(0, 3, 1, 2)
        )
        if plan.cutout is not None:
            top, left = plan.cutout
            images = cut_out(images, top[part], left[part], self.augmentation.cutout)
        return images

    @functools.cached_property
    def _padded(self) -> tuple[Tensor, Tensor]:
        """All images, padded, and what `crop_rows` makes of them; one pass needs neither."""
        padded = reflect_pad(self._images, self._padding)
        return padded, crop_rows(padded, self._size)


def tell_what_is_not_applied(wanted: Augmentation, source: Any) -> None:
    """Log the augmentation of a recipe that batches of a Loader, or of one's own, do not have."""
    changes = wanted.changes()
    if not changes or (isinstance(source, Loader) and source.augmentation == wanted):
        return
    _log.warning(
        "the recipe's augmentation (%s) is not applied, as a %s makes its batches itself; pass the "
        "ImageSet, or take it out of the recipe by replace(augmentation=Augmentation())",
        ", ".join(f"{name}={value}" for name, value in changes.items()),
        type(source).__name__,
    )


def _bounds(shares: list[Tensor]) -> list[tuple[int, int]]:
    ends = torch.tensor([len(share) for share in shares]).cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _check(
    images: ImageSet, batch_size: int, padding: int, drop_last: bool, rank: int, world_size: int
) -> None:
    check_count("world_size", world_size)
    number = whole_number(rank)
    if number is None or not 0 <= number < world_size:
        raise ArgumentError(
            f"rank must be the number of a process, in 0..{world_size - 1}; got {shorten(rank)}"
        )
    if whole_number(batch_size) is None:
        raise ArgumentError(f"batch_size must be a whole number; got {shorten(batch_size)}")
    height, width = images.images.shape[2:]
    if height != width:
        raise ArgumentError(f"Loader needs square images; got {height}x{width}: resize them first")
    if padding >= width:
        raise ArgumentError(f"crop_padding must be below the image size {width}; got {padding}")
    if batch_size < world_size:
        least = f"the number of processes, {world_size}" if world_size > 1 else "1"
        raise ArgumentError(f"batch_size must be at least {least}; got {batch_size}")
    if len(images) < world_size:
        raise ArgumentError(
            f"{len(images)} images cannot be divided among {world_size} processes; use fewer"
        )
    if drop_last and batch_size > len(images):
        raise ArgumentError(
            f"batch_size {batch_size} with drop_last leaves no batch of {len(images)} images; "
            f"set batch_size={len(images)} or less"
        )
