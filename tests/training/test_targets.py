"""Mixup and CutMix."""

from __future__ import annotations

import pytest
import torch
from runs import PLAIN
from torch import Tensor

from cifarzoo.training.mixing import Mixer, build_mixer

IMAGES = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()
LABELS = torch.arange(8)


def build(**alphas: float) -> Mixer:
    mixer = build_mixer(PLAIN.replace(**alphas), 10)
    assert mixer is not None
    return mixer


def draw(mixer: Mixer, seed: int) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mixer(IMAGES, LABELS)


def is_cut(images: Tensor) -> bool:
    """Whether every pixel is one image's or the other's, not a blend."""
    return bool((images == images.round()).all())


def test_nothing_is_mixed_unless_asked() -> None:
    assert build_mixer(PLAIN, 10) is None


@pytest.mark.parametrize(
    "alphas",
    [{"mixup_alpha": 0.5}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.5, "cutmix_alpha": 1.0}],
)
def test_targets_are_the_shares_of_the_images(alphas: dict[str, float]) -> None:
    for seed in range(8):
        images, targets = draw(build(**alphas), seed)
        assert images.shape == IMAGES.shape
        assert targets.shape == (8, 10)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
        # every image holds its own number everywhere, so its mean is its target's
        expected = targets @ torch.arange(10.0)
        torch.testing.assert_close(images.mean((1, 2, 3)), expected, atol=1e-4, rtol=1e-4)


def test_mixup_blends_and_cutmix_cuts() -> None:
    assert not all(is_cut(draw(build(mixup_alpha=1.0), seed)[0]) for seed in range(8))
    cut = [draw(build(cutmix_alpha=1.0), seed)[0] for seed in range(8)]
    assert all(is_cut(images) for images in cut)
    assert any(bool((images.std((1, 2, 3)) > 0).any()) for images in cut)


def test_with_both_each_batch_takes_one() -> None:
    mixer = build(mixup_alpha=1.0, cutmix_alpha=1.0)
    assert {is_cut(draw(mixer, seed)[0]) for seed in range(16)} == {True, False}


def test_the_same_draws_mix_alike() -> None:
    mixer = build(mixup_alpha=1.0, cutmix_alpha=1.0)
    for one, other in zip(draw(mixer, 3), draw(mixer, 3), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(draw(mixer, 3)[1], draw(mixer, 4)[1])


def test_partners_are_any_other_images_of_the_batch() -> None:
    """The Loader puts mirrored images beside each other; neighbours would be mirrored alike."""
    mixer, count = build(mixup_alpha=1.0), 64
    labels = torch.arange(count) % 10
    mirrored = torch.arange(count) < count // 2
    images = mirrored.float().view(count, 1, 1, 1).expand(count, 3, 4, 4)
    images = images.contiguous(memory_format=torch.channels_last)
    alike = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(8):
            mixed, _ = mixer(images, labels)
            assert mixed.is_contiguous(memory_format=torch.channels_last)
            share = mixed[:, 0, 0, 0]
            alike.append(((share == 0) | (share == 1)).float().mean().item())
    assert 0.4 < sum(alike) / len(alike) < 0.6
