"""Metrics as pure functions of class probabilities and labels.

Shapes throughout: probabilities float (N, C), rows summing to 1; labels int64 (N,) in 0..C-1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "brier_score",
    "confusion_matrix",
    "expected_calibration_error",
    "negative_log_likelihood",
    "precision_recall_f1",
    "top_k_accuracy",
    "wilson_interval",
]


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts, int64 (C, C): row is the true class, column the predicted one.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2)
        tensor([[1, 0],
                [1, 1]])
    """
    pairs = labels * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def precision_recall_f1(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per-class precision, recall and F1, float64 (C,) each; 0 where undefined.

    Args:
        confusion: int64 (C, C), rows true, columns predicted.
    """
    confusion = confusion.double()
    hits = confusion.diagonal()
    predicted, true = confusion.sum(0), confusion.sum(1)
    precision = hits / predicted.clamp(min=1)
    recall = hits / true.clamp(min=1)
    f1 = 2 * hits / (predicted + true).clamp(min=1)
    return precision, recall, f1


def top_k_accuracy(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Fraction of images whose label is among the ``k`` most probable; all classes if fewer."""
    best = probabilities.topk(min(k, probabilities.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats; takes logits (N, C), to stay finite at probability 0."""
    return float(F.cross_entropy(logits.double(), labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of the probabilities to the one-hot label, in 0..2 (Brier 1950)."""
    target = F.one_hot(labels, probabilities.shape[1])
    return float((probabilities.double() - target).square().sum(1).mean())


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, in 0..1.

    Bin m holds confidences in (m / bins, (m + 1) / bins]; the first holds 0 too
    (Guo et al. 2017, arXiv:1706.04599, equation 3).
    """
    confidence, predicted = probabilities.double().max(1)
    correct = (predicted == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    place = torch.bucketize(confidence, edges.to(confidence.device), right=False)
    gap = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    gap.index_add_(0, place, correct - confidence)
    return float(gap.abs().sum() / len(labels))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927), which stays within 0..1 at the edges.

    Example:
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
    rate = successes / trials
    scale = 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # at 0 and at all the formula is exact only up to rounding
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)
