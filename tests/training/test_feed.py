"""From data sources to batches on the device."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import PLAIN, InterruptAt, make_batches, make_trainer
from strategies import image_sets
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from cifarzoo import ImageSet, Loader
from cifarzoo.compute.place import Place
from cifarzoo.data.feed import Feed
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.training import loop
from cifarzoo.zoo.card import CIFAR10_PREPROCESSING, Preprocessing

PLACE: dict[str, Any] = {
    "preprocessing": CIFAR10_PREPROCESSING,
    "place": Place(torch.device("cpu")),
}


def numbered(count: int) -> list[tuple[Tensor, Tensor]]:
    """Float batches whose label tells which one it is."""
    return [(torch.zeros(1, 3, 4, 4), torch.tensor([number])) for number in range(count)]


def numbers(feed: Feed, **options: Any) -> list[int]:
    """The numbers of the batches of one epoch."""
    return [int(labels) for _, labels in feed.epoch(**options)]


def test_uint8_is_normalized_and_floats_are_taken_as_they_are() -> None:
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    other = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    labels = torch.zeros(2, dtype=torch.int64)
    place = {**PLACE, "preprocessing": other}
    feed = Feed([(images, labels), (images.float() / 100, labels)], **place)
    (first, _), (second, _) = feed.epoch()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (other.mean, other.std))
    torch.testing.assert_close(first, (images / 255 - mean) / std)
    assert torch.equal(second, images.float() / 100)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("set", ""),
        ("loader as the recipe", ""),
        ("loader", "(flip=random, cutout=4) is not applied, as a Loader makes its batches itself"),
        ("list", "(flip=random, cutout=4) is not applied, as a list makes"),
        ("another process", ""),
    ],
)
def test_an_augmentation_that_is_not_applied_is_told(
    kind: str, told: str, few: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = PLAIN.replace(augmentation={"flip": "random", "cutout": 4})
    augmentation = recipe.augmentation if kind == "loader as the recipe" else None
    rank = int(kind == "another process")
    share = {"rank": rank, "world_size": 2}
    loader = Loader(few, batch_size=50, augmentation=augmentation, **share)
    sources: dict[str, Any] = {"set": few, "list": make_batches(few)}
    Feed.for_training(sources.get(kind, loader), recipe, **PLACE, **share)
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)
    caplog.clear()
    Feed.for_training(sources.get(kind, loader), PLAIN, **PLACE, **share)
    assert not caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_have_the_runs_dtype(dtype: torch.dtype, few: ImageSet) -> None:
    place = {**PLACE, "place": Place(torch.device("cpu"), dtype)}
    sources = [Feed.for_validation(few, **place), Feed(make_batches(few), **place)]
    for feed in sources:
        images, labels = next(feed.epoch())
        assert (images.dtype, labels.dtype) == (dtype, torch.int64)


@given(images=image_sets())
def test_evaluation_sees_every_image_once_in_order(images: ImageSet) -> None:
    batches = list(Feed.for_validation(images, **PLACE).epoch())
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)
    seen = torch.cat([batch for batch, _ in batches])
    torch.testing.assert_close(seen, CIFAR10_PREPROCESSING.normalize(images.images))


def test_evaluation_of_a_large_set_is_cut_into_batches(sample_train: ImageSet) -> None:
    feed = Feed.for_validation(sample_train, **PLACE)
    assert [len(labels) for _, labels in feed.epoch()] == [1000, 1000]


def test_training_shuffles_by_the_recipes_seed(few: ImageSet) -> None:
    def order(seed: int) -> list[int]:
        recipe = PLAIN.replace(seed=seed)
        feed = Feed.for_training(few, recipe, **PLACE)
        return torch.cat([labels for _, labels in feed.epoch()]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != few.labels.tolist()
    assert sorted(order(0)) == sorted(few.labels.tolist())


@pytest.mark.parametrize("size", [2, 5])
def test_processes_share_every_batch(size: int, few: ImageSet) -> None:
    alone = Feed.for_training(few, PLAIN, **PLACE)
    shares = [
        Feed.for_training(few, PLAIN, rank=rank, world_size=size, **PLACE) for rank in range(size)
    ]
    for (images, _), *parts in zip(alone.epoch(), *(s.epoch() for s in shares), strict=True):
        union = torch.cat([part for part, _ in parts])
        assert len(union) == 50
        assert torch.equal(union.sum((1, 2, 3)).sort().values, images.sum((1, 2, 3)).sort().values)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_divide_what_is_validated(size: int, few: ImageSet) -> None:
    feeds = [Feed.for_validation(few, rank=rank, world_size=size, **PLACE) for rank in range(size)]
    parts = [torch.cat([images for images, _ in feed.epoch()]) for feed in feeds]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    alone = torch.cat([images for images, _ in Feed.for_validation(few, **PLACE).epoch()])
    sums = [torch.cat(parts).sum((1, 2, 3)), alone.sum((1, 2, 3))]
    assert torch.equal(*(x.sort().values for x in sums))


@given(length=st.integers(1, 6), steps=st.integers(1, 10), epochs=st.integers(1, 4))
def test_with_stated_steps_the_source_goes_round(length: int, steps: int, epochs: int) -> None:
    feed = Feed(numbered(length), steps=steps, **PLACE)
    seen = [number for _ in range(epochs) for number in numbers(feed)]
    assert seen == [i % length for i in range(epochs * steps)]


@given(length=st.integers(1, 6), data=st.data())
def test_a_resumed_epoch_leaves_out_what_was_seen(length: int, data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, length))
    assert numbers(Feed(numbered(length), **PLACE), skip=skip) == list(range(skip, length))


def test_a_source_with_a_state_is_not_skipped() -> None:
    class Stateful:
        """Goes on by itself where it is told to."""

        next = 0

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield from numbered(5)[self.next :]

        def state_dict(self) -> dict[str, int]:
            return {"next": self.next}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.next = state["next"]

    feed = Feed(Stateful(), **PLACE)
    feed.load_state_dict({"next": 2})
    assert feed.state_dict() == {"next": 2}
    assert numbers(feed, skip=2) == [2, 3, 4]


def test_a_source_without_a_state_has_none(few: ImageSet) -> None:
    feed = Feed(numbered(2), **PLACE)
    feed.load_state_dict({"ignored": 1})
    assert feed.state_dict() is None
    assert Feed(Loader(few, batch_size=50), **PLACE).state_dict() is not None


def test_the_generators_state_is_set_after_the_skipped_batches() -> None:
    def drawing() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in numbered(3):
            torch.rand(1)
            yield batch

    class Drawing:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return drawing()

    with torch.random.fork_rng(devices=[]):
        state = torch.Generator().manual_seed(9).get_state()
        batches = Feed(Drawing(), **PLACE).epoch(skip=2, resumed_rng=state)
        next(batches)
        expected = torch.Generator().manual_seed(9)
        torch.rand(1, generator=expected)  # the third batch's draw
        assert torch.equal(torch.rand(4), torch.rand(4, generator=expected))


def test_an_iterator_is_not_begun_anew_when_it_ends() -> None:
    feed = Feed(iter(numbered(5)), steps=3, **PLACE)
    assert numbers(feed) == [0, 1, 2]
    with pytest.raises(InputError, match="ended after 2 of 3 batches"):
        numbers(feed)


def test_an_endless_generator_is_not_read_ahead() -> None:
    source = itertools.cycle(numbered(10))
    numbers(Feed(source, steps=3, **PLACE))
    assert int(next(source)[1]) == 3


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_no_steps_are_refused(steps: Any) -> None:
    with pytest.raises(InputError, match="steps_per_epoch must be a positive whole number"):
        Feed(numbered(3), steps=steps, **PLACE)


def test_a_stated_length_starts_a_pass_only_when_the_last_is_over() -> None:
    class Counting(list[tuple[Tensor, Tensor]]):
        passes = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.passes += 1
            return super().__iter__()

    source = Counting(numbered(3))
    feed = Feed(source, steps=2, **PLACE)
    assert [numbers(feed) for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]
    assert source.passes == 2


def test_a_stated_length_of_nothing_ends() -> None:
    with pytest.raises(InputError, match="the data ended after 0 of 3 batches"):
        numbers(Feed([], steps=3, **PLACE))


def test_validation_data_without_a_length_is_refused() -> None:
    with pytest.raises(InputError, match="validation data is measured every epoch; list_iterator"):
        Feed.for_validation(iter(numbered(3)), **PLACE)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(numbered(3))


def test_a_dataloader_of_a_stream_has_no_length() -> None:
    """The class has a __len__, which asks the data set."""
    with pytest.raises(InputError, match="DataLoader has no length: pass an ImageSet, a list"):
        Feed.for_validation(DataLoader(Stream(), batch_size=None), **PLACE)


def test_processes_have_equal_shares_of_a_batch(few: ImageSet) -> None:
    """Means are averaged: an image of a smaller share would count more."""
    with pytest.raises(ArgumentError, match="batch_size must be a multiple of the 3 processes"):
        Feed.for_training(few, PLAIN, rank=0, world_size=3, **PLACE)
    assert Feed.for_training(few, PLAIN, rank=1, world_size=2, **PLACE).steps == 4


@pytest.mark.parametrize(
    ("share", "world", "trains", "validates"),
    [
        ((0, 1), (0, 1), True, True),
        ((1, 2), (1, 2), True, True),
        ((0, 1), (1, 2), True, True),  # perhaps it has images of its own
        ((0, 2), (1, 2), False, False),
        ((0, 2), (0, 1), False, False),  # half of the images would be left out
    ],
)
def test_a_loader_makes_the_share_of_its_process(
    share: tuple[int, int],
    world: tuple[int, int],
    trains: bool,
    validates: bool,
    few: ImageSet,
) -> None:
    loader = Loader(few, batch_size=50, rank=share[0], world_size=share[1])
    place = {**PLACE, "rank": world[0], "world_size": world[1]}
    for is_right, feed in (
        (trains, functools.partial(Feed.for_training, loader, PLAIN, **place)),
        (validates, functools.partial(Feed.for_validation, loader, **place)),
    ):
        message = f"the Loader makes share {share[0]} of {share[1]}, and this is process {world[0]}"
        with nullcontext() if is_right else pytest.raises(ArgumentError, match=message):
            feed()


def test_batches_without_shares_are_told_of(
    few: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    world = {"rank": 0, "world_size": 2}
    data: Any = few
    shared: Any = DataLoader(
        data, batch_size=50, sampler=DistributedSampler(data, num_replicas=2, rank=0)
    )
    own = Loader(few, batch_size=50)
    whole: Any = DataLoader(data, batch_size=50)
    for source in (shared, DataLoader(Stream(), batch_size=None), make_batches(few)):
        Feed.for_training(source, PLAIN, **PLACE, **world, steps=3)
    for source in (own, whole):
        Feed.for_validation(source, **PLACE, **world)  # each measures all
        Feed.for_training(source, PLAIN, **PLACE, rank=1, world_size=2)
        assert not caplog.text
        Feed.for_training(source, PLAIN, **PLACE, **world)
        kind = type(source).__name__
        assert f"each of the 2 processes takes all batches of its {kind}, which is" in caplog.text
        caplog.clear()


class Told(list[Any]):
    """Batches that hear of epochs."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches)
        self.heard: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.heard.append(epoch)


@pytest.mark.parametrize(
    ("steps", "heard"), [(None, [0, 1, 2]), (2, [0, 1]), (10, [0, 1, 2, 3, 4, 5, 6, 7])]
)
def test_a_source_hears_of_its_passes(steps: int | None, heard: list[int]) -> None:
    """An order that is drawn anew within a pass would leave images out."""
    source = Told(numbered(4))
    feed = Feed(source, **PLACE, steps=steps)
    for number in range(3):
        assert [*feed.epoch(number=number)]
    assert source.heard == heard


class Unrelated(list[Any]):
    def set_epoch(self) -> None:
        raise AssertionError


class AlsoUnrelated(list[Any]):
    def set_epoch(self, epoch: int, step: int) -> None:
        raise AssertionError


@pytest.mark.parametrize("kind", [Unrelated, AlsoUnrelated])
def test_other_methods_of_that_name_are_let_alone(kind: type[list[Any]]) -> None:
    feed = Feed(kind(numbered(3)), **PLACE)
    assert numbers(feed, number=1) == [0, 1, 2]


@pytest.mark.parametrize("is_in_batches", [False, True])
def test_samplers_know_the_epoch(
    is_in_batches: bool, few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its number alone torch's DistributedSampler draws another order; in a resumed run, too."""
    monkeypatch.setattr(loop, "_TICK", 0.0)
    data: Any = few
    orders: list[list[int]] = []

    class Remembers(DistributedSampler[Any]):
        def __iter__(self) -> Iterator[Any]:
            order = [*super().__iter__()]
            orders.append(order)
            return iter(order)

    sampler: Any = Remembers(data, num_replicas=1, rank=0)
    how = (
        {"batch_sampler": BatchSampler(sampler, 50, drop_last=False)}
        if is_in_batches
        else {"sampler": sampler, "batch_size": 50}
    )
    loader: DataLoader[Any] = DataLoader(data, **how)
    trainer = make_trainer(PLAIN.replace(epochs=3), output=tmp_path / "run")
    trainer.fit(loader)
    assert len({tuple(order) for order in orders}) == 3
    whole = [*orders]
    orders.clear()
    options: Any = {"output": tmp_path / "other", "loggers": [InterruptAt(3, 2)]}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(PLAIN.replace(epochs=3), **options).fit(loader)
    make_trainer(PLAIN.replace(epochs=3), output=tmp_path / "other").fit(loader, resume=True)
    assert orders == [*whole, whole[2]]
