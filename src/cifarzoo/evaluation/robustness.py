"""How a model holds up when images are worse than the benchmark's."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet, load_cifar10c
from cifarzoo.data.classes import align
from cifarzoo.display.frames import data_frame
from cifarzoo.display.html import render
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cifarzoo.evaluation.inference import collect_logits
from cifarzoo.frozen import freeze_fields, thaw
from cifarzoo.names import check_kind, one_line
from cifarzoo.plain import shorten
from cifarzoo.zoo.card import get_card

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["RobustnessReport", "evaluate_robustness"]


@dataclasses.dataclass(frozen=True)
class RobustnessReport:
    """Holds the accuracy under corruptions; every accuracy is in 0..1.

    Args:
        model: Name of the model.
        data: Name of the clean image set.
        clean_accuracy: Accuracy without corruption.
        accuracies: For each corruption, an accuracy for each severity.
        severities: The severities, from 1 to 5.
        is_official: Whether the corrupted images come from the files of CIFAR-10-C; otherwise they
            were made by `corrupt`.
    """

    model: str
    data: str
    clean_accuracy: float
    accuracies: Mapping[str, tuple[float, ...]]
    severities: tuple[int, ...]
    is_official: bool = False

    def __post_init__(self) -> None:
        freeze_fields(self)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy over all corruptions and severities."""
        return statistics.mean(a for row in self.accuracies.values() for a in row)

    @property
    def mean_by_severity(self) -> list[tuple[int, float]]:
        """List pairs ``(severity, accuracy)``; each accuracy is the mean over all corruptions."""
        columns = zip(*self.accuracies.values(), strict=True)
        return list(zip(self.severities, map(statistics.mean, columns), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as plain data for JSON; `from_dict` reads it back."""
        data: dict[str, Any] = thaw(dataclasses.asdict(self))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobustnessReport:
        """Read what `to_dict` wrote, also after a way through JSON."""
        accuracies = {name: tuple(row) for name, row in data["accuracies"].items()}
        severities = tuple(data["severities"])
        return cls(**{**data, "accuracies": accuracies, "severities": severities})

    def to_dataframe(self) -> DataFrame:
        """Make a data frame of pandas: a row for each corruption and severity.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            {"corruption": name, "severity": severity, "accuracy": accuracy}
            for name, row in self.accuracies.items()
            for severity, accuracy in zip(self.severities, row, strict=True)
        )

    def __repr__(self) -> str:
        name, data = one_line(self.model), one_line(self.data)
        kinds = f"{len(self.accuracies)} corruption{'s' * (len(self.accuracies) != 1)}"
        return (
            f"RobustnessReport({name!r} on {data!r}: {self.clean_accuracy:.2%} clean, "
            f"{self.mean_accuracy:.2%} under {kinds})"
        )

    def _repr_html_(self) -> str:
        return render("robustness.html", robustness=self)

    def __str__(self) -> str:
        rows = {one_line(name): row for name, row in self.accuracies.items()}
        width = max(len(name) for name in rows)
        lines = [
            f"{one_line(self.model)} on corrupted {one_line(self.data)}"
            f" ({'CIFAR-10-C files' if self.is_official else 'made here'})",
            "",
            f"clean accuracy            {self.clean_accuracy:.2%}",
            f"mean corruption accuracy  {self.mean_accuracy:.2%}",
            "",
            f"{'severity':<{width}}" + "".join(f"{s:>8}" for s in self.severities) + "    mean",
        ]
        lines += [
            f"{name:<{width}}"
            + "".join(f"{a:>8.1%}" for a in row)
            + f"{statistics.mean(row):>8.1%}"
            for name, row in rows.items()
        ]
        return "\n".join(lines)


def evaluate_robustness(
    model: nn.Module,
    images: ImageSet,
    *,
    corruptions: Iterable[str] = tuple(CORRUPTIONS),
    severities: Iterable[int] = SEVERITIES,
    seed: int = 0,
    files: str | Path | None = None,
    device: Device = None,
    precision: Precision = "auto",
    advance: Callable[[int], None] | None = None,
) -> RobustnessReport:
    """Measure the accuracy on corrupted images (Hendrycks & Dietterich 2019, arXiv:1903.12261).

    The images are made by `corrupt`, unless ``files`` says where the official ones are. Compare the
    result only with numbers that were measured in the same way.

    Args:
        model: The network.
        images: Clean images, 32x32; with ``files``, the CIFAR-10 test images.
        corruptions: Names of ``CORRUPTIONS``; all fifteen unless given. With ``files``, also the
            names of the four further corruptions there.
        severities: Severities from 1 to 5; all unless given.
        seed: Seed of the corruptions; official images do not depend on it.
        files: Folder of the official files, as ``load_cifar10c`` takes it.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.
        advance: Function that is called after each batch with the number of its images, for a
            progress bar.

    Raises:
        UnknownNameError: No corruption has such a name.
        ArgumentError: A severity is outside 1..5, or an argument is empty or of another kind.
        InputError: The images are not 32x32, or are not the ones that the files show.
        DataNotFoundError: An official file is missing.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> from cifarzoo.evaluation import evaluate_robustness
        >>> model, few = create_model("simple"), load_sample("test").subset(range(50))
        >>> report = evaluate_robustness(model, few, corruptions=["fog"], severities=[1, 5])
        >>> list(report.accuracies), len(report.accuracies["fog"])
        (['fog'], 2)
    """
    check_kind("images", images, ImageSet, "load_cifar10('test') returns one")
    if isinstance(corruptions, str) or not isinstance(corruptions, Iterable):
        raise ArgumentError(f"corruptions must be a list of names; got {shorten(corruptions)}")
    if not isinstance(severities, Iterable):
        raise ArgumentError(f"severities must be a list of numbers; got {shorten(severities)}")
    names, severities = tuple(corruptions), tuple(severities)
    if not names or not severities:
        raise ArgumentError("corruptions and severities must have one or more entries; got none")
    place = Place.find(device, precision, model=model)

    def corrupted(name: str, severity: int) -> ImageSet:
        if files is None:
            pixels = corrupt(images.images, name, severity, seed=seed)
            return dataclasses.replace(images, images=pixels)
        official = load_cifar10c(name, severity, root=files)
        if not torch.equal(official.labels, align(images, official.classes).labels):
            raise InputError(
                f"the CIFAR-10-C files show the CIFAR-10 test images, not {images.name}"
            )
        return official

    def accuracy(changed: ImageSet) -> float:
        logits, labels = collect_logits(model, changed, place=place, advance=advance)
        return float((logits.argmax(1) == labels).double().mean())

    for name in names:  # refuse before the first of many passes
        for severity in severities:
            if files is None:
                corrupt(images.images[:1], name, severity, seed=seed)
            else:
                corrupted(name, severity)
    return RobustnessReport(
        model=get_card(model).name,
        data=images.name,
        clean_accuracy=accuracy(images),
        accuracies={
            name: tuple(accuracy(corrupted(name, severity)) for severity in severities)
            for name in names
        },
        severities=severities,
        is_official=files is not None,
    )
