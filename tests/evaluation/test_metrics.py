from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from cifarzoo import EvaluationReport, ImageSet, create_model, evaluate, register_metric
from cifarzoo.errors import ArgumentError, DuplicateNameError, InputError
from cifarzoo.evaluation import metrics


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits and labels: classes may be absent, logits tied, confidences exactly 0 or 1."""
    count, classes = draw(st.integers(1, 50)), draw(st.integers(2, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["spread", "ties", "certain"]))
    if kind == "ties":
        logits = torch.randint(0, 2, (count, classes), generator=generator).double()
    else:
        scale = 1e4 if kind == "certain" else 3.0
        logits = torch.randn(count, classes, dtype=torch.float64, generator=generator) * scale
    used = draw(st.integers(1, classes))
    return logits, torch.randint(used, (count,), generator=generator)


@given(predictions())
def test_confusion_and_per_class_scores_agree_with_scikit_learn(
    case: tuple[Tensor, Tensor],
) -> None:
    logits, labels = case
    predicted, classes = logits.argmax(1), logits.shape[1]
    confusion = metrics.confusion_matrix(labels, predicted, classes)
    numbers = list(range(classes))
    assert confusion.sum() == len(labels)
    expected = sklearn.metrics.confusion_matrix(labels, predicted, labels=numbers)
    np.testing.assert_array_equal(confusion.numpy(), expected)
    scores = metrics.precision_recall_f1(confusion)
    reference = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=numbers, zero_division=0
    )
    for ours, theirs in zip(scores, reference, strict=False):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


@given(predictions())
def test_loss_agrees_with_scikit_learn(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    ours = metrics.negative_log_likelihood(logits, labels)
    assert math.isfinite(ours)
    probabilities = logits.softmax(1)
    if probabilities.min() > 1e-12:  # scikit-learn clips what lies below
        expected = sklearn.metrics.log_loss(
            labels, probabilities.numpy(), labels=range(logits.shape[1])
        )
        assert ours == pytest.approx(expected, abs=1e-6)


@given(predictions(), st.integers(1, 6))
def test_top_k_agrees_with_scikit_learn(case: tuple[Tensor, Tensor], k: int) -> None:
    logits, labels = case
    # ties have no right order: break them
    logits = logits + torch.arange(logits.shape[1]) * 1e-9
    ours = metrics.top_k_accuracy(logits.softmax(1), labels, k)
    if len(set(logits.softmax(1).flatten().tolist())) < logits.numel():
        assert 0 <= ours <= 1
    elif k >= logits.shape[1]:
        assert ours == 1
    elif logits.shape[1] > 2:
        expected = sklearn.metrics.top_k_accuracy_score(
            labels, logits.numpy(), k=k, labels=range(logits.shape[1])
        )
        assert ours == pytest.approx(expected)


@given(predictions())
def test_calibration_error_agrees_with_torchmetrics(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    probabilities = logits.softmax(1)
    ours = metrics.expected_calibration_error(probabilities, labels)
    assert 0 <= ours <= 1
    theirs = multiclass_calibration_error(
        probabilities, labels, num_classes=logits.shape[1], n_bins=15, norm="l1"
    )
    # they treat a confidence on the edge of a bin in float32
    edges = torch.linspace(0, 1, 16, dtype=torch.float64)
    distance = (probabilities.max(1).values[:, None] - edges).abs().min()
    if distance > 1e-6:
        assert ours == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [(1.0, True, 0.0), (1.0, False, 1.0), (0.5, True, 0.5), (0.5, False, 0.5)],
)
def test_calibration_error_of_one_image(confidence: float, correct: bool, expected: float) -> None:
    probabilities = torch.tensor([[confidence, 1 - confidence]])
    label = probabilities.argmax(1) if correct else 1 - probabilities.argmax(1)
    assert metrics.expected_calibration_error(probabilities, label) == pytest.approx(expected)


def test_calibration_error_at_confidences_of_exactly_zero_and_one() -> None:
    zero = torch.zeros(3, 2)  # no distribution, yet the edge must belong to a bin
    assert metrics.expected_calibration_error(zero, torch.tensor([0, 0, 1])) == pytest.approx(2 / 3)


@given(predictions())
def test_brier_score_is_the_mean_squared_error(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    probabilities = logits.softmax(1)
    ours = metrics.brier_score(probabilities, labels)
    target = np.eye(logits.shape[1])[labels.numpy()]
    assert ours == pytest.approx(((probabilities.numpy() - target) ** 2).sum(1).mean())
    assert 0 <= ours <= 2


@given(st.integers(1, 2000), st.data())
def test_wilson_interval_holds_the_proportion(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = metrics.wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert metrics.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_metrics_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.precision_recall_f1(torch.zeros(3, 3, dtype=torch.int64))


@given(predictions(), st.integers(1, 20))
def test_reliability_bins_hold_every_image_once(case: tuple[Tensor, Tensor], bins: int) -> None:
    logits, labels = case
    probabilities = logits.softmax(1)
    count, confidence, hits = metrics.reliability_bins(probabilities, labels, bins)
    assert count.sum() == len(labels)
    assert hits.sum() == (probabilities.argmax(1) == labels).sum()
    torch.testing.assert_close(confidence.sum(), probabilities.amax(1).sum())
    filled = count > 0
    mean = confidence[filled] / count[filled]
    upper = torch.arange(1, bins + 1)[filled] / bins
    assert (mean <= upper + 1e-9).all()
    assert (mean >= upper - 1 / bins - 1e-9).all()


@given(predictions(), st.integers(1, 20))
def test_adaptive_calibration_error_is_the_definition(
    case: tuple[Tensor, Tensor], bins: int
) -> None:
    logits, labels = case
    probabilities = logits.softmax(1)
    confidence = probabilities.amax(1).numpy()
    correct = (probabilities.argmax(1) == labels).numpy()
    order = np.argsort(confidence, kind="stable")
    expected = sum(
        len(part) * abs(correct[part].mean() - confidence[part].mean())
        for part in np.array_split(order, bins)
        if len(part)
    ) / len(labels)
    found = metrics.adaptive_calibration_error(probabilities, labels, bins)
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_metric_of_ones_own_stands_in_every_report(
    own_registries: None, sample_test: ImageSet, tmp_path: Path
) -> None:
    @register_metric("least confidence")
    def least(probabilities: Tensor, labels: Tensor) -> float:
        assert probabilities.dtype == torch.float64
        assert labels.dtype == torch.int64
        return float(probabilities.amax(1).min())

    with pytest.raises(DuplicateNameError, match="'least confidence' is already registered"):
        register_metric("least confidence")(least)
    report = evaluate(create_model("simple", seed=0), sample_test, device="cpu")
    assert report.metrics == {"least confidence": pytest.approx(min(report.confidence))}
    assert "least confidence" in str(report)
    assert "| least confidence |" in report.to_markdown()
    kept = json.loads(report.save(tmp_path / "report.json").read_text(encoding="utf-8"))
    assert kept["format"] == 2
    assert EvaluationReport.from_dict(kept) == report


def test_reports_of_older_versions_stay_readable(sample_test: ImageSet) -> None:
    report = evaluate(create_model("simple", seed=0), sample_test, device="cpu")
    older = json.loads(report.to_json())
    del older["format"], older["metrics"], older["note"]
    assert EvaluationReport.from_dict(older) == report
    with pytest.raises(InputError, match="the report has format 99, and this version reads up to"):
        EvaluationReport.from_dict({**older, "format": 99})


@pytest.mark.parametrize(
    ("data", "reason"),
    [({}, "model is missing"), ([{}], "but a list"), ({"format": "2"}, "format is no number")],
)
def test_what_is_no_report_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"it is no report of cifarzoo.*{reason}"):
        EvaluationReport.from_dict(data)


@pytest.mark.parametrize("value", ["good", float("nan"), float("inf"), None])
def test_a_metric_that_is_no_number_is_named(
    own_registries: None, sample_test: ImageSet, value: Any
) -> None:
    wrong: Any = lambda probabilities, labels: value  # noqa: E731
    register_metric("praise")(wrong)
    with pytest.raises(InputError, match=f"metric 'praise' must return a number; got {value!r}"):
        evaluate(create_model("simple", seed=0), sample_test, device="cpu")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_a_confusion_matrix_counts_labels_of_any_whole_numbers(dtype: torch.dtype) -> None:
    labels = torch.tensor([30, 99], dtype=dtype)
    found = metrics.confusion_matrix(labels, labels, 100)
    assert found.nonzero().tolist() == [[30, 30], [99, 99]]
    for wrong in (labels + 1, labels.long() - 31):
        with pytest.raises(InputError, match=r"labels must be in 0\.\.99"):
            metrics.confusion_matrix(labels, wrong, 100)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 4)])
def test_an_interval_needs_trials(successes: int, trials: int) -> None:
    with pytest.raises(ArgumentError, match=f"got {successes} of {trials}"):
        metrics.wilson_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.5, float("nan")])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ArgumentError, match="confidence must be between 0 and 1, as"):
        metrics.wilson_interval(9, 10, confidence)
