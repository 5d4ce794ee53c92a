from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import image_sets
from torch import Tensor
from torch.nn import functional as F

from cifarzoo import ImageSet
from cifarzoo.data.augment import (
    crop,
    crop_pixels,
    crop_rows,
    cut_out,
    downsample,
    flip_first,
    reflect_pad,
)


def padded_reference(images: Tensor, padding: int) -> Tensor:
    padded = F.pad(images.float(), (padding,) * 4, mode="reflect")
    return padded.to(images.dtype).permute(0, 2, 3, 1)


@given(image_sets(max_size=6), st.integers(0, 3))
def test_reflect_pad_equals_torch(images: ImageSet, padding: int) -> None:
    padded = reflect_pad(images.images, padding)
    assert padded.is_contiguous()
    assert padded.dtype == torch.uint8
    assert torch.equal(padded, padded_reference(images.images, padding))


@given(image_sets(max_size=6), st.integers(1, 4))
def test_crop_rows_are_runs_of_pixels(images: ImageSet, width: int) -> None:
    padded = reflect_pad(images.images, 1)
    pixels = padded.reshape(-1, 3)
    rows = crop_rows(padded, width)
    assert len(rows) == len(pixels) - width + 1
    for position in (0, len(rows) // 2, len(rows) - 1):
        assert torch.equal(rows[position], pixels[position : position + width].flatten())


def test_crop_rows_share_the_memory_of_the_images() -> None:
    padded = reflect_pad(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 1)
    assert crop_rows(padded, 4).data_ptr() == padded.data_ptr()


@given(image_sets(max_size=6), st.integers(0, 3), st.data())
def test_crop_equals_slicing_each_image(
    images: ImageSet, padding: int, data: st.DataObject
) -> None:
    size = images.images.shape[3]
    offset = st.integers(0, 2 * padding)
    picks = st.tuples(st.integers(0, len(images) - 1), offset, offset)
    chosen = data.draw(st.lists(picks, min_size=1, max_size=12))
    index, top, left = (torch.tensor(column) for column in zip(*chosen, strict=True))

    padded = reflect_pad(images.images, padding)
    crops = crop(padded, crop_rows(padded, size), index, top, left)

    reference = F.pad(images.images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    expected = [reference[i, :, t : t + size, x : x + size] for i, t, x in chosen]
    assert torch.equal(crops, torch.stack(expected))
    assert crops.permute(0, 2, 3, 1).is_contiguous()


@given(image_sets(max_size=8), st.data())
def test_flip_mirrors_the_first_images_only(images: ImageSet, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(images)))
    flipped = flip_first(images.images.clone(), count)
    assert torch.equal(flipped[:count], torch.flip(images.images[:count], dims=[-1]))
    assert torch.equal(flipped[count:], images.images[count:])


@given(image_sets(max_size=8))
def test_flip_twice_is_identity(images: ImageSet) -> None:
    once = flip_first(images.images.clone(), len(images))
    assert not torch.equal(once, images.images)
    assert torch.equal(flip_first(once, len(images)), images.images)


def test_flip_works_in_place() -> None:
    images = torch.arange(12.0).view(1, 3, 2, 2)
    assert flip_first(images, 1) is images
    assert images[0, 0].tolist() == [[1, 0], [3, 2]]


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=6),
)
def test_cut_out_zeroes_exactly_the_clipped_square(
    size: int, corners: list[tuple[int, int]]
) -> None:
    images = torch.ones(len(corners), 3, 6, 7)
    expected = images.clone()
    for image, (top, left) in zip(expected, corners, strict=True):
        image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    top, left = (torch.tensor(column) for column in zip(*corners, strict=True))
    assert cut_out(images, top, left, size) is images
    assert torch.equal(images, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_downsampling_averages_whole_images(dtype: torch.dtype) -> None:
    images = torch.full((2, 3, 32, 32), 0.5, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)
    small = downsample(images, 24)
    assert small.shape == (2, 3, 24, 24)
    assert small.dtype == dtype
    assert small.is_contiguous(memory_format=torch.channels_last)
    assert (small == 0.5).all()


def test_downsampling_is_antialiased_as_in_pillow() -> None:
    pixels = torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy())
    expected = np.asarray(picture.resize((20, 20), Image.Resampling.BILINEAR))
    found = downsample(pixels[None].float(), 20)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1.0)  # Pillow rounds twice


def test_images_of_the_right_size_are_left_alone() -> None:
    images = torch.zeros(1, 3, 32, 32)
    assert downsample(images, 32) is images


@given(image_sets(max_size=6), st.integers(0, 3), st.data())
def test_pixel_by_pixel_the_windows_are_the_same(
    images: ImageSet, padding: int, data: st.DataObject
) -> None:
    """The way of devices that would write out overlapping rows as a whole."""
    size, count = images.images.shape[3], len(images)
    padded = reflect_pad(images.images, padding)
    places = st.lists(st.integers(0, 2 * padding), min_size=count, max_size=count)
    top, left = (torch.tensor(data.draw(places)) for _ in range(2))
    index = torch.arange(count)
    expected = crop(padded, crop_rows(padded, size), index, top, left)
    first = (index * padded.shape[1] + top) * padded.shape[2] + left
    found = crop_pixels(padded, first, size)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
