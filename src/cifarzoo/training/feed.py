"""From whatever holds the training data to batches a network can take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cifarzoo.card import Preprocessing
from cifarzoo.data import ImageSet, Loader
from cifarzoo.data.batches import Batches, as_pair, check_normalized, check_shape
from cifarzoo.errors import InputError
from cifarzoo.recipe import Recipe
from cifarzoo.training.distributed import World

__all__ = ["Feed", "Source"]

Source = ImageSet | Loader | Batches

_EVALUATION_BATCH = 1000


class Feed:
    """Batches of one data source, epoch after epoch, on the device and in the right dtype.

    Args:
        source: An `ImageSet`, a `Loader`, or any iterable of ``(images, labels)`` batches: uint8
            images (B, 3, H, W) are normalized here, float ones are taken as normalized.
        steps: Batches in an epoch; ``len(source)`` unless given.
        preprocessing: Normalization of uint8 images.
        device: Where batches go.
        dtype: Of the images.
    """

    def __init__(
        self,
        source: Loader | Batches,
        *,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        steps: int | None = None,
    ) -> None:
        self.source = source
        self._preprocessing = preprocessing
        self._device = device
        self._dtype = dtype
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise InputError(f"steps_per_epoch must be a positive whole number; got {steps!r}")
        self._has_fixed_steps = steps is not None
        self.steps = steps if steps is not None else _length(source)
        if self.steps < 1:
            raise InputError("the data has no batch; lower batch_size, or give it more images")
        self._running: Iterator[tuple[Tensor, Tensor]] | None = None
        self._is_normalized = isinstance(source, Loader)  # or else the first batch is looked at

    @classmethod
    def for_training(
        cls, source: Source, recipe: Recipe, world: World, *, steps: int | None, **place: Any
    ) -> Feed:
        """Batches of ``source`` as ``recipe`` wants them; each process gets its share."""
        if isinstance(source, ImageSet):
            source = Loader(
                source,
                batch_size=recipe.batch_size,
                augmentation=recipe.augmentation,
                shuffle=True,
                drop_last=True,
                generator=torch.Generator().manual_seed(recipe.seed),
                rank=world.rank,
                world_size=world.size,
                **place,
            )
        return cls(source, steps=steps, **place)

    @classmethod
    def for_evaluation(cls, source: Source, **place: Any) -> Feed:
        """Batches of ``source`` in order, unchanged but for the normalization.

        Raises:
            InputError: The source cannot be iterated once an epoch.
        """
        if isinstance(source, ImageSet):
            source = Loader(source, batch_size=_EVALUATION_BATCH, **place)
        if not hasattr(source, "__len__"):
            raise InputError(
                f"validation data is measured every epoch; {type(source).__name__} has no length: "
                "pass an ImageSet, a list of batches, a Loader or a DataLoader"
            )
        return cls(source, **place)

    def epoch(
        self, *, skip: int = 0, resumed_rng: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, without the first ``skip``.

        Args:
            skip: Batches that an interrupted run has had already.
            resumed_rng: State of torch's generator after them.

        Raises:
            InputError: The source ends early.
        """
        batches = self._iterate()
        if not self._is_stateful():  # a source with a state of its own continues by itself
            for _ in itertools.islice(batches, skip):
                pass
        if resumed_rng is not None:
            torch.set_rng_state(resumed_rng)
        count = skip
        for batch in itertools.islice(batches, self.steps - skip):
            images, labels = as_pair(batch)
            count += 1
            yield self._place(images), labels.to(self._device, non_blocking=True)
        if count < self.steps:
            raise InputError(
                f"the data ended after {count} of {self.steps} batches; pass something that can "
                "be iterated once an epoch, such as a list, a Loader or a DataLoader"
            )

    def again(self, count: int) -> Iterator[Tensor]:
        """Yield the images of batches that training has had or will have, ``count`` or a few more.

        What `epoch` yields later stays the same. There are none of a source with a stated number of
        steps: it may be a stream, which passes but once.
        """
        if self._has_fixed_steps:
            return
        state = self.state_dict()
        try:
            for batch in self.source:
                images, _ = as_pair(batch)
                yield self._place(images)
                count -= len(images)
                if count <= 0:
                    break
        finally:  # whoever asked may have enough earlier
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any] | None:
        """The source's own state, for those that have one, as our Loader does."""
        return self.source.state_dict() if self._is_stateful() else None  # type: ignore[union-attr]  # checked

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Let the source continue where ``state`` was taken."""
        if state is not None and self._is_stateful():
            self.source.load_state_dict(state)  # type: ignore[union-attr]  # checked

    def _is_stateful(self) -> bool:
        return hasattr(self.source, "state_dict") and hasattr(self.source, "load_state_dict")

    def _iterate(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self._has_fixed_steps:
            return iter(self.source)
        # with a stated number of steps the source may be longer or shorter than an epoch
        if self._running is None:
            self._running = _pass_after_pass(self.source)
        return self._running

    def _place(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            check_shape(images)  # normalizing would broadcast one channel to three
            images = self._preprocessing.normalize(images.to(self._device, non_blocking=True))
        elif not self._is_normalized:
            check_normalized(images)
            self._is_normalized = True
        return images.to(self._device, self._dtype, non_blocking=True)


def _length(source: Any) -> int:
    try:
        return len(source)
    except TypeError:
        raise InputError(
            f"{type(source).__name__} has no length; pass steps_per_epoch to fit()"
        ) from None


def _pass_after_pass(source: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of ``source`` over and over, until a pass has none."""
    is_left = True
    while is_left:
        is_left = False
        for batch in source:
            is_left = True
            yield batch
