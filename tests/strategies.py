"""Hypothesis strategies for the library's values."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from cifarzoo import Augmentation, ImageSet, Recipe

__all__ = ["augmentations", "image_sets", "recipes"]


@st.composite
def image_sets(draw: st.DrawFn, *, max_size: int = 40, side: int | None = None) -> ImageSet:
    """Small random image sets; every class number may occur, none has to."""
    count = draw(st.integers(1, max_size))
    pixels = side or draw(st.integers(4, 12))
    num_classes = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    images = torch.randint(256, (count, 3, pixels, pixels), dtype=torch.uint8, generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    return ImageSet(images, labels, tuple(f"class {i}" for i in range(num_classes)))


def augmentations(*, max_padding: int = 3) -> st.SearchStrategy[Augmentation]:
    """Any augmentation that fits images larger than ``max_padding``."""
    return st.builds(
        Augmentation,
        flip=st.sampled_from(["none", "random", "alternating"]),
        crop_padding=st.integers(0, max_padding),
        cutout=st.integers(0, 4),
    )


def recipes() -> st.SearchStrategy[Recipe]:
    """Valid recipes of every kind."""
    fraction = st.floats(0, 0.999)
    return st.builds(
        Recipe,
        epochs=st.integers(1, 1000),
        batch_size=st.integers(1, 10_000),
        optimizer=st.sampled_from(["sgd", "momentum", "adam", "adamw"]),
        learning_rate=st.floats(0, 100),
        momentum=fraction,
        weight_decay=st.floats(0, 1),
        label_smoothing=fraction,
        scheduler=st.sampled_from(["constant", "cosine", "linear"]),
        scheduler_options=st.one_of(
            st.just({}), st.builds(lambda w: {"warmup_epochs": w}, st.floats(0, 5))
        ),
        augmentation=augmentations(),
        mixup_alpha=st.floats(0, 2),
        cutmix_alpha=st.floats(0, 2),
        ema_decay=fraction,
        clip_norm=st.floats(0, 10),
        seed=st.integers(0, 2**63 - 1),
    )
