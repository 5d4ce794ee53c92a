"""Hypothesis strategies for the library's values."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from cifarzoo import Augmentation, ImageSet, Recipe, list_schedulers
from cifarzoo.recipe.schedulers.timm import list_options

__all__ = ["augmentations", "image_sets", "recipes", "schedulers", "schedules"]


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
        contrast=st.sampled_from([0.0, 0.3]),
        brightness=st.sampled_from([0.0, 0.5]),
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
        groups=st.sampled_from([{}, {"head": {"learning_rate": 2, "freeze_at": 0.5}}]),
        label_smoothing=fraction,
        scheduler=st.sampled_from(["constant", "cosine", "linear"]),
        scheduler_options=st.one_of(
            st.just({}), st.builds(lambda w: {"warmup_epochs": w}, st.floats(0, 5))
        ),
        augmentation=augmentations(),
        image_sizes=st.sampled_from([(), [[0, 24]], [[0.0, 16], [0.5, 32]]]),
        mixup_alpha=st.just(0) | st.floats(0.001, 2),
        cutmix_alpha=st.just(0) | st.floats(0.001, 2),
        ema_decay=fraction,
        lookahead_decay=fraction,
        clip_norm=st.floats(0, 10),
        seed=st.integers(0, 2**63 - 1),
    )


def _schedule_options(name: str, epochs: int) -> st.SearchStrategy[dict[str, Any]]:
    """Valid options of the scheduler called ``name`` in a run of ``epochs``."""
    factor, time = st.floats(0, 1), st.floats(0, 2 * epochs)
    warmup = {"warmup_epochs": time}
    known: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "constant": warmup,
        "cosine": {**warmup, "final_factor": factor},
        "linear": {**warmup, "final_factor": factor},
        "polynomial": {**warmup, "final_factor": factor, "power": st.floats(0.1, 4)},
        "multistep": {**warmup, "gamma": factor, "milestones": st.lists(time, max_size=4)},
        "step": {**warmup, "gamma": factor, "every_epochs": st.floats(0.1, 5)},
        "onecycle": {
            "peak_at": st.floats(0, 1, exclude_min=True, exclude_max=True),
            "initial_factor": factor,
            "final_factor": factor,
            "anneal": st.sampled_from(["cos", "linear"]),
        },
        "plateau": {"gamma": st.floats(0.01, 0.99), "patience": st.integers(0, 5)},
        "timm.rsqrt": {"stable_timescale": st.floats(0.1, 5), "decay_epochs": st.just(1)},
        "timm.wsd": {"stable_timescale": st.floats(0.1, 5), "decay_epochs": st.just(1)},
    }
    others = {"min_lr": st.floats(0, 0.1), "warmup_epochs": st.integers(0, epochs - 1)}
    return st.fixed_dictionaries({}, optional=known.get(name, others))


def schedulers() -> list[str]:
    """Names of all schedulers, but for those that an older timm lacks."""
    is_new = "stable_timescale" in list_options()
    return [name for name in list_schedulers() if is_new or name not in ("timm.rsqrt", "timm.wsd")]


@st.composite
def schedules(draw: st.DrawFn, name: str) -> tuple[int, int, dict[str, Any]]:
    """Epochs, steps in an epoch, and options of the scheduler called ``name``."""
    epochs, steps = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    options = draw(_schedule_options(name, epochs))
    if name in ("timm.rsqrt", "timm.wsd"):  # these two cannot do without
        options = {"stable_timescale": 1.0, "decay_epochs": 1, **options}
    return epochs, steps, options
