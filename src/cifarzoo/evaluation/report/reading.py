"""What a saved report must hold to be one; it may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Len
from typing_extensions import NotRequired, TypedDict  # pydantic takes typing's from Python 3.12 on

from cifarzoo.errors import InputError
from cifarzoo.plain import Real, problem_of
from cifarzoo.zoo.facts import Count

__all__ = ["check_data"]


_Interval = Annotated[list[Real], Len(2, 2)]


class _Score(TypedDict):
    name: str
    precision: Real
    recall: Real
    f1: Real
    recall_interval: _Interval | None
    count: Count


class _Bin(TypedDict):
    count: Count
    confidence: Real
    accuracy: Real


class _Report(TypedDict):
    """What ``EvaluationReport.to_dict`` writes, but for the number of its format."""

    model: str
    data: str
    tta: str
    temperature: Real
    num_images: Count
    accuracy: Real
    accuracy_interval: _Interval
    top5_accuracy: Real
    loss: Real
    expected_calibration_error: Real
    adaptive_calibration_error: Real
    brier_score: Real
    classes: list[_Score]
    confusion: list[list[Count]]
    reliability: list[_Bin]
    labels: list[Count]
    predicted: list[Count]
    confidence: list[Real]
    note: NotRequired[str]
    metrics: NotRequired[dict[str, Real]]
    pixels_sha256: NotRequired[str]


def check_data(data: Mapping[str, Any]) -> None:
    """Raise InputError when ``data`` is no report, or its parts contradict each other."""
    problem = problem_of(dict(data), _Report) or _contradiction(data)
    if unknown := sorted(data.keys() - _Report.__annotations__.keys()):
        problem = problem or f"it has an unknown field {unknown[0]!r}"
    if problem:
        raise InputError(f"it is no report of cifarzoo: {problem}")


def _contradiction(data: Mapping[str, Any]) -> str:
    images, classes = data["num_images"], len(data["classes"])
    for name in ("labels", "predicted", "confidence"):
        if len(data[name]) != images:
            return f"{name} has {len(data[name]):,} entries for {images:,} images"
    if any(max(data[name], default=0) >= classes for name in ("labels", "predicted")):
        return f"it has labels beyond its {classes} classes"
    if [len(row) for row in data["confusion"]] != [classes] * classes:
        return f"its confusion matrix is not one of {classes} classes"
    return ""
