"""From whatever holds images to batches a network can take: the one way, for all that computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cifarzoo.compute.place import Place
from cifarzoo.data.batches import Batches, check_labels
from cifarzoo.data.checks import Checks
from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.loader import Loader, Transform, tell_what_is_not_applied
from cifarzoo.data.sharing import check_share, samplers_of, set_epoch
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import whole_number
from cifarzoo.recipe import Recipe
from cifarzoo.zoo.card import Preprocessing

__all__ = ["Feed", "Source"]

Source = ImageSet | Loader | Batches

_VALIDATION_BATCH = 1000


class Feed:
    """Batches of one data source, epoch after epoch, on the device and in the right dtype.

    Args:
        source: An `ImageSet`, a `Loader`, or any iterable of ``(images, labels)`` batches: uint8
            images (B, 3, H, W) are normalized here, float ones are taken as normalized.
        preprocessing: Normalization of uint8 images.
        place: Where batches go, and the dtype of the images.
        steps: Batches in an epoch; ``len(source)`` unless given.
        takes_soft: Whether labels may be shares of several classes, float (B, classes).
        needs_labels: Whether a batch must not be images alone.

    Raises:
        InputError: A `Loader` normalizes otherwise, or ``steps`` is no number of batches.
    """

    def __init__(
        self,
        source: Loader | Batches,
        *,
        preprocessing: Preprocessing,
        place: Place,
        steps: int | None = None,
        takes_soft: bool = False,
        needs_labels: bool = True,
    ) -> None:
        self.source = source
        self._preprocessing = preprocessing
        self._device, self._dtype = place.device, place.precision
        whole = whole_number(steps)
        if steps is not None and (whole is None or whole < 1):
            raise InputError(f"steps_per_epoch must be a positive whole number; got {steps!r}")
        self._fixed_steps = whole
        self._began: list[Tensor] = []  # states of generators, as an epoch began that is not over
        self._running: Iterator[tuple[Tensor, Tensor]] | None = None
        self._is_ours = isinstance(source, Loader)  # whose images and labels are known to be right
        if isinstance(source, Loader) and source.preprocessing != preprocessing:
            raise InputError(
                f"the Loader normalizes by {source.preprocessing}, and the network takes images "
                f"normalized by {preprocessing}: pass "
                "Loader(..., preprocessing=get_card(model).preprocessing), or the ImageSet itself"
            )
        self._numbers: Tensor | None = None  # of the labels in the model, where they differ
        self._outputs: int | None = None  # of the model
        self._checks = Checks(
            place.device, preprocessing, takes_soft=takes_soft, needs_labels=needs_labels
        )

    @classmethod
    def for_training(
        cls,
        source: Source,
        recipe: Recipe,
        *,
        preprocessing: Preprocessing,
        place: Place,
        steps: int | None = None,
        transform: Transform | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Feed:
        """Batches of ``source`` as ``recipe`` wants them; each process gets its share.

        Raises:
            ArgumentError: There is a ``transform``, and the source makes its batches itself; or the
                processes cannot have equal shares of a batch; or a Loader makes another share.
        """
        if isinstance(source, ImageSet):
            if recipe.batch_size % world_size:  # means of shares are averaged, whatever their size
                raise ArgumentError(
                    f"batch_size must be a multiple of the {world_size} processes, each of which "
                    f"takes an equal share; got {recipe.batch_size}"
                )
            source = Loader(
                source,
                batch_size=recipe.batch_size,
                augmentation=recipe.augmentation,
                shuffle=True,
                drop_last=True,
                generator=torch.Generator().manual_seed(recipe.seed),
                transform=transform,
                preprocessing=preprocessing,
                device=place.device,
                dtype=place.precision,
                rank=rank,
                world_size=world_size,
                kernels=place.kernels,
            )
        elif transform is not None:
            raise ArgumentError(
                f"transform changes the images of an ImageSet; a {type(source).__name__} makes its "
                "batches itself: transform them there"
            )
        else:
            check_share(source, rank, world_size)
            if rank == 0:
                tell_what_is_not_applied(recipe.augmentation, source)
        feed = cls(source, preprocessing=preprocessing, place=place, steps=steps, takes_soft=True)
        feed.check_length()
        return feed

    @classmethod
    def for_validation(
        cls,
        source: Source,
        *,
        preprocessing: Preprocessing,
        place: Place,
        rank: int = 0,
        world_size: int = 1,
    ) -> Feed:
        """Batches of ``source`` in order, unchanged but for the normalization, epoch after epoch.

        Of an ImageSet each process gets its own share.

        Raises:
            InputError: The source cannot be iterated once an epoch.
            ArgumentError: A Loader makes the share of another process.
        """
        if isinstance(source, ImageSet):
            if len(source) >= world_size > 1:
                source = ImageSet(
                    source.images[rank::world_size],
                    source.labels[rank::world_size],
                    source.classes,
                )
            source = _in_order(source, _VALIDATION_BATCH, preprocessing, place)
        else:
            check_share(source, rank, world_size, may_have_all=True)
        try:
            len(source)  # type: ignore[arg-type]  # asked whether it has one
        except TypeError:  # also of a DataLoader, by what it loads
            raise InputError(
                f"validation data is measured every epoch; {type(source).__name__} has no length: "
                "pass an ImageSet, a list of batches, or a Loader or DataLoader that has one"
            ) from None
        feed = cls(source, preprocessing=preprocessing, place=place)
        feed.check_length()
        return feed

    @classmethod
    def for_inference(
        cls, source: Any, *, preprocessing: Preprocessing, place: Place, batch_size: int
    ) -> Feed:
        """Batches of ``source`` in order, for `once`; it may be a tensor of images too.

        Raises:
            InputError: It holds no images.
        """
        if isinstance(source, ImageSet):
            source = _in_order(source, batch_size, preprocessing, place)
        elif isinstance(source, Tensor) and source.ndim == 4:
            source = torch.split(source, batch_size)
        elif not isinstance(source, Iterable) or isinstance(source, str | bytes | Tensor):
            raise InputError(
                f"evaluation takes an ImageSet or batches (images, labels); got {source!r}: "
                "load_cifar10('test') gives one"
            )
        return cls(source, preprocessing=preprocessing, place=place, needs_labels=False)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self._fixed_steps if self._fixed_steps is not None else _length(self.source)

    def check_length(self) -> None:
        """Raise InputError when an epoch would have no batch."""
        if self.steps < 1:
            raise InputError("the data has no batch; lower batch_size, or give it more images")

    def once(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield all batches of the source, and None for the labels of those that have none."""
        for number, batch in enumerate(self.source, 1):
            yield self._place(batch, number)
        self.check_late()

    def check_columns(self, num_labels: int) -> None:
        """Raise InputError when labels so far were rows that tell another number of them apart."""
        self._checks.match(num_labels)

    def match(self, num_classes: int, numbers: Sequence[int] | None) -> None:
        """Learn what labels mean to the network; what `epoch` yields later has its numbers.

        Args:
            num_classes: Outputs of the network.
            numbers: For each label its number in the network; the labels themselves unless given.

        Raises:
            InputError: Labels that were rows tell another number of classes apart; or a label of a
                Loader has no output: its batches are not looked at singly.
        """
        self._numbers = None if numbers is None else torch.tensor(numbers, device=self._device)
        num_labels = num_classes if numbers is None else len(numbers)
        self._checks.match(num_labels)
        self._outputs = num_classes
        if isinstance(self.source, Loader):
            check_labels(self.source.labels, num_labels)

    def renumber(self, labels: Tensor) -> Tensor:
        """Labels (B,) of a batch that came before `match`, checked, by the network's numbers.

        Raises:
            InputError: A label has no output.
        """
        known = self._checks.num_labels
        if known is not None and not labels.is_floating_point():
            check_labels(labels, known)
        return self._translate(labels)

    def epoch(
        self, *, number: int | None = None, skip: int = 0, resumed_rng: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, without the first ``skip``.

        Args:
            number: Of the epoch, from 0, for sources that want to know it.
            skip: Batches that an interrupted run has had already.
            resumed_rng: State of torch's generator after them.

        Raises:
            InputError: The source ends early.
        """
        if number is not None and self._fixed_steps is None:
            set_epoch(self.source, number)
        self._began = [each.get_state() for each in self._generators()]
        batches = self._iterate()
        if not self.is_stateful:  # a source with a state of its own continues by itself
            for _ in itertools.islice(batches, skip):
                pass
        if resumed_rng is not None:
            torch.set_rng_state(resumed_rng)
        count = skip
        for batch in itertools.islice(batches, self.steps - skip):
            count += 1
            images, labels = self._place(batch, count)
            assert labels is not None  # which are needed here
            yield images, labels
        if count < self.steps:
            raise InputError(
                f"the data ended after {count} of {self.steps} batches; pass something that can "
                "be iterated once an epoch, such as a list, a Loader or a DataLoader"
            )
        self._began = []

    def again(self, count: int) -> Iterator[Tensor]:
        """Yield the images of batches that training has had or will have, ``count`` or a few more.

        What `epoch` yields later stays the same. There are none of batches of one's own with a
        stated number of steps: they may be a stream, which passes but once.
        """
        source = self.source
        if type(source) is Loader:  # a subclass may have a state of its own
            source = source.twin()
        elif self._fixed_steps is not None:
            return
        state = self.state_dict()
        try:
            for batch in source:
                images, _ = self._place(batch, 0)
                yield images
                count -= len(images)
                if count <= 0:
                    break
        finally:  # whoever asked may have enough earlier
            if source is self.source:
                self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any] | None:
        """The source's own state, for those that have one, as our Loader does.

        Of a DataLoader with generators of its own it is their states, within an epoch those at its
        beginning.
        """
        if self.is_stateful:
            return self.source.state_dict()  # type: ignore[union-attr]  # checked
        states = self._began or [each.get_state() for each in self._generators()]
        return {"generators": states} if states else None

    def can_take(self, state: dict[str, Any] | None) -> bool:
        """Whether ``state`` may have come from such a source; older ones lack generators."""
        if state is None:
            return not self.is_stateful
        return self.is_stateful or bool(self._generators())

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Let the source continue where ``state`` was taken."""
        if state is not None and self.is_stateful:
            self.source.load_state_dict(state)  # type: ignore[union-attr]  # checked
        elif state is not None and (generators := self._generators()):
            for generator, each in zip(generators, state["generators"], strict=True):
                generator.set_state(each)

    def _generators(self) -> list[torch.Generator]:
        """Those that a DataLoader and its samplers draw from, besides torch's global one.

        None of a source that keeps a state itself, or whose pass goes on from epoch to epoch.
        """
        if self.is_stateful or self._fixed_steps is not None:
            return []
        found = [getattr(each, "generator", None) for each in samplers_of(self.source)]
        # each once
        return [*{id(each): each for each in found if isinstance(each, torch.Generator)}.values()]

    @property
    def is_stateful(self) -> bool:
        """Whether the source has a state of its own, from which it can go on."""
        return hasattr(self.source, "state_dict") and hasattr(self.source, "load_state_dict")

    def _iterate(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._fixed_steps is None:
            return iter(self.source)
        # with a stated number of steps the source may be longer or shorter than an epoch
        if self._running is None:
            self._running = _pass_after_pass(self.source)
        return self._running

    def check_late(self) -> None:
        """Raise InputError when a batch that came on an accelerator was wrong; waits for it."""
        self._checks.check_noted()

    def _place(self, batch: Any, number: int) -> tuple[Tensor, Tensor | None]:
        """The batch on the device, normalized, its labels by the model's numbers."""
        images: Tensor
        labels: Tensor | None
        images, labels = batch if self._is_ours else self._checks.take(batch, number)
        if images.dtype == torch.uint8:
            images = self._preprocessing.normalize(images.to(self._device, non_blocking=True))
        if labels is not None:
            labels = self._translate(labels.to(self._device, non_blocking=True))
        return images.to(self._device, self._dtype, non_blocking=True), labels

    def _translate(self, labels: Tensor) -> Tensor:
        """Labels, or shares of classes, by the network's numbers."""
        if self._numbers is None:
            return labels
        if not labels.is_floating_point():
            return self._numbers[labels]
        outputs = int(self._numbers.max()) + 1 if self._outputs is None else self._outputs
        return labels.new_zeros(len(labels), outputs).index_copy(1, self._numbers, labels)


def _in_order(
    images: ImageSet, batch_size: int, preprocessing: Preprocessing, place: Place
) -> Loader:
    return Loader(
        images,
        batch_size=batch_size,
        preprocessing=preprocessing,
        device=place.device,
        dtype=place.precision,
        kernels=place.kernels,
    )


def _length(source: Any) -> int:
    try:
        return len(source)
    except TypeError:
        raise InputError(
            f"{type(source).__name__} has no length; pass steps_per_epoch to fit()"
        ) from None


def _pass_after_pass(source: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of ``source`` over and over, until a pass has none."""
    is_left, passes = True, itertools.count()
    while is_left:
        is_left = False
        set_epoch(source, next(passes))
        for batch in source:
            is_left = True
            yield batch
