from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import augmentations, image_sets
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from cifarzoo import Augmentation, ImageSet, Loader, Preprocessing, Recipe
from cifarzoo.errors import ArgumentError, InputError, UnknownNameError
from cifarzoo.zoo.card import CIFAR10_PREPROCESSING

Batch = tuple[Tensor, Tensor]

# batches of this one hold pixel / 255, from which the pixel can be read back
UNIT = Preprocessing((0, 0, 0), (1, 1, 1))
EVERYTHING = Augmentation(flip="random", crop_padding=2, cutout=3, contrast=0.2, brightness=0.2)


def numbered(images: ImageSet) -> ImageSet:
    """The same images, each labelled with its own position."""
    count = len(images)
    return ImageSet(images.images, torch.arange(count), tuple(str(i) for i in range(count)))


def made_up(count: int = 20, *, side: int = 6) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return numbered(ImageSet(pixels, torch.zeros(count, dtype=torch.int64), ("0",)))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels_of(batch: Tensor) -> Tensor:
    return (batch * 255).round().to(torch.uint8)


def by_position(batches: list[Batch]) -> Tensor:
    """All images of the batches, ordered by their labels."""
    order = torch.cat([labels for _, labels in batches]).argsort()
    return torch.cat([images for images, _ in batches])[order]


def is_same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(first, second, strict=True)
    )


@given(image_sets(), st.integers(1, 50), st.booleans(), augmentations())
def test_every_epoch_visits_each_image_once(
    images: ImageSet, batch_size: int, shuffle: bool, augmentation: Augmentation
) -> None:
    loader = Loader(
        numbered(images), batch_size=batch_size, shuffle=shuffle, augmentation=augmentation
    )
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        visited = torch.cat([labels for _, labels in batches])
        assert visited.sort().values.tolist() == list(range(len(images)))
        sizes = [len(labels) for _, labels in batches]
        assert sizes[:-1] == [batch_size] * (len(batches) - 1)
        assert [len(pixels) for pixels, _ in batches] == sizes


@given(image_sets(), st.integers(1, 50))
def test_drop_last_leaves_full_batches_only(images: ImageSet, batch_size: int) -> None:
    assume(batch_size <= len(images))
    loader = Loader(numbered(images), batch_size=batch_size, drop_last=True, shuffle=True)
    batches = list(loader)
    assert len(batches) == len(loader) == len(images) // batch_size
    assert {len(labels) for _, labels in batches} == {batch_size}
    assert max(Counter(torch.cat([labels for _, labels in batches]).tolist()).values()) == 1


def test_without_shuffle_the_images_come_in_order() -> None:
    images = made_up()
    loader = Loader(images, batch_size=7, preprocessing=UNIT)
    batches = list(loader)
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(20))
    assert torch.equal(pixels_of(torch.cat([pixels for pixels, _ in batches])), images.images)


def test_shuffle_gives_a_new_order_in_each_epoch() -> None:
    loader = Loader(made_up(), batch_size=20, shuffle=True)
    first, second = (next(iter(loader))[1].tolist() for _ in range(2))
    assert first != second
    assert list(range(20)) not in (first, second)


def test_labels_are_those_of_the_set() -> None:
    images = made_up()
    classes = tuple("abc")
    images = dataclasses.replace(images, labels=torch.arange(20) % 3, classes=classes)
    loader = Loader(images, batch_size=7, shuffle=True, preprocessing=UNIT)
    position = {bytes(image.flatten().tolist()): i for i, image in enumerate(images.images)}
    for batch, labels in loader:
        found = [position[bytes(image.flatten().tolist())] for image in pixels_of(batch)]
        assert labels.tolist() == [i % 3 for i in found]


def windows(image: Tensor, padding: int) -> Tensor:
    """Every window of the reflected image: uint8 ((2 padding + 1)^2, 3, S, S)."""
    size = image.shape[-1]
    padded = F.pad(image[None].float(), (padding,) * 4, mode="reflect")[0]
    every = padded.unfold(1, size, 1).unfold(2, size, 1)
    return every.permute(1, 2, 0, 3, 4).reshape(-1, 3, size, size).to(torch.uint8)


@given(
    image_sets(max_size=12),
    st.integers(0, 3),
    st.sampled_from(["none", "random", "alternating"]),
    st.integers(0, 2**32),
)
def test_every_crop_is_a_window_of_the_padded_image(
    images: ImageSet, padding: int, flip: str, seed: int
) -> None:
    augmentation = Augmentation(flip=flip, crop_padding=padding)  # type: ignore[arg-type]  # sampled from its values
    loader = Loader(
        numbered(images),
        batch_size=5,
        augmentation=augmentation,
        preprocessing=UNIT,
        shuffle=True,
        generator=seeded(seed),
    )
    for _ in range(2):
        for batch, labels in loader:
            for pixels, label in zip(pixels_of(batch), labels, strict=True):
                allowed = windows(images.images[label], padding)
                if flip != "none":
                    allowed = torch.cat([allowed, allowed.flip(3)])
                assert (allowed == pixels).flatten(1).all(1).any()


@given(image_sets(max_size=10), augmentations(), st.integers(0, 2**32))
def test_normalization_is_that_of_the_preprocessing(
    images: ImageSet, augmentation: Augmentation, seed: int
) -> None:
    augmentation = dataclasses.replace(augmentation, cutout=0, contrast=0.0, brightness=0.0)
    preprocessing = Preprocessing((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    plain, normalized = (
        list(
            Loader(
                images,
                batch_size=4,
                shuffle=True,
                augmentation=augmentation,
                preprocessing=chosen,
                generator=seeded(seed),
            )
        )
        for chosen in (UNIT, preprocessing)
    )
    mean, std = (
        torch.tensor(x, dtype=torch.float64).view(3, 1, 1)
        for x in (preprocessing.mean, preprocessing.std)
    )
    for (pixels, _), (batch, _) in zip(plain, normalized, strict=True):
        expected = (pixels_of(pixels).double() / 255 - mean) / std
        torch.testing.assert_close(batch.double(), expected, rtol=0, atol=2e-6)


def test_batches_equal_torchvisions_transforms(few: ImageSet) -> None:
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CIFAR10_PREPROCESSING.mean, CIFAR10_PREPROCESSING.std),
        ]
    )
    batch = torch.cat([images for images, _ in Loader(few, batch_size=64)])
    torch.testing.assert_close(batch, reference(few.images), rtol=0, atol=1e-6)


def test_batches_equal_the_normalization_of_the_preprocessing(few: ImageSet) -> None:
    batch, _ = next(iter(Loader(few, batch_size=200)))
    expected = CIFAR10_PREPROCESSING.normalize(few.images)
    torch.testing.assert_close(batch, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_batches_are_the_float32_batches_rounded(dtype: torch.dtype) -> None:
    full, half = (
        list(
            Loader(
                made_up(),
                batch_size=7,
                shuffle=True,
                augmentation=EVERYTHING,
                dtype=chosen,
                generator=seeded(1),
            )
        )
        for chosen in (torch.float32, dtype)
    )
    assert all(images.dtype == dtype for images, _ in half)
    assert is_same([(images.to(dtype), labels) for images, labels in full], half)


def test_memory_format_changes_the_layout_and_not_the_values() -> None:
    last, first = (
        list(
            Loader(
                made_up(),
                batch_size=7,
                shuffle=True,
                augmentation=EVERYTHING,
                channels_last=channels_last,
                generator=seeded(1),
            )
        )
        for channels_last in (True, False)
    )
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in last)
    assert all(x.is_contiguous() for x, _ in first)
    assert not any(x.is_contiguous() for x, _ in last)
    assert is_same(last, first)


def rectangle(zeros: Tensor) -> tuple[range, range]:
    """Rows and columns of the pixels that are 0; fails unless they form one rectangle."""
    rows, columns = zeros.any(1).nonzero().flatten(), zeros.any(0).nonzero().flatten()
    sides = [range(int(x.min()), int(x.max()) + 1) for x in (rows, columns)]
    assert int(zeros.sum()) == len(sides[0]) * len(sides[1])
    return sides[0], sides[1]


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_cutout_sets_one_clipped_square_to_zero(size: int, seed: int) -> None:
    white = dataclasses.replace(
        made_up(30, side=8), images=torch.full((30, 3, 8, 8), 255, dtype=torch.uint8)
    )
    loader = Loader(
        white, batch_size=30, augmentation=Augmentation(cutout=size), generator=seeded(seed)
    )
    (batch, _) = next(iter(loader))
    for image in batch:
        zeros = (image == 0).all(0)
        assert torch.equal(zeros, (image == 0).any(0))
        for side in rectangle(zeros):
            is_clipped = 0 in side or 7 in side
            assert len(side) == size or (is_clipped and size // 2 <= len(side) < size)


def test_cutout_centres_are_uniform_over_the_image() -> None:
    count, side = 5000, 5
    white = dataclasses.replace(
        made_up(count, side=side), images=torch.full((count, 3, side, side), 255).to(torch.uint8)
    )
    loader = Loader(white, batch_size=count, augmentation=Augmentation(cutout=1))
    (batch, _) = next(iter(loader))
    assert chi_square((batch[:, 0] == 0).sum(0).flatten()) < 60  # 24 degrees of freedom


def test_cutout_comes_after_the_crop_and_the_flip() -> None:
    images = made_up(50)
    plain, cut = (
        by_position(
            list(
                Loader(
                    images,
                    batch_size=20,
                    augmentation=dataclasses.replace(EVERYTHING, cutout=side),
                    generator=seeded(1),
                )
            )
        )
        for side in (0, 3)
    )
    assert bool(((cut == plain) | (cut == 0)).all())
    assert all(1 <= int((image == 0).all(0).sum()) <= 9 for image in cut)


@given(st.floats(0, 0.9), st.floats(0, 3), st.integers(0, 2**32))
def test_light_is_one_factor_and_one_shift_for_each_image(
    contrast: float, brightness: float, seed: int
) -> None:
    images = made_up(200, side=4)
    augmentation = Augmentation(contrast=contrast, brightness=brightness)
    plain, _ = next(iter(Loader(images, batch_size=200)))
    changed, _ = next(
        iter(Loader(images, batch_size=200, augmentation=augmentation, generator=seeded(seed)))
    )
    before, after = plain.flatten(1).double(), changed.flatten(1).double()
    factor = after.std(1) / before.std(1)
    shift = after.mean(1) - factor * before.mean(1)
    torch.testing.assert_close(after, factor[:, None] * before + shift[:, None], rtol=0, atol=1e-4)
    for drawn, middle, reach in ((factor, 1, contrast), (shift, 0, brightness)):
        assert float((drawn - middle).abs().max()) <= reach + 1e-4
        # of 200 draws some come near both ends
        assert float(drawn.max()) >= middle + 0.9 * reach - 1e-4
        assert float(drawn.min()) <= middle - 0.9 * reach + 1e-4


@given(image_sets(max_size=20), st.integers(0, 2**62), st.booleans())
def test_alternating_flip_mirrors_every_other_epoch(
    images: ImageSet, seed: int, shuffle: bool
) -> None:
    images = numbered(images)
    loader = Loader(
        images,
        batch_size=6,
        augmentation=Augmentation(flip="alternating"),
        preprocessing=UNIT,
        shuffle=shuffle,
        generator=seeded(seed),
    )
    epochs = [pixels_of(by_position(list(loader))) for _ in range(4)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert torch.equal(epochs[0].flip(3), epochs[1])
    is_original = (epochs[0] == images.images).flatten(1).all(1)
    assert torch.equal(epochs[0][is_original], images.images[is_original])
    assert torch.equal(epochs[1][~is_original], images.images[~is_original])


def test_alternating_flip_is_fixed_by_the_seed() -> None:
    first, again, other = (
        by_position(
            list(
                Loader(
                    made_up(),
                    batch_size=5,
                    augmentation=Augmentation(flip="alternating"),
                    generator=seeded(seed),
                )
            )
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_alternating_flip_starts_with_about_half_of_the_images() -> None:
    images = made_up(2000, side=4)
    loader = Loader(images, batch_size=2000, augmentation=Augmentation(flip="alternating"))
    assert 900 < count_mirrored(images, loader) < 1100


def test_random_flip_mirrors_about_half_of_the_images_anew_each_epoch() -> None:
    images = made_up(2000, side=4)
    loader = Loader(
        images,
        batch_size=300,
        augmentation=Augmentation(flip="random"),
        preprocessing=UNIT,
        shuffle=True,
    )
    first, second = (pixels_of(by_position(list(loader))) for _ in range(2))
    mirrored = [(epoch != images.images).flatten(1).any(1) for epoch in (first, second)]
    assert torch.equal(first[mirrored[0]], images.images[mirrored[0]].flip(3))
    for chosen in (mirrored[0], mirrored[1], mirrored[0] ^ mirrored[1]):
        assert 900 < int(chosen.sum()) < 1100


def count_mirrored(images: ImageSet, loader: Loader) -> int:
    plain = by_position(list(Loader(images, batch_size=len(images))))
    return int((by_position(list(loader)) != plain).flatten(1).any(1).sum())


def chi_square(counts: Tensor) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_crops_are_uniform_over_all_places() -> None:
    count, side, padding = 5000, 9, 2
    row = torch.arange(side).view(side, 1).expand(side, side)
    place = torch.stack([row, row.T, row * 0]).to(torch.uint8).expand(count, 3, side, side)
    images = numbered(ImageSet(place, torch.zeros(count, dtype=torch.int64), ("0",)))
    loader = Loader(
        images,
        batch_size=count,
        augmentation=Augmentation(crop_padding=padding),
        preprocessing=UNIT,
        shuffle=True,
    )
    (batch, _) = next(iter(loader))
    # the pixel in the middle tells which source pixel the window is centred on
    top, left, _ = (pixels_of(batch)[:, :, side // 2, side // 2].long() - (side // 2 - padding)).T
    counts = torch.bincount(top * 5 + left, minlength=25)
    assert len(counts) == 25
    assert chi_square(counts) < 60  # 24 degrees of freedom


@given(image_sets(max_size=15), augmentations(), st.integers(0, 2**62), st.integers(1, 6))
def test_same_seed_gives_the_same_epochs(
    images: ImageSet, augmentation: Augmentation, seed: int, batch_size: int
) -> None:
    first, second = (
        Loader(
            images,
            batch_size=batch_size,
            augmentation=augmentation,
            shuffle=True,
            generator=seeded(seed),
        )
        for _ in range(2)
    )
    for _ in range(2):
        assert is_same(list(first), list(second))


def test_other_seed_gives_other_epochs() -> None:
    first, second = (
        list(Loader(made_up(), batch_size=5, shuffle=True, generator=seeded(seed)))
        for seed in (0, 1)
    )
    assert not is_same(first, second)


def test_seed_is_zero_unless_given() -> None:
    default, zero = (
        list(Loader(made_up(), batch_size=5, shuffle=True, generator=generator))
        for generator in (None, seeded(0))
    )
    assert is_same(default, zero)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(flip="random"), Augmentation(crop_padding=1), EVERYTHING]
)
def test_draws_do_not_depend_on_the_batch_size(augmentation: Augmentation) -> None:
    small, large = (
        by_position(
            list(
                Loader(
                    made_up(),
                    batch_size=batch_size,
                    augmentation=augmentation,
                    shuffle=True,
                    generator=seeded(1),
                )
            )
        )
        for batch_size in (3, 20)
    )
    assert torch.equal(small, large)


@settings(max_examples=40)
@given(image_sets(max_size=15), augmentations(), st.integers(1, 6), st.data())
def test_loaded_state_continues_at_any_batch(
    images: ImageSet, augmentation: Augmentation, batch_size: int, data: st.DataObject
) -> None:
    def loader(seed: int) -> Loader:
        return Loader(
            images,
            batch_size=batch_size,
            augmentation=augmentation,
            shuffle=True,
            generator=seeded(seed),
        )

    interrupted, resumed = loader(7), loader(8)
    epochs = data.draw(st.integers(0, 2))
    batches = data.draw(st.integers(0, len(interrupted)))
    for _ in range(epochs):
        list(interrupted)
    iterator = iter(interrupted)
    for _ in range(batches):
        next(iterator)

    resumed.load_state_dict(interrupted.state_dict())
    rest = list(iterator) or list(interrupted)  # after the last batch comes the next epoch
    assert is_same(list(resumed), rest)
    for _ in range(2):
        assert is_same(list(resumed), list(interrupted))


def test_loaded_state_can_be_taken_again() -> None:
    loader, other = (
        Loader(made_up(), batch_size=5, shuffle=True, generator=seeded(seed)) for seed in (1, 2)
    )
    next(iter(loader))
    state = loader.state_dict()
    other.load_state_dict(state)
    again = other.state_dict()
    assert (again["epoch"], again["next_batch"]) == (state["epoch"], state["next_batch"]) == (0, 1)
    assert torch.equal(again["generator"], state["generator"])


def test_state_counts_epochs_and_batches() -> None:
    loader = Loader(made_up(), batch_size=5)
    seen = []
    for _ in range(2):
        for _ in loader:
            state = loader.state_dict()
            seen.append((state["epoch"], state["next_batch"]))
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


def test_state_survives_torch_save(tmp_path_factory: pytest.TempPathFactory) -> None:
    loader, other = (
        Loader(made_up(), batch_size=5, shuffle=True, generator=seeded(seed)) for seed in (1, 2)
    )
    iterator = iter(loader)
    next(iterator)
    path = tmp_path_factory.mktemp("state") / "state.pt"
    torch.save(loader.state_dict(), path)
    other.load_state_dict(torch.load(path, weights_only=True))
    assert is_same(list(other), list(iterator))


def test_abandoned_iteration_starts_a_fresh_epoch() -> None:
    loader = Loader(made_up(), batch_size=5, shuffle=True)
    abandoned = next(iter(loader))[1].tolist()
    fresh = list(loader)
    assert len(fresh) == len(loader)
    assert sorted(torch.cat([labels for _, labels in fresh]).tolist()) == list(range(20))
    assert fresh[0][1].tolist() != abandoned


@given(
    image_sets(max_size=20),
    augmentations(),
    st.sampled_from([2, 3]),
    st.integers(0, 6),
    st.booleans(),
)
def test_shards_together_form_the_batches_of_one_process(
    images: ImageSet, augmentation: Augmentation, world_size: int, more: int, drop_last: bool
) -> None:
    batch_size = world_size + more
    assume(len(images) >= (batch_size if drop_last else world_size))

    def loader(**place: int) -> Loader:
        return Loader(
            numbered(images),
            batch_size=batch_size,
            augmentation=augmentation,
            shuffle=True,
            drop_last=drop_last,
            generator=seeded(3),
            **place,
        )

    whole = loader()
    shards = [loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    for _ in range(2):
        together, alone = list(zip(*shards, strict=True)), list(whole)
        # a last batch with fewer images than processes is left out by all of them
        assert all(len(labels) < world_size for _, labels in alone[len(together) :])
        for parts, (pixels, labels) in zip(together, alone, strict=False):
            joined = torch.cat([part_labels for _, part_labels in parts])
            assert joined.sort().values.tolist() == labels.sort().values.tolist()
            assert torch.equal(by_position(list(parts)), by_position([(pixels, labels)]))
            sizes = [len(part_labels) for _, part_labels in parts]
            assert max(sizes) - min(sizes) <= 1


def test_iteration_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(Loader(made_up(), batch_size=5, shuffle=True, augmentation=EVERYTHING))
    assert torch.equal(torch.get_rng_state(), before)


def test_generator_is_drawn_from_by_iteration_alone() -> None:
    generator = seeded(1)
    before = generator.get_state()
    loader = Loader(made_up(), batch_size=5, shuffle=True, generator=generator)
    len(loader), loader.state_dict()
    iterator = iter(loader)
    assert torch.equal(generator.get_state(), before)
    next(iterator)
    assert not torch.equal(generator.get_state(), before)


def test_plain_iteration_draws_nothing() -> None:
    generator = seeded(1)
    before = generator.get_state()
    list(Loader(made_up(), batch_size=5, generator=generator))
    assert torch.equal(generator.get_state(), before)


def test_batches_are_independent_of_the_set() -> None:
    images = made_up()
    loader = Loader(images, batch_size=20, preprocessing=UNIT)
    for batch, labels in loader:
        batch.zero_()
        labels.zero_()
    batch, labels = next(iter(loader))
    assert torch.equal(pixels_of(batch), images.images)
    assert labels.tolist() == list(range(20))


def test_images_must_be_square() -> None:
    images = ImageSet(torch.zeros(1, 3, 4, 6, dtype=torch.uint8), torch.tensor([0]), ("0",))
    with pytest.raises(ArgumentError, match="square images; got 4x6: resize them first"):
        Loader(images, batch_size=1)


@pytest.mark.parametrize("padding", [6, 7])
def test_padding_must_be_below_the_image_size(padding: int) -> None:
    with pytest.raises(ArgumentError, match=f"below the image size 6; got {padding}"):
        Loader(made_up(), batch_size=1, augmentation=Augmentation(crop_padding=padding))


@pytest.mark.parametrize(("batch_size", "world_size"), [(0, 1), (-1, 1), (2, 3)])
def test_batch_size_must_give_each_process_an_image(batch_size: int, world_size: int) -> None:
    with pytest.raises(
        ArgumentError, match=rf"batch_size must be .*{world_size}; got {batch_size}"
    ):
        Loader(made_up(), batch_size=batch_size, world_size=world_size)


@pytest.mark.parametrize("rank", [-1, 2, 0.5, True])
def test_rank_must_be_the_number_of_a_process(rank: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"rank must be .*, in 0\.\.1; got {rank}"):
        Loader(made_up(), batch_size=2, rank=rank, world_size=2)


def test_set_must_give_each_process_an_image() -> None:
    with pytest.raises(ArgumentError, match="2 images cannot be divided among 3 processes"):
        Loader(made_up(2), batch_size=3, world_size=3)


def test_drop_last_needs_one_full_batch() -> None:
    with pytest.raises(ArgumentError, match="batch_size 21 with drop_last leaves no batch of 20"):
        Loader(made_up(), batch_size=21, drop_last=True)
    assert len(Loader(made_up(), batch_size=20, drop_last=True)) == 1


POLICIES = Augmentation(
    flip="random",
    crop_padding=2,
    policies=["trivial_augment", {"name": "random_erasing", "probability": 1.0}],
)


def test_augmentations_by_name_change_what_was_cropped_and_mirrored(few: ImageSet) -> None:
    """With the draws of the batch, as by hand."""
    plain = Augmentation(flip="random", crop_padding=2)
    loaders = [
        Loader(few, batch_size=50, augmentation=chosen, generator=torch.Generator().manual_seed(3))
        for chosen in (plain, POLICIES)
    ]
    mean, std = (
        torch.tensor(x).view(3, 1, 1)
        for x in (CIFAR10_PREPROCESSING.mean, CIFAR10_PREPROCESSING.std)
    )
    seed = None
    for number, ((before, _), (after, _)) in enumerate(zip(*loaders, strict=True)):
        pixels = ((before * std + mean) * 255).round().to(torch.uint8)
        if seed is None:  # drawn after flips and crops
            generator = torch.Generator().manual_seed(3)
            torch.rand(200, generator=generator)
            torch.randint(5, (2, 200), generator=generator)
            seed = int(torch.randint(2**40, (), generator=generator))
        generator = torch.Generator().manual_seed(seed + number)
        for policy in POLICIES.build_policies():
            pixels = policy(pixels, generator)
        torch.testing.assert_close(after, CIFAR10_PREPROCESSING.normalize(pixels))


def test_their_draws_are_new_each_epoch_and_the_same_for_a_seed(few: ImageSet) -> None:
    def epochs(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        loader = Loader(few, batch_size=50, augmentation=POLICIES, generator=generator)
        return [torch.cat([images for images, _ in loader]) for _ in range(2)]

    first, second = epochs(0)
    assert not torch.equal(first, second)
    assert all(map(torch.equal, epochs(0), (first, second)))
    assert not torch.equal(epochs(1)[0], first)


def test_a_resumed_epoch_draws_what_is_left(few: ImageSet) -> None:
    loader = Loader(few, batch_size=50, augmentation=POLICIES, shuffle=True)
    running = iter(loader)
    next(running)
    state = loader.state_dict()
    rest = [images for images, _ in running]
    again = Loader(few, batch_size=50, augmentation=POLICIES, shuffle=True)
    again.load_state_dict(state)
    assert all(map(torch.equal, rest, [images for images, _ in again]))


def test_processes_do_not_draw_alike(few: ImageSet) -> None:
    same = ImageSet(few.images[:1].expand(8, -1, -1, -1), few.labels[:1].expand(8), few.classes)
    only = Augmentation(policies=["trivial_augment"])
    shares = [
        next(iter(Loader(same, batch_size=8, augmentation=only, rank=rank, world_size=2)))[0]
        for rank in range(2)
    ]
    assert not torch.equal(*shares)


def test_any_function_of_uint8_batches_may_come_after(few: ImageSet) -> None:
    loader = Loader(few, batch_size=50, transform=lambda images: 255 - images)
    images, _ = next(iter(loader))
    torch.testing.assert_close(images, CIFAR10_PREPROCESSING.normalize(255 - few.images[:50]))
    wrong = Loader(few, batch_size=50, transform=lambda images: images.float())
    with pytest.raises(InputError, match="must return uint8"):
        next(iter(wrong))


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("trivial_augment", r"must be a list; got 'trivial_augment': write \['trivial_augment'\]"),
        (["trivialaugment"], "unknown augmentation 'trivialaugment'; did you mean"),
        ([5], "is its name, or a mapping with its name and options"),
        ([{"probability": 1}], "is its name, or a mapping with its name and options"),
        ([{"name": "random_erasing", "share": 1}], "unknown option 'share'"),
        ([{"name": "rand_augment", "num_ops": -1}], "num_ops must be"),
    ],
)
def test_wrong_policies_are_refused_by_the_recipe(policies: Any, message: str) -> None:
    with pytest.raises((ArgumentError, UnknownNameError), match=message):
        Augmentation(policies=policies)


def test_policies_are_kept_in_their_order() -> None:
    again = Recipe.from_dict(Recipe(augmentation=POLICIES).to_dict()).augmentation
    assert again == POLICIES
    assert hash(again) == hash(POLICIES)
    assert Augmentation(policies=POLICIES.policies[::-1]) != POLICIES
