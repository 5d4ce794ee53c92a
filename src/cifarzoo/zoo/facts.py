"""What files say of where a network comes from: the fields that are known, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from typing_extensions import TypedDict  # pydantic does not take typing's before Python 3.12

from cifarzoo.plain import problem_of

__all__ = ["Metadata", "Record", "metadata_problem"]

Count = Annotated[int, Ge(0)]


class Record(TypedDict):
    """An epoch of a history, as ``EpochRecord.to_dict`` writes it."""

    epoch: Annotated[int, Ge(1)]
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


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
    train_seconds: Annotated[float, Ge(0)]
    history: list[Record]
    validation_accuracy: dict[str, float]
    test_accuracy: dict[str, float]
    sample_accuracy: dict[str, float]


def metadata_problem(metadata: Mapping[str, Any]) -> str:
    """Which field of ``metadata`` is not what this library takes it for; empty for none.

    Example:
        >>> metadata_problem({"test_accuracy": 0.93, "note": "mine"})
        'test_accuracy should be a valid dictionary; got 0.93'
    """
    return problem_of(dict(metadata), Metadata)
