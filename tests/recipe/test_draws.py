from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from cifarzoo.recipe.augmentation.draws import (
    draw_auto_augment,
    draw_color_jitter,
    draw_erasing,
    draw_rand_augment,
    draw_trivial_augment,
)
from cifarzoo.recipe.augmentation.operations import OPERATIONS

COUNT = 100_000
ALL: list[Callable[[int, torch.Generator], tuple[Tensor, ...]]] = [
    draw_trivial_augment,
    draw_rand_augment,
    draw_auto_augment,
    lambda count, generator: draw_color_jitter(count, generator, hue=(-0.1, 0.1)),
    draw_erasing,
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strengths(space: Mapping[str, Any], name: str, bins: int) -> list[float]:
    """Torchvision's magnitudes of one operation at 20 x 40 pixels, both signs where it has one."""
    values, is_signed = space[name]
    rising = values(bins, 20, 40)
    if rising is None:
        return [0.0]
    return [sign * float(value) for value in rising for sign in ([1, -1] if is_signed else [1])]


def assert_drawn_as(found: Mapping[Any, int], shares: Mapping[Any, float]) -> None:
    """Counts that a chi-square test cannot tell from the shares."""
    assert set(found) <= set(shares)
    total = sum(found.values())
    expected = {key: share * total for key, share in shares.items() if share > 0}
    assert min(expected.values()) > 5  # or the test says nothing
    counts = [found.get(key, 0) for key in expected]
    assert stats.chisquare(counts, list(expected.values())).pvalue > 0.01


@pytest.mark.parametrize("draw", ALL)
def test_draws_follow_from_the_generator_alone(draw: Callable[..., tuple[Tensor, ...]]) -> None:
    before = torch.get_rng_state()
    first, second = draw(9, seeded(1)), draw(9, seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = draw(9, seeded(2))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(each.shape[-1] == 0 for each in draw(0, seeded(1)))


def test_trivial_augment_draws_operations_and_magnitudes_as_torchvision() -> None:
    operations, magnitudes = draw_trivial_augment(COUNT, seeded())
    assert (operations.dtype, magnitudes.dtype) == (torch.int64, torch.float32)
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    shares: dict[tuple[str, float], float] = defaultdict(float)
    for name in space:
        values = strengths(space, name, 31)
        for value in values:
            shares[name, value] += 1 / len(space) / len(values)
    drawn = zip(operations.tolist(), magnitudes.tolist(), strict=True)
    assert_drawn_as(Counter((OPERATIONS[number], value) for number, value in drawn), shares)


def test_rand_augment_draws_operations_and_signs_as_torchvision() -> None:
    operations, magnitudes = draw_rand_augment(
        COUNT, seeded(), size=(20, 40), num_ops=3, magnitude=7, num_magnitude_bins=11
    )
    assert operations.shape == magnitudes.shape == (3, COUNT)
    space = v2.RandAugment._AUGMENTATION_SPACE
    shares: dict[tuple[str, float], float] = defaultdict(float)
    for name in space:
        values = strengths(space, name, 11)
        each = len(values) // 11 or 1  # signs
        chosen = values if len(values) == 1 else values[7 * each : 8 * each]
        for value in chosen:
            shares[name, value] += 1 / len(space) / len(chosen)
    for turn in range(3):
        drawn = zip(operations[turn].tolist(), magnitudes[turn].tolist(), strict=True)
        assert_drawn_as(Counter((OPERATIONS[number], value) for number, value in drawn), shares)
    pairs = Counter(zip(operations[0].tolist(), operations[1].tolist(), strict=True))
    assert_drawn_as(pairs, dict.fromkeys(itertools.product(range(14), repeat=2), 1 / 14**2))


def test_auto_augment_draws_pairs_of_operations_as_torchvision() -> None:
    operations, magnitudes = draw_auto_augment(COUNT, seeded(), size=(20, 40))
    assert operations.shape == magnitudes.shape == (2, COUNT)
    space = v2.AutoAugment._AUGMENTATION_SPACE
    policies = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies

    def outcomes(name: str, probability: float, index: int | None) -> dict[Any, float]:
        values = strengths(space, name, 10)
        each = len(values) // 10 or 1
        chosen = values if index is None else values[index * each : (index + 1) * each]
        found: dict[Any, float] = defaultdict(float, {("Identity", 0.0): 1 - probability})
        for value in chosen:
            found[name, value] += probability / len(chosen)
        return found

    shares: dict[Any, float] = defaultdict(float)
    for first, second in policies:
        for (a, p), (b, q) in itertools.product(
            outcomes(*first).items(), outcomes(*second).items()
        ):
            shares[a, b] += p * q / len(policies)
    drawn = zip(*operations.tolist(), *magnitudes.tolist(), strict=True)
    found = Counter(((OPERATIONS[a], x), (OPERATIONS[b], y)) for a, b, x, y in drawn)
    assert_drawn_as(found, {key: share for key, share in shares.items() if share > 0})


def test_color_jitter_draws_evenly_in_any_order() -> None:
    operations, magnitudes = draw_color_jitter(
        COUNT,
        seeded(),
        brightness=(0.6, 1.4),
        contrast=(0.0, 2.0),
        saturation=(0.5, 0.5),
        hue=(-0.1, 0.3),
    )
    names = ("Brightness", "Contrast", "Color", "Hue")
    numbers = [OPERATIONS.index(name) for name in names]
    orders = Counter(zip(*operations.tolist(), strict=True))
    assert_drawn_as(orders, dict.fromkeys(itertools.permutations(numbers), 1 / 24))
    ranges = ((-0.4, 0.4), (-1.0, 1.0), (-0.1, 0.3))
    for name, (low, high) in zip(("Brightness", "Contrast", "Hue"), ranges, strict=True):
        drawn = magnitudes[operations == OPERATIONS.index(name)]
        assert len(drawn) == COUNT
        assert stats.kstest(drawn.numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert (magnitudes[operations == OPERATIONS.index("Color")] == -0.5).all()


def test_what_color_jitter_leaves_alone_is_no_operation() -> None:
    operations, _ = draw_color_jitter(50, seeded(), contrast=(0.5, 1.5))
    assert set(operations.flatten().tolist()) == {0, OPERATIONS.index("Contrast")}


def test_erasing_draws_rectangles_as_torchvision() -> None:
    options = {"scale": (0.1, 0.9), "ratio": (0.4, 3.0)}
    transform = v2.RandomErasing(p=1.0, **options)
    image = [torch.empty(3, 20, 24)]
    torch.manual_seed(0)
    drawn = [transform.make_params(image) for _ in range(3000)]
    expected = torch.tensor([[each[key] for key in "ijhw"] for each in drawn])
    found = torch.stack(draw_erasing(3000, seeded(), size=(20, 24), probability=1.0, **options), 1)
    for column in range(4):
        values = range(25)
        table = [torch.bincount(each[:, column], minlength=25) for each in (found, expected)]
        seen = [i for i in values if table[0][i] + table[1][i] >= 10]
        counts = torch.stack(table)[:, seen].numpy()
        assert stats.chi2_contingency(counts).pvalue > 0.01


def test_erased_rectangles_lie_inside_the_image() -> None:
    top, left, height, width = draw_erasing(COUNT, seeded(), size=(32, 16), scale=(0.02, 0.9))
    is_erased = height > 0
    assert 0.49 < is_erased.float().mean() < 0.51
    assert torch.equal(is_erased, width > 0)
    assert min(int(top.min()), int(left.min())) == 0
    assert int((top + height)[is_erased].max()) == 32
    assert int((left + width)[is_erased].max()) == 16


def test_a_rectangle_that_never_fits_is_not_drawn() -> None:
    _, _, height, width = draw_erasing(50, seeded(), probability=1.0, scale=(1.0, 1.0))
    assert not height.any()
    assert not width.any()
