from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from cifarzoo import ImageSet
from cifarzoo.errors import ArgumentError, DuplicateNameError, InputError, UnknownNameError
from cifarzoo.recipe.augmentation import (
    adapt_transform,
    build_augmentation,
    check_augmentation,
    list_augmentations,
    register_augmentation,
)
from cifarzoo.recipe.augmentation import registry as augmentations
from cifarzoo.recipe.augmentation.draws import (
    draw_auto_augment,
    draw_color_jitter,
    draw_erasing,
    draw_rand_augment,
    draw_trivial_augment,
)
from cifarzoo.recipe.augmentation.operations import apply_in_turn, apply_operations, erase

OURS = ("auto_augment", "color_jitter", "rand_augment", "random_erasing", "trivial_augment")
STRONG: dict[str, dict[str, Any]] = {
    "color_jitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2},
    "random_erasing": {"probability": 1.0},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(sample_test: ImageSet) -> Tensor:
    return sample_test.images[:64].to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten when it ends."""
    monkeypatch.setattr(augmentations, "_FACTORIES", dict(augmentations._FACTORIES))


def test_the_augmentations_of_the_field_are_there() -> None:
    assert set(OURS) <= set(list_augmentations())
    assert list_augmentations() == sorted(list_augmentations())


@pytest.mark.parametrize("name", OURS)
def test_an_augmentation_is_a_function_of_images_and_generator(name: str, images: Tensor) -> None:
    augment = build_augmentation(name, **STRONG.get(name, {}))
    given, before = images.clone(), torch.get_rng_state()
    found = augment(images, seeded(1))
    assert (found.dtype, found.shape) == (torch.uint8, images.shape)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, augment(images, seeded(1)))
    assert not torch.equal(found, augment(images, seeded(2)))
    assert torch.equal(images, given)
    assert torch.equal(torch.get_rng_state(), before)
    assert augment(images[:0], seeded()).shape == (0, 3, 32, 32)
    assert augment(images[:, :, :20], seeded()).shape == (64, 3, 20, 32)


@pytest.mark.parametrize("name", OURS)
def test_equal_images_are_changed_in_different_ways(name: str, images: Tensor) -> None:
    augment = build_augmentation(name, **STRONG.get(name, {}))
    found = augment(images[:1].repeat(64, 1, 1, 1), seeded())
    assert len(found.flatten(1).unique(dim=0)) > 16


def _expected(images: Tensor) -> Iterator[tuple[str, dict[str, Any], Tensor]]:
    draws: Any = draw_trivial_augment(64, seeded(), num_magnitude_bins=5)
    options: dict[str, Any] = {"num_magnitude_bins": 5, "fill": [1, 2, 3]}
    yield "trivial_augment", options, apply_operations(images, *draws, fill=[1, 2, 3])
    options = {"num_ops": 3, "magnitude": 4, "num_magnitude_bins": 6}
    draws = draw_rand_augment(64, seeded(), size=(32, 30), **options)
    yield "rand_augment", {**options, "fill": 9}, apply_in_turn(images, *draws, fill=9)
    draws = draw_auto_augment(64, seeded(), size=(32, 30))
    yield "auto_augment", {"fill": 9}, apply_in_turn(images, *draws, fill=9)
    draws = draw_color_jitter(
        64,
        seeded(),
        brightness=(0.0, 2.5),
        contrast=(0.5, 1.5),
        saturation=(0.5, 2),
        hue=(-0.2, 0.2),
    )
    options = {"brightness": 1.5, "contrast": 0.5, "saturation": [0.5, 2], "hue": 0.2}
    yield "color_jitter", options, apply_in_turn(images, *draws)
    options = {"probability": 0.7, "scale": (0.1, 0.2), "ratio": (0.5, 2.0)}
    draws = draw_erasing(64, seeded(), size=(32, 30), **options)
    colour = torch.tensor([7, 8, 9], dtype=torch.uint8).view(3, 1, 1)
    options = {"probability": 0.7, "scale": [0.1, 0.2], "ratio": [0.5, 2.0], "value": [7, 8, 9]}
    yield "random_erasing", options, erase(images, *draws, value=colour)


def test_an_augmentation_carries_out_what_is_drawn(images: Tensor) -> None:
    images = images[:, :, :, :30]
    for name, options, expected in _expected(images):
        assert torch.equal(build_augmentation(name, **options)(images, seeded()), expected), name


def test_erasing_with_noise_draws_every_level(images: Tensor) -> None:
    flat = torch.full_like(images, 128)
    augment = build_augmentation("random_erasing", value="random", probability=1.0)
    found = augment(flat, seeded())
    rectangles = draw_erasing(64, seeded(), probability=1.0)
    black = erase(flat, *rectangles, value=torch.tensor(0, dtype=torch.uint8))
    assert (found[black == 128] == 128).all()
    noise = found[black == 0]
    assert torch.equal(noise.unique(), torch.arange(256, dtype=torch.uint8))
    assert abs(float(noise.float().mean()) - 127.5) < 2


def test_no_operation_leaves_the_images_as_they_are(images: Tensor) -> None:
    assert torch.equal(build_augmentation("rand_augment", num_ops=0)(images, seeded()), images)
    assert torch.equal(build_augmentation("color_jitter")(images, seeded()), images)
    erasing = build_augmentation("random_erasing", probability=0)
    assert torch.equal(erasing(images, seeded()), images)


def test_a_registered_augmentation_is_built_with_its_options(images: Tensor) -> None:
    @register_augmentation("shift")
    def shift(*, by: int = 1) -> Callable[[Tensor, torch.Generator], Tensor]:
        return lambda images, generator: images.roll(by, 3)

    assert "shift" in list_augmentations()
    assert torch.equal(build_augmentation("shift", by=3)(images, seeded()), images.roll(3, 3))
    with pytest.raises(DuplicateNameError, match="'shift' is already registered"):
        register_augmentation("shift")(shift)


def test_an_unknown_name_or_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'trivial_augment'"):
        build_augmentation("trivialaugment")
    with pytest.raises(ArgumentError, match="did you mean 'magnitude'"):
        check_augmentation("rand_augment", {"magnitud": 3})
    check_augmentation("rand_augment", {"magnitude": 3})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("trivial_augment", {"num_magnitude_bins": 1}, "num_magnitude_bins must be a whole"),
        ("trivial_augment", {"fill": 300}, "fill must be a whole number"),
        ("auto_augment", {"fill": [0, 0]}, "fill must be"),
        ("rand_augment", {"magnitude": 31}, r"magnitude must be a whole number in 0\.\.30; got 31"),
        ("rand_augment", {"num_ops": 1.5}, "num_ops must be a whole number in 0..100"),
        ("rand_augment", {"num_ops": True}, "num_ops"),
        ("color_jitter", {"brightness": -0.1}, "brightness must be a number or a rising pair"),
        ("color_jitter", {"contrast": [1.5, 0.5]}, "contrast must be"),
        ("color_jitter", {"saturation": float("nan")}, "saturation must be"),
        ("color_jitter", {"saturation": float("inf")}, "saturation must be"),
        ("color_jitter", {"hue": 0.6}, r"hue must be .* in \[-0.5, 0.5\]; got 0.6"),
        ("color_jitter", {"hue": "much"}, "hue must be"),
        ("color_jitter", {"hue": None}, "hue must be"),
        ("random_erasing", {"probability": 2}, "probability must be"),
        ("random_erasing", {"scale": 0.3}, "scale must be a rising pair"),
        ("random_erasing", {"scale": [0.3, 1.3]}, "scale must be"),
        ("random_erasing", {"ratio": [0, 1]}, "ratio must be"),
        ("random_erasing", {"value": "noise"}, 'value, unless "random", must be'),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build_augmentation(name, **options)


def test_a_factory_that_fails_is_an_argument_error() -> None:
    @register_augmentation("broken")
    def broken(*, level: int = 0) -> Any:
        return int("no number") if level else "no function"

    with pytest.raises(ArgumentError, match="'broken' cannot be built: invalid literal"):
        build_augmentation("broken", level=1)
    with pytest.raises(ArgumentError, match="built as a function of images and a generator"):
        build_augmentation("broken")


def test_normalized_images_are_refused(images: Tensor) -> None:
    for augment in (build_augmentation("random_erasing"), adapt_transform(torch.clone)):
        with pytest.raises(InputError, match="before the images are normalized"):
            augment(images / 255, seeded())


def test_a_torchvision_transform_draws_from_the_given_generator(images: Tensor) -> None:
    augment = adapt_transform(v2.Compose([v2.TrivialAugmentWide(), v2.RandomErasing(p=1.0)]))
    before = torch.get_rng_state()
    found = [augment(images, seeded(seed)) for seed in (1, 1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert len({tuple(each.flatten().tolist()) for each in found}) == 3
    torch.rand(1)  # the global generator is not looked at either
    assert torch.equal(augment(images, seeded(1)), found[0])


def test_a_torchvision_transform_does_the_same_to_a_whole_batch(images: Tensor) -> None:
    augment = adapt_transform(v2.RandAugment())
    found = augment(images[:1].repeat(8, 1, 1, 1), seeded())
    assert len(found.flatten(1).unique(dim=0)) == 1


def test_a_transform_must_return_a_batch_like_the_one_it_was_given(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"transform ToDtype must return uint8 .*torch\.float32"):
        adapt_transform(v2.ToDtype(torch.float32))(images, seeded())
    with pytest.raises(InputError, match=r"it returned torch\.uint8 \(64, 3, 8, 8\)"):
        adapt_transform(v2.CenterCrop(8))(images, seeded())
    with pytest.raises(InputError, match="it returned NoneType"):
        adapt_transform(lambda images: None)(images, seeded())  # type: ignore[arg-type,return-value]
    for wrong in (v2.RandAugment, "RandAugment"):
        with pytest.raises(ArgumentError, match="a transform is a function"):
            adapt_transform(wrong)  # type: ignore[arg-type]
