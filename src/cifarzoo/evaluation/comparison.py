"""Which of two models is better, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch

from cifarzoo.compute.seeding import as_seed
from cifarzoo.display.frames import data_frame
from cifarzoo.display.html import render
from cifarzoo.errors import InputError
from cifarzoo.evaluation.report import EvaluationReport
from cifarzoo.frozen import freeze_fields
from cifarzoo.names import check_kind, one_line

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Comparison", "compare"]

_RESAMPLES = 10_000
_SIGNIFICANT = 0.05  # a p-value below it fits the interval of 95 %


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Holds the difference of two models on the same images.

    Args:
        names: Names of both models. The test-time augmentation is added if the reports differ in
            it, and otherwise numbers if the names are equal.
        accuracy: Accuracy of each model, 0..1.
        difference: Accuracy of the first model minus that of the second.
        difference_interval: 95 % interval of the difference, by a paired bootstrap.
        only_first: Number of images that only the first model gets right.
        only_second: Number of images that only the second model gets right.
        p_value: Result of McNemar's exact test: if the models were equally good, the probability
            of a split of these images that is at least as uneven.
    """

    names: tuple[str, str]
    accuracy: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]
    only_first: int
    only_second: int
    p_value: float

    def __post_init__(self) -> None:
        freeze_fields(self)

    def __str__(self) -> str:
        low, high = (100 * x for x in self.difference_interval)
        first, second = map(one_line, self.names)
        return (
            f"{first}: {self.accuracy[0]:.2%}, {second}: {self.accuracy[1]:.2%}\n"
            f"difference: {100 * self.difference:+.2f} points (95 % interval {low:+.2f} to "
            f"{high:+.2f}; McNemar p = {self.p_value:.2g})\n"
            f"only {first} is right on {self.only_first:,} images, only {second} on "
            f"{self.only_second:,}"
        )

    def __repr__(self) -> str:
        low, high = (100 * x for x in self.difference_interval)
        first, second = map(one_line, self.names)
        return (
            f"Comparison({first!r} minus {second!r}: {100 * self.difference:+.2f} points, "
            f"95 % interval {low:+.2f} to {high:+.2f})"
        )

    @property
    def verdict(self) -> str:
        """Say in a sentence whether the images tell which model is better."""
        low, high = self.difference_interval
        if low <= 0 <= high:
            return "The interval contains 0: these images do not show which model is better."
        if self.p_value >= _SIGNIFICANT:
            return (
                "The interval leaves out 0, and yet the models differ on too few images to show "
                f"which is better (p = {self.p_value:.2g})."
            )
        return f"The interval leaves out 0: {self.names[low < 0]} is better."

    def _repr_html_(self) -> str:
        return render("comparison.html", c=self)

    def to_dataframe(self) -> DataFrame:
        """Make a data frame of pandas: a row for each model, with the difference in the first.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        low, high = self.difference_interval
        rows = [
            {"model": name, "accuracy": accuracy, "only_it_right": only}
            for name, accuracy, only in zip(
                self.names, self.accuracy, (self.only_first, self.only_second), strict=True
            )
        ]
        about = {
            "difference": self.difference,
            "difference_low": low,
            "difference_high": high,
            "p_value": self.p_value,
        }
        return data_frame([{**rows[0], **about}, rows[1]])


def compare(first: EvaluationReport, second: EvaluationReport, *, seed: int = 0) -> Comparison:
    """Compare two models by their reports on the same images in the same order.

    Most images are easy for both or hard for both, so the paired difference is far more certain
    than the two intervals suggest. The reports may differ in test-time augmentation too. The
    difference is then that of model and augmentation together, and the names say so.

    Args:
        first: A report of `evaluate`.
        second: A report of the other model.
        seed: Seed of the bootstrap.

    Raises:
        ArgumentError: One of them is no report, or ``seed`` is no seed.
        InputError: The reports are of different images.

    Example:
        >>> from cifarzoo import create_model, evaluate, load_sample
        >>> first, second = (create_model("simple", seed=seed) for seed in (0, 1))
        >>> test = load_sample("test")
        >>> result = compare(evaluate(first, test), evaluate(second, test))
        >>> low, high = result.difference_interval
        >>> low <= result.difference <= high
        True
    """
    for name, report in (("first", first), ("second", second)):
        check_kind(name, report, EvaluationReport, "evaluate(model, images) returns one")
    seed = as_seed(seed)
    if not first.has_images_of(second):
        how = ", whose pixels are others" if first.has_other_pixels(second.pixels_sha256) else ""
        raise InputError(
            f"both reports must be of the same images in the same order; got {first.data} with "
            f"{first.num_images:,} images and {second.data} with {second.num_images:,}{how}"
        )
    hits = [
        [label == found for label, found in zip(each.labels, each.predicted, strict=True)]
        for each in (first, second)
    ]
    pairs = list(zip(*hits, strict=True))
    names = (first.model, second.model)
    if first.tta != second.tta:
        names = (f"{first.model} (tta: {first.tta})", f"{second.model} (tta: {second.tta})")
    elif first.model == second.model:
        names = (f"{first.model} (1)", f"{second.model} (2)")
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    return Comparison(
        names=names,
        accuracy=(first.accuracy, second.accuracy),
        difference=first.accuracy - second.accuracy,
        difference_interval=_bootstrap(only_first, only_second, len(pairs), seed),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value: the smaller count under a fair coin (McNemar 1947)."""
    trials, least = only_first + only_second, min(only_first, only_second)
    tail = ways = math.comb(trials, least)
    for count in range(least, 0, -1):
        ways = ways * count // (trials - count + 1)  # to choose one less
        tail += ways
    return float(min(1.0, 2 * tail / 2**trials))  # exact until the last division


def _bootstrap(only_first: int, only_second: int, count: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean of +1, -1 and 0, drawn again with replacement."""
    generator = torch.Generator().manual_seed(seed)
    # drawing images again is drawing how many there are of each kind
    size = torch.full((_RESAMPLES,), float(count), dtype=torch.float64)
    plus = torch.binomial(size, size.new_full((), only_first / count).expand(_RESAMPLES), generator)
    rest = only_second / max(count - only_first, 1)
    minus = torch.binomial(size - plus, size.new_full((), rest).expand(_RESAMPLES), generator)
    low, high = torch.quantile((plus - minus) / count, size.new_tensor([0.025, 0.975])).tolist()
    return low, high
