"""Batches made in one pass by the layers in C."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import augmentations, image_sets

from cifarzoo import Augmentation, ImageSet, Loader
from cifarzoo.compute.cpu.windows import windows_takes

pytestmark = pytest.mark.usefixtures("built")


@given(
    image_sets(),
    augmentations(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.booleans(),
    st.integers(1, 50),
)
def test_batches_are_those_of_torchs_operations(
    images: ImageSet,
    augmentation: Augmentation,
    dtype: torch.dtype,
    channels_last: bool,
    batch_size: int,
) -> None:
    assert windows_takes(images.images, torch.float32)
    ours, torchs = (
        Loader(
            images,
            batch_size=batch_size,
            augmentation=augmentation,
            shuffle=True,
            dtype=dtype,
            channels_last=channels_last,
            kernels=kernels,
        )
        for kernels in (True, False)
    )
    for _ in range(2):
        for (found, labels), (expected, same) in zip(ours, torchs, strict=True):
            assert torch.equal(found, expected)
            assert found.stride() == expected.stride()
            assert torch.equal(labels, same)


def test_a_set_whose_numbers_lie_apart_is_read_too() -> None:
    apart = torch.randint(256, (9, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.zeros(9, dtype=torch.int64)
    sets = [ImageSet(pixels, labels, ("0",)) for pixels in (apart, apart.contiguous())]
    (found, _), (expected, _) = (next(iter(Loader(each, batch_size=9))) for each in sets)
    assert torch.equal(found, expected)
