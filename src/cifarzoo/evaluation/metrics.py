"""Metrics as pure functions of class probabilities and labels.

Shapes throughout: probabilities float (N, C), rows summing to 1; labels int64 (N,) in 0..C-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.data.batches import check_labels
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import registering
from cifarzoo.plain import shorten

__all__ = [
    "adaptive_calibration_error",
    "brier_score",
    "confusion_matrix",
    "expected_calibration_error",
    "list_metrics",
    "measure_metrics",
    "negative_log_likelihood",
    "precision_recall_f1",
    "register_metric",
    "reliability_bins",
    "top_k_accuracy",
    "wilson_interval",
]


Metric = Callable[[Tensor, Tensor], float]
"""``(float64 probabilities (N, C), int64 labels (N,)) -> number``."""

_Metric = TypeVar("_Metric", bound=Metric)
_METRICS: dict[str, Metric] = {}


def register_metric(name: str) -> Callable[[_Metric], _Metric]:
    """Register the decorated function as a metric, which every report of `evaluate` then shows.

    Args:
        name: Name of the metric in the reports; must be new.

    Returns:
        A decorator that returns the function unchanged. It is given float64 probabilities (N, C)
        and int64 labels (N,), and returns a number.

    Raises:
        DuplicateNameError: The name is taken.

    Example:
        >>> @register_metric("mean confidence")
        ... def mean_confidence(probabilities, labels):
        ...     return float(probabilities.amax(1).mean())
        >>> measure_metrics(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
        {'mean confidence': 0.75}
    """
    return registering(_METRICS, "metric", name)


def list_metrics() -> list[str]:
    """List the names of the registered metrics, in the order of the reports."""
    return list(_METRICS)


def measure_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute every registered metric.

    Raises:
        InputError: A metric returns no number.
    """
    found = {}
    for name, metric in _METRICS.items():
        value = metric(probabilities, labels)
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise InputError(f"metric {name!r} must return a number; got {shorten(value)}")
    return found


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count the images of each pair of classes, int64 (C, C): true class (row), predicted (column).

    Args:
        labels: Whole numbers (N,) in 0..C-1.
        predicted: The same.
        num_classes: The number C of classes.

    Raises:
        InputError: A number is beyond the classes.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2)
        tensor([[1, 0],
                [1, 1]])
    """
    for numbers in (labels, predicted):
        if len(numbers):
            check_labels(numbers, num_classes)
    pairs = labels.long() * num_classes + predicted.long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def precision_recall_f1(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute precision, recall and F1 of each class, float64 (C,) in 0..1; 0 where undefined.

    Args:
        confusion: int64 (C, C); a row for each true class, a column for each predicted one.
    """
    confusion = confusion.double()
    hits = confusion.diagonal()
    predicted, true = confusion.sum(0), confusion.sum(1)
    precision = hits / predicted.clamp(min=1)
    recall = hits / true.clamp(min=1)
    f1 = 2 * hits / (predicted + true).clamp(min=1)
    return precision, recall, f1


def top_k_accuracy(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Compute the fraction of images whose label is among the ``k`` most probable classes.

    Logits serve as well as probabilities, for they have the same order. If there are fewer classes
    than ``k``, all of them count.
    """
    best = probabilities.topk(min(k, probabilities.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean cross-entropy in nats, of logits (N, C) and int64 labels (N,)."""
    return float(F.cross_entropy(logits.double(), labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Compute the mean squared distance of probabilities and one-hot label, 0..2 (Brier 1950)."""
    target = F.one_hot(labels, probabilities.shape[1])
    return float((probabilities.double() - target).square().sum(1).mean())


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Compute the mean gap between confidence and accuracy over bins of equal width, 0..1.

    Bin m holds confidences in (m / bins, (m + 1) / bins]; the first also holds 0
    (Guo et al. 2017, arXiv:1706.04599, equation 3).
    """
    count, confidence, hits = reliability_bins(probabilities, labels, bins)
    return float((hits - confidence).abs().sum() / count.sum())


def reliability_bins(
    probabilities: Tensor, labels: Tensor, bins: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """Count what a reliability diagram shows, over the bins of `expected_calibration_error`.

    Returns:
        The images in each bin, the sum of their confidences, and how many are correct; each is
        float64 (bins,).
    """
    confidence, correct = _confidence(probabilities, labels)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    place = torch.bucketize(confidence, edges.to(confidence.device), right=False)
    empty = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    return (
        empty.index_add(0, place, torch.ones_like(confidence)),
        empty.index_add(0, place, confidence),
        empty.index_add(0, place, correct),
    )


def adaptive_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Compute the mean gap between confidence and accuracy over bins of equally many images.

    The images are sorted by confidence. If their number cannot be divided evenly, the first bins
    take one image more (Nixon et al. 2019, arXiv:1904.01685, section 3). Images of the same
    confidence may come into different bins.
    """
    confidence, correct = _confidence(probabilities, labels)
    gap = (correct - confidence)[confidence.argsort(stable=True)]
    return float(sum(part.sum().abs() for part in gap.tensor_split(bins)) / len(labels))


def _confidence(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 (N,) each: the largest probability, and 1 where its class is the label."""
    confidence, predicted = probabilities.double().max(1)
    return confidence, (predicted == labels).double()


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the interval of a proportion (Wilson 1927); it stays within 0..1.

    Raises:
        ArgumentError: There are no trials, or more successes; ``confidence`` is not within 0..1.

    Example:
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    if not 0 <= successes <= trials or not trials:
        raise ArgumentError(
            f"successes must be in 0..trials, of 1 or more; got {successes} of {trials}"
        )
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must be between 0 and 1, as 0.95; got {confidence}")
    z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
    rate = successes / trials
    scale = 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # at 0 and at all the formula is exact only up to rounding
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)
