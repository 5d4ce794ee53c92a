from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cifarzoo import ImageSet
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.recipe.augmentation.operations import (
    OPERATIONS,
    apply_in_turn,
    apply_operations,
    erase,
)

MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ROUNDED = ("Brightness", "Color", "Contrast", "Sharpness", "AutoContrast", "Hue")


def number(name: str) -> int:
    return OPERATIONS.index(name)


def torchvision(name: str, images: Tensor, magnitude: float, fill: object = None) -> Tensor:
    """What torchvision's policies do with one operation."""
    if name == "Hue":
        return reference.adjust_hue(images, magnitude)
    return v2.AutoAugment()._apply_image_or_video_transform(
        images, name, magnitude, "nearest", {torch.Tensor: fill}
    )


def used_magnitudes(name: str) -> list[float]:
    """All that TrivialAugment, RandAugment and AutoAugment use, or a range of turns of the hue."""
    if name == "Hue":
        return [turn / 40 for turn in range(-20, 21)]
    found = set()
    for policy, bins in ((v2.TrivialAugmentWide, 31), (v2.RandAugment, 31), (v2.AutoAugment, 10)):
        values, is_signed = policy._AUGMENTATION_SPACE.get(name, (lambda *_: None, False))
        rising = values(bins, 32, 32)
        strengths = [0.0] if rising is None else [float(value) for value in rising]
        found |= {*strengths, *(-value for value in strengths if is_signed)}
    whole = name in ("TranslateX", "TranslateY", "Posterize")
    return sorted({float(int(value)) for value in found} if whole else found)


def alone(name: str, images: Tensor, magnitude: float, fill: int | Sequence[int] = 0) -> Tensor:
    """One operation on all images."""
    operations = torch.full((len(images),), number(name))
    magnitudes = torch.full((len(images),), magnitude)
    return apply_operations(images, operations, magnitudes, fill=fill)


def assert_close(name: str, found: Tensor, expected: Tensor) -> None:
    """Equal, or within one level where values are rounded.

    A place right between two pixels may be rounded to either.
    """
    assert found.shape == expected.shape
    differs = int(((found.short() - expected.short()).abs() > (name in ROUNDED)).sum())
    assert differs <= (found.numel() // 1000 if name in ("ShearX", "ShearY", "Rotate") else 0)


@pytest.fixture(scope="module")
def images(sample_test: ImageSet) -> Tensor:
    return sample_test.images[:64]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_equals_torchvision_at_every_magnitude_it_uses(
    name: str, images: Tensor
) -> None:
    for strength in used_magnitudes(name):
        assert_close(name, alone(name, images, strength), torchvision(name, images, strength))


def test_a_mixed_batch_equals_torchvision_on_one_image_at_a_time(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    operations = torch.arange(64) % len(OPERATIONS)
    chosen = [used_magnitudes(OPERATIONS[operation]) for operation in operations]
    picks = torch.rand(64, generator=generator)
    magnitudes = torch.tensor([c[int(p * len(c))] for c, p in zip(chosen, picks, strict=True)])
    shuffled = torch.randperm(64, generator=generator)
    operations, magnitudes = operations[shuffled], magnitudes[shuffled]
    found = apply_operations(images, operations, magnitudes)
    for image, changed, operation, magnitude in zip(
        images, found, operations, magnitudes, strict=True
    ):
        name = OPERATIONS[operation]
        expected = torchvision(name, image, float(magnitude))
        assert_close(name, changed, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_images_need_not_be_square(name: str, images: Tensor) -> None:
    wide = images[:, :, 5:25]
    strength = used_magnitudes(name)[-5 if len(used_magnitudes(name)) > 5 else 0]
    assert_close(name, alone(name, wide, strength), torchvision(name, wide, strength))


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("fill", [7, [0, 128, 255]])
def test_pixels_from_outside_take_the_given_colour(
    name: str, fill: int | list[int], images: Tensor
) -> None:
    strength = used_magnitudes(name)[0]
    expected = torchvision(name, images, strength, fill)
    assert_close(name, alone(name, images, strength, fill), expected)
    assert not torch.equal(expected, torchvision(name, images, strength))


@pytest.mark.parametrize("name", OPERATIONS)
def test_flat_and_tiny_images_equal_torchvision(name: str) -> None:
    for side in (1, 2, 3):
        levels = torch.tensor([0, 1, 127, 254, 255], dtype=torch.uint8)
        flat = levels.view(-1, 1, 1, 1).repeat(1, 3, side, side)
        flat[:, 0, 0, 0] = 9
        strength = used_magnitudes(name)[-1]
        assert_close(name, alone(name, flat, strength), torchvision(name, flat, strength))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept_and_the_images_too(
    memory_format: torch.memory_format, images: Tensor
) -> None:
    given = images.to(memory_format=memory_format)
    operations, magnitudes = torch.arange(64) % len(OPERATIONS), torch.full((64,), 0.5)
    before = given.clone()
    found = apply_operations(given, operations, magnitudes)
    assert found.is_contiguous(memory_format=memory_format)
    assert torch.equal(found, apply_operations(images, operations, magnitudes))
    assert torch.equal(given, before)


def test_every_other_pixel_of_a_batch_can_be_changed(images: Tensor) -> None:
    strided = images[::2, :, ::2, ::2]
    changed = alone("Invert", strided, 0.0)
    assert torch.equal(changed, ~strided)


def test_autocast_changes_nothing(images: Tensor) -> None:
    operations, magnitudes = torch.arange(64) % len(OPERATIONS), torch.full((64,), 0.3)
    expected = apply_operations(images, operations, magnitudes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_operations(images, operations, magnitudes), expected)


def test_no_image_is_a_batch_too() -> None:
    none = torch.empty(0, 3, 32, 32, dtype=torch.uint8)
    empty = torch.empty(0, dtype=torch.int64)
    assert apply_operations(none, empty, empty.float()).shape == none.shape
    assert erase(none, empty, empty, empty, empty, value=none).shape == none.shape


def test_operations_in_turn_equal_one_after_the_other(images: Tensor) -> None:
    operations = torch.stack((torch.full((64,), number("Rotate")), torch.arange(64) % 16))
    magnitudes = torch.stack((torch.full((64,), 20.0), torch.full((64,), 0.4)))
    given = images.to(memory_format=torch.channels_last)
    found = apply_in_turn(given, operations, magnitudes, fill=9)
    once = apply_operations(images, operations[0], magnitudes[0], fill=9)
    assert torch.equal(found, apply_operations(once, operations[1], magnitudes[1], fill=9))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_float_images_are_refused_with_the_way_out(images: Tensor) -> None:
    draws = torch.zeros(64, dtype=torch.int64), torch.zeros(64)
    with pytest.raises(InputError, match="before the images are normalized"):
        apply_operations(images.float(), *draws)
    with pytest.raises(InputError, match=r"got torch\.uint8 \(64, 1, 32, 32\)"):
        apply_in_turn(images[:, :1], *(each[None] for each in draws))
    with pytest.raises(InputError, match="got ndarray"):
        apply_operations(images.numpy(), *draws)  # type: ignore[arg-type]


def test_draws_that_do_not_fit_are_refused(images: Tensor) -> None:
    operations, magnitudes = torch.zeros(64, dtype=torch.int64), torch.zeros(64)
    with pytest.raises(InputError, match="64 images need 64 operations"):
        apply_operations(images, operations[:2], magnitudes[:2])
    with pytest.raises(InputError, match="operations must be int64"):
        apply_operations(images, operations.float(), magnitudes)
    for wrong in (-1, len(OPERATIONS)):
        with pytest.raises(InputError, match=r"numbers in 0\.\.15"):
            apply_operations(images, operations + wrong, magnitudes)
    for fill in (-1, 256, 0.5, [1, 2], "black", True, None):
        with pytest.raises(ArgumentError, match="fill must be a whole number"):
            apply_operations(images, operations, magnitudes, fill=fill)  # type: ignore[arg-type]


rectangles = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


@given(st.lists(rectangles, min_size=1, max_size=6), st.integers(0, 255))
def test_erase_fills_exactly_the_rectangle(
    places: list[tuple[int, int, int, int]], level: int
) -> None:
    images = torch.randint(256, (len(places), 3, 5, 6), dtype=torch.uint8)
    expected = images.clone()
    for image, (top, left, height, width) in zip(expected, places, strict=True):
        image[:, top : top + height, left : left + width] = level
    value = torch.tensor(level, dtype=torch.uint8)
    given = images.clone()
    assert torch.equal(erase(given, *torch.tensor(places).T, value=value), expected)
    assert torch.equal(given, images)
