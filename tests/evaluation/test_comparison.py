"""Paired comparison of two reports."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cifarzoo
from cifarzoo import EvaluationReport, ImageSet
from cifarzoo.errors import InputError
from cifarzoo.evaluation.comparison import Comparison, _bootstrap, mcnemar


@pytest.fixture(scope="module")
def report(few: ImageSet) -> EvaluationReport:
    return cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)


def with_right(report: EvaluationReport, right: list[bool]) -> EvaluationReport:
    """The same images, right where ``right`` says so."""
    labels = report.labels[: len(right)]
    predicted = tuple(
        label if r else (label + 1) % 10 for label, r in zip(labels, right, strict=True)
    )
    return dataclasses.replace(
        report,
        num_images=len(right),
        labels=labels,
        predicted=predicted,
        accuracy=sum(right) / len(right),
    )


def test_few_images_show_no_difference() -> None:
    """The bootstrap's interval is too narrow for so few."""
    result = Comparison(("a", "b"), (0.9, 0.896), 0.004, (0.001, 0.008), 4, 0, mcnemar(4, 0))
    assert result.verdict.endswith("on too few images to show which is better (p = 0.12).")
    result = dataclasses.replace(result, only_first=40, only_second=10, p_value=mcnemar(40, 10))
    assert result.verdict == "The interval leaves out 0: a is better."


def test_mcnemar_of_many_images_is_soon_told() -> None:
    assert mcnemar(25_000, 25_000) == 1.0
    expected = scipy.stats.binomtest(24_000, 49_000).pvalue
    assert mcnemar(24_000, 25_000) == pytest.approx(expected)


@given(first=st.integers(0, 400), second=st.integers(0, 400))
def test_mcnemar_agrees_with_scipys_binomial_test(first: int, second: int) -> None:
    found = mcnemar(first, second)
    if first + second == 0:
        assert found == 1
        return
    expected = scipy.stats.binomtest(min(first, second), first + second).pvalue
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_counts_and_difference(report: EvaluationReport) -> None:
    one = with_right(report, [True] * 60 + [False] * 40)
    other = with_right(report, [True] * 50 + [False] * 40 + [True] * 10)
    found = cifarzoo.compare(one, other)
    assert (found.only_first, found.only_second) == (10, 10)
    assert found.difference == pytest.approx(0)
    assert found.p_value == 1
    assert found.difference_interval[0] == pytest.approx(-found.difference_interval[1], abs=0.02)
    assert found.difference_interval[0] < 0


def test_a_model_compared_with_itself(report: EvaluationReport) -> None:
    found = cifarzoo.compare(report, report)
    assert found.difference == 0
    assert found.difference_interval == (0, 0)
    assert found.p_value == 1


def test_names_say_which_views_the_reports_are_of(report: EvaluationReport) -> None:
    views = dataclasses.replace(report, tta="flip")
    found = cifarzoo.compare(report, views)
    assert found.names == ("simple (tta: none)", "simple (tta: flip)")


def test_exchanging_the_models_changes_the_sign(report: EvaluationReport) -> None:
    one, other = with_right(report, [True] * 90 + [False] * 10), with_right(report, [True] * 100)
    there, back = cifarzoo.compare(one, other), cifarzoo.compare(other, one)
    assert there.difference == -back.difference == pytest.approx(-0.1)
    assert there.p_value == back.p_value == pytest.approx(2**-9)
    assert there.difference_interval[1] < 0 < back.difference_interval[0]


@given(count=st.integers(100, 2000), first=st.floats(0, 0.4), second=st.floats(0, 0.4))
def test_the_interval_is_that_of_the_normal_approximation(
    count: int, first: float, second: float
) -> None:
    a, b = int(first * count), int(second * count)
    low, high = _bootstrap(a, b, count, seed=0)
    mean = (a - b) / count
    spread = ((a + b) / count - mean**2) ** 0.5 / count**0.5
    assert low == pytest.approx(mean - 1.96 * spread, abs=0.25 * spread + 2.5 / count)
    assert high == pytest.approx(mean + 1.96 * spread, abs=0.25 * spread + 2.5 / count)


def test_a_model_without_class_names_can_be_compared(
    report: EvaluationReport, few: ImageSet
) -> None:
    """On bare batches its outputs have numbers in place of names."""
    model = cifarzoo.create_model("simple", seed=1)
    cifarzoo.attach_card(model, cifarzoo.ModelCard("mine"))
    nameless = cifarzoo.evaluate(model, [(few.images, few.labels)])
    assert nameless.classes[0].name == "0"
    assert cifarzoo.compare(report, nameless).accuracy == (report.accuracy, nameless.accuracy)
    others = dataclasses.replace(nameless, labels=tuple(9 - n for n in nameless.labels))
    with pytest.raises(InputError, match="same images in the same order"):
        cifarzoo.compare(report, others)


def test_other_images_are_refused(report: EvaluationReport) -> None:
    with pytest.raises(InputError, match="same images in the same order"):
        cifarzoo.compare(report, with_right(report, [True] * 100))


def test_other_images_with_the_same_labels_are_refused(
    report: EvaluationReport, few: ImageSet
) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    turned = cifarzoo.evaluate(model, dataclasses.replace(few, images=few.images.flip(3)))
    with pytest.raises(InputError, match="with 200, whose pixels are others"):
        cifarzoo.compare(report, turned)
    # of an older version, which did not look at pixels
    unknown = dataclasses.replace(turned, pixels_sha256="")
    assert cifarzoo.compare(report, unknown).accuracy == (report.accuracy, turned.accuracy)


def test_the_text_says_it_in_three_lines(report: EvaluationReport) -> None:
    one, other = with_right(report, [True] * 90 + [False] * 10), with_right(report, [True] * 100)
    text = str(cifarzoo.compare(one, dataclasses.replace(other, model="better")))
    accuracies, difference, only = text.splitlines()
    assert accuracies == "simple: 90.00%, better: 100.00%"
    assert difference.startswith("difference: -10.00 points (95 % interval -")
    assert only == "only simple is right on 0 images, only better on 10"


def test_real_models(few: ImageSet) -> None:
    models: list[nn.Module] = [cifarzoo.create_model("simple", seed=s) for s in (0, 1)]
    first, second = (cifarzoo.evaluate(m, few) for m in models)
    found = cifarzoo.compare(first, second)
    assert found.difference == first.accuracy - second.accuracy
    assert found.only_first - found.only_second == round(found.difference * len(few))
