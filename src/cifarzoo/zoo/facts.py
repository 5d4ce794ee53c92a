"""What files say of where a network comes from: the fields that are known, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Interval
from typing_extensions import TypedDict  # pydantic does not take typing's before Python 3.12

from cifarzoo.plain import Real, problem_of

__all__ = ["Count", "Metadata", "Record", "metadata_problem"]

Count = Annotated[int, Interval(ge=0, le=2**53)]


class Record(TypedDict):
    """An epoch of a history, as ``EpochRecord.to_dict`` writes it."""

    epoch: Count
    train_loss: Real
    train_accuracy: Real
    val_loss: Real | None
    val_accuracy: Real | None
    learning_rate: Real
    seconds: Real
    images_per_second: Real


class Metadata(TypedDict, total=False):
    """What this library reads in the metadata of weights files; whatever else is free."""

    model: str
    recipe: dict[str, Any]
    data: str
    data_name: str
    data_images: Count
    data_sha256: str
    val_name: str
    val_images: Count
    val_size: Count
    precision: str
    parameters: Count
    train_seconds: Annotated[Real, Ge(0)]
    history: list[Record]
    validation_accuracy: dict[str, Real]
    test_accuracy: dict[str, Real]
    sample_accuracy: dict[str, Real]


def metadata_problem(metadata: Mapping[str, Any]) -> str:
    """Which field of ``metadata`` is not what this library takes it for; empty for none.

    Example:
        >>> metadata_problem({"test_accuracy": 0.93, "note": "mine"})
        'test_accuracy should be a valid dictionary; got 0.93'
    """
    return problem_of(dict(metadata), Metadata)
