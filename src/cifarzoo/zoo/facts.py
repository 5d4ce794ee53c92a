"""What files say of a network: the fields that are known, and what they hold.

This module is imported when a file of unknown origin is read. Files that were compared with the
checksum in the index need none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Interval, Len
from typing_extensions import NotRequired, TypedDict  # pydantic takes typing's from Python 3.12 on

from cifarzoo.errors import ArgumentError
from cifarzoo.names import check_kind
from cifarzoo.plain import Real, problem_of

__all__ = [
    "CardData",
    "CheckpointData",
    "Count",
    "IndexEntry",
    "Metadata",
    "Record",
    "WeightsHeader",
    "check_metadata",
]

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


class WeightsHeader(TypedDict):
    """What the header of a weights file of this library holds, its card aside."""

    format: int
    sha256: str
    versions: dict[str, str]
    metadata: Metadata


class _TupleToo:
    """Lets a schema take a tuple for a list; the oldest pydantic takes none for a Sequence."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(self._as_list, handler(source))

    @staticmethod
    def _as_list(value: Any) -> Any:
        return [*value] if isinstance(value, tuple) else value


_Three = Annotated[list[Real], Len(3, 3), _TupleToo()]


class _Preprocessing(TypedDict):
    mean: _Three
    std: _Three


class CardData(TypedDict):
    """A card, as ``ModelCard.to_dict`` writes it."""

    name: str
    num_classes: Annotated[int, Interval(ge=1, le=2**53)]
    options: dict[str, Any]
    preprocessing: _Preprocessing
    classes: NotRequired[Annotated[list[str], _TupleToo()] | None]


class _Learner(TypedDict):
    model: dict[str, Any]
    ema: NotRequired[dict[str, Any] | None]
    lookahead: NotRequired[list[Any] | None]


class CheckpointData(TypedDict):
    """What is read of a run's checkpoint, as one of its weights files."""

    card: dict[str, Any]
    recipe: dict[str, Any]
    learner: _Learner
    records: NotRequired[list[Record]]


class _Machine(TypedDict):
    bfloat16: bool


class _Seed(TypedDict):
    seed: Count
    test_accuracy: dict[str, Real]
    train_seconds: Real
    machine: _Machine


class IndexEntry(TypedDict):
    """Of one file, in the index of a pack."""

    file: str
    sha256: str
    size: NotRequired[Count]
    url: NotRequired[str]
    license: NotRequired[str]
    citation: NotRequired[str]
    recipe: NotRequired[str]
    data: NotRequired[str]
    val_size: NotRequired[Count]
    calibration_error: NotRequired[Real]
    seeds: NotRequired[list[_Seed]]


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the facts that somebody gives for a file.

    Raises:
        ArgumentError: They are no mapping, or one is not what this library takes it for.

    Example:
        >>> check_metadata({"test_accuracy": 0.93})
        Traceback (most recent call last):
            ...
        cifarzoo.errors.ArgumentError: metadata: test_accuracy should be a valid dictionary; got \
0.93; give it another name
    """
    if metadata is None:
        return {}
    check_kind("metadata", metadata, Mapping)
    facts = dict(metadata)
    if problem := problem_of(facts, Metadata):
        raise ArgumentError(f"metadata: {problem}; give it another name")
    return facts
