"""What a training run measured: a record an epoch, and all of them together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cifarzoo.errors import InputError
from cifarzoo.files.writing import write_text
from cifarzoo.frozen import freeze_fields

__all__ = ["EpochRecord", "History"]


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One epoch's measurements.

    Args:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss over the epoch, label smoothing included.
        train_accuracy: Fraction of augmented training images classified correctly, 0..1; with
            mixup or CutMix, against the label of the larger share.
        val_loss: Mean cross-entropy on the validation set after the epoch; None without one.
        val_accuracy: Accuracy on it, 0..1; None without one.
        learning_rate: Of the first parameter group in the epoch's last step.
        seconds: Wall time of the epoch's training steps.
        images_per_second: Training images a second.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class History:
    """All records of a run, in order.

    Args:
        records: One for each epoch.
    """

    records: tuple[EpochRecord, ...] = ()

    def __post_init__(self) -> None:
        freeze_fields(self)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> EpochRecord:
        return self.records[index]

    @property
    def seconds(self) -> float:
        """Wall time of all training steps."""
        return sum(record.seconds for record in self.records)

    def column(self, name: str) -> list[Any]:
        """One field of every record, as in ``history.column("train_loss")``."""
        return [getattr(record, name) for record in self.records]

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data for JSON; `from_list` reads it back."""
        return [record.to_dict() for record in self.records]

    @classmethod
    def from_list(cls, data: Iterable[Mapping[str, Any]]) -> History:
        """Read what `to_list` wrote."""
        return cls(tuple(EpochRecord(**record) for record in data))

    def save(self, path: str | Path) -> Path:
        """Write the records as JSON."""
        return write_text(path, json.dumps(self.to_list(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a file that `save` wrote.

        Raises:
            InputError: There is no such file, or it holds something else.
        """
        try:
            return cls.from_list(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"cannot read a training history from {path}: {error}") from error
