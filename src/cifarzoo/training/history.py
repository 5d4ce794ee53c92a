"""What a training run measured: a record an epoch, and all of them together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarzoo.display.charts import learning_curves
from cifarzoo.display.frames import data_frame
from cifarzoo.display.html import render
from cifarzoo.errors import InputError
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import write_text
from cifarzoo.frozen import freeze_fields
from cifarzoo.plain import parse_json, problem_of

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["EpochRecord", "History"]

_SHOWN = 20  # epochs in the printed table


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """Holds the measurements of one epoch.

    Args:
        epoch: Number of the epoch, from 1.
        train_loss: Mean training loss over the epoch, with label smoothing, mixed images and what a
            teacher adds.
        train_accuracy: Fraction of the augmented training images that are classified correctly,
            0..1. With mixup or CutMix, the label of the larger share counts.
        val_loss: Mean loss on the validation set after the epoch, by the labels alone; None without
            one. Cross-entropy, unless the Trainer has a ``loss`` of its own.
        val_accuracy: Accuracy on the validation set, 0..1; None without one.
        learning_rate: Learning rate of the first parameter group in the epoch's last step.
        seconds: Wall time of the epoch's training steps, in seconds.
        images_per_second: Number of training images a second.
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
        """Return plain data for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class History:
    """Holds all records of a run, in order.

    Args:
        records: A record for each epoch.
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
        """Wall time of all training steps, in seconds."""
        return sum(record.seconds for record in self.records)

    def column(self, name: str) -> list[Any]:
        """List one field of every record, as in ``history.column("train_loss")``."""
        return [getattr(record, name) for record in self.records]

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain data for JSON; `from_list` reads it back."""
        return [record.to_dict() for record in self.records]

    def to_dataframe(self) -> DataFrame:
        """Make a data frame of pandas: a row for each epoch.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        names = (field.name for field in dataclasses.fields(EpochRecord))
        return data_frame(self.to_list(), names)

    def __repr__(self) -> str:
        if not self.records:
            return "History(0 epochs)"
        last = self.records[-1]
        kind, share = "val", last.val_accuracy
        if share is None:
            kind, share = "train", last.train_accuracy
        return f"History({self._title()}, {kind} accuracy {share:.2%}, {self.seconds:,.1f} s)"

    def __str__(self) -> str:
        if not self.records:
            return repr(self)
        names, rows = self._table()
        if len(rows) > _SHOWN:
            rows = [*rows[: _SHOWN // 2], ("...",) * len(names), *rows[-_SHOWN // 2 :]]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in (names, *rows)
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        names, rows = self._table()
        return render(
            "history.html",
            title=f"Training history, {self._title()}",
            rows=self._facts(),
            curves=learning_curves(self.to_list()),
            columns=names,
            records=rows,
        )

    def _title(self) -> str:
        return f"{len(self)} epoch{'s' if len(self) != 1 else ''}"

    def _facts(self) -> list[tuple[str, str]]:
        """What the run came to, in a few words each."""
        if not self.records:
            return []
        last = self.records[-1]
        measured = [r for r in self.records if r.val_accuracy is not None]
        best = max(measured, key=lambda r: r.val_accuracy or 0.0, default=None)
        facts = [
            ("epochs", str(len(self))),
            ("train loss", f"{last.train_loss:.4f}"),
            ("train accuracy", f"{last.train_accuracy:.2%}"),
        ]
        if last.val_loss is not None and last.val_accuracy is not None:
            facts += [
                ("val loss", f"{last.val_loss:.4f}"),
                ("val accuracy", f"{last.val_accuracy:.2%}"),
            ]
        if best is not None:
            facts.append(("best val accuracy", f"{best.val_accuracy:.2%} in epoch {best.epoch}"))
        return [*facts, ("time", f"{self.seconds:,.1f} s")]

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """A row for each epoch, and what its columns are called."""
        names = ("epoch", "train loss", "train acc", "val loss", "val acc", "lr", "s", "images/s")
        rows: list[tuple[str, ...]] = [
            (
                str(r.epoch),
                f"{r.train_loss:.4f}",
                f"{r.train_accuracy:.2%}",
                "-" if r.val_loss is None else f"{r.val_loss:.4f}",
                "-" if r.val_accuracy is None else f"{r.val_accuracy:.2%}",
                f"{r.learning_rate:.3g}",
                f"{r.seconds:.1f}",
                f"{r.images_per_second:,.0f}",
            )
            for r in self.records
        ]
        return names, rows

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
            from cifarzoo.zoo.facts import Record

            records = parse_json(home_path(path).read_bytes())
            if problem := problem_of(records, list[Record]):
                raise ValueError(problem)
            return cls.from_list(records)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"cannot read a training history from {path}: {error}") from error
