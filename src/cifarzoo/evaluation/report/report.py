"""The report that `evaluate` returns: numbers with their uncertainty, as text, JSON, Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarzoo.data import ImageSet
from cifarzoo.data.classes import align
from cifarzoo.display.frames import data_frame
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation.report.plots import plot_confusion_matrix
from cifarzoo.evaluation.report.tables import Rows, as_html, as_markdown, as_rows, as_text
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import atomic_path, write_text
from cifarzoo.frozen import FrozenDict, freeze_fields, thaw
from cifarzoo.names import check_kind, one_line, whole_number

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "ClassScore",
    "ConfidentError",
    "EvaluationReport",
    "ReliabilityBin",
    "check_report_path",
]

_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Says how well one class is recognized.

    Args:
        name: Name of the class.
        precision: Share of the images predicted as this class that belong to it, 0..1.
        recall: Share of its images that are recognized, 0..1; this is the accuracy on the class.
        f1: Harmonic mean of precision and recall, 0..1.
        recall_interval: 95 % Wilson interval of the recall; None for a class without images.
        count: Number of its images in the set.
    """

    name: str
    precision: float
    recall: float
    f1: float
    recall_interval: tuple[float, float] | None
    count: int


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """Says how sure the network is of images of similar confidence, and how often it is right.

    Args:
        count: Number of images in the bin. There are 15 bins of equal width, from the least
            confident to the most confident.
        confidence: Mean confidence, 0..1; 0 in an empty bin.
        accuracy: Fraction that is classified correctly, 0..1; 0 in an empty bin.
    """

    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class ConfidentError:
    """Names an image that the network is sure of, and wrong about.

    Args:
        index: Number of the image in the set.
        label: The true class.
        predicted: The class that the network says.
        confidence: The probability that the network gives to this class, 0..1.
    """

    index: int
    label: str
    predicted: str
    confidence: float


@dataclasses.dataclass(frozen=True)
class EvaluationReport:
    """Holds what `evaluate` found; every fraction is in 0..1.

    Args:
        model: Name of the model.
        data: Name of the image set.
        tta: Test-time augmentation, as `evaluate` names it.
        temperature: Number that the logits were divided by; 1 unless calibrated.
        num_images: Number of images.
        accuracy: Fraction that is classified correctly.
        accuracy_interval: 95 % Wilson interval of the accuracy.
        top5_accuracy: Fraction whose label is among the five most probable classes.
        loss: Mean cross-entropy in nats.
        expected_calibration_error: Mean gap of confidence and accuracy over 15 bins of equal width.
        adaptive_calibration_error: The same over 15 bins of equally many images.
        brier_score: Mean squared error of the probabilities, in 0..2.
        classes: A score for each class.
        confusion: Numbers of images: a row for each true class, a column for each predicted one.
        reliability: The 15 bins of the expected calibration error.
        labels: The true class of every image, by number.
        predicted: The predicted class of every image, by number.
        confidence: The probability of the predicted class, for every image.
        note: What was done to the labels, such as "labels were taken by the names"; or empty.
        metrics: Values of the registered metrics, by name; see `register_metric`.
        pixels_sha256: SHA-256 of the pixels of an `ImageSet`; empty for other images.
    """

    model: str
    data: str
    tta: str
    temperature: float
    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    top5_accuracy: float
    loss: float
    expected_calibration_error: float
    adaptive_calibration_error: float
    brier_score: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...]
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    confidence: tuple[float, ...]
    note: str = ""
    metrics: Mapping[str, float] = FrozenDict()
    pixels_sha256: str = ""

    def has_images_of(self, other: EvaluationReport) -> bool:
        """Tell whether both are about the same images in the same order, as far as is known.

        Pixels are compared if both were image sets, and the classes of the images in any case. The
        two models may number the classes differently. Classes that both name are matched by name,
        all others by number.
        """
        if len(self.labels) != len(other.labels) or self.has_other_pixels(other.pixels_sha256):
            return False
        ours, theirs = ([score.name for score in each.classes] for each in (self, other))
        shared = set() if ours == theirs else {*ours} & {*theirs}

        def is_same(a: int, b: int) -> bool:
            has_name = ours[a] in shared or theirs[b] in shared
            return ours[a] == theirs[b] if has_name else a == b

        return all(is_same(a, b) for a, b in {*zip(self.labels, other.labels, strict=True)})

    def has_other_pixels(self, sha256: str) -> bool:
        """Tell whether it is known that images with this checksum are others, or in another order.

        Args:
            sha256: What ``ImageSet.sha256(with_labels=False)`` returns; empty where it is unknown.
        """
        return bool(self.pixels_sha256 and sha256) and self.pixels_sha256 != sha256

    def check_images(self, images: ImageSet) -> ImageSet:
        """Take the images that the report is about, with the network's labels and class names.

        Raises:
            InputError: They are known to be others, or in another order.
        """
        check_kind("images", images, ImageSet, "load_cifar10('test') returns one")
        names = [score.name for score in self.classes]
        numbered = names == [str(label) for label in range(len(names))]  # for want of names
        if not numbered or {*names} & {*images.classes}:
            images = align(images, names)
        same = tuple(images.labels.tolist()) == self.labels
        if not same or self.has_other_pixels(images.sha256(with_labels=False)):
            raise InputError(f"the images are not those of the report: {images.name}, {self.data}")
        return images

    def __post_init__(self) -> None:
        freeze_fields(self)

    def most_confused(self, count: int = 10) -> list[tuple[str, str, int]]:
        """List the most confused pairs ``(true class, predicted class, images)``, worst first."""
        names = [score.name for score in self.classes]
        pairs = [
            (names[true], names[predicted], images)
            for true, row in enumerate(self.confusion)
            for predicted, images in enumerate(row)
            if true != predicted and images
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:count]

    def confident_errors(self, count: int = 20) -> list[ConfidentError]:
        """List the wrong predictions with the highest confidence, highest first."""
        wrong = [i for i, label in enumerate(self.labels) if label != self.predicted[i]]
        names = [score.name for score in self.classes]
        return [
            ConfidentError(i, names[self.labels[i]], names[self.predicted[i]], self.confidence[i])
            for i in sorted(wrong, key=lambda i: -self.confidence[i])[:count]
        ]

    def selective_accuracy(self, steps: int = 20) -> list[tuple[float, float]]:
        """Compute the accuracy on the most confident images: ``(share of images, accuracy)`` pairs.

        The network would reach it if it were allowed to refuse the other images (Geifman &
        El-Yaniv 2017, arXiv:1705.08500).
        """
        order = sorted(range(self.num_images), key=lambda i: -self.confidence[i])
        hits = [self.labels[i] == self.predicted[i] for i in order]
        counts = sorted({math.ceil(self.num_images * step / steps) for step in range(1, steps + 1)})
        return [(count / self.num_images, sum(hits[:count]) / count) for count in counts]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `from_dict` reads it back."""
        data: dict[str, Any] = thaw(dataclasses.asdict(self))
        return {"format": _FORMAT, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationReport:
        """Read what `to_dict` of this or an older version wrote, also after a way through JSON.

        Raises:
            InputError: It is no report, its parts contradict each other, or a newer version of the
                library wrote it.
        """
        from cifarzoo.evaluation.report.reading import check_data  # which few need

        if not isinstance(data, Mapping):
            raise InputError(f"it is no report of cifarzoo, but a {type(data).__name__}")
        data = dict(data)
        written = whole_number(data.pop("format", 0))  # the first had no number
        if written is None:
            raise InputError("it is no report of cifarzoo: its format is no number")
        if written > _FORMAT:
            raise InputError(
                f"the report has format {written}, and this version reads up to {_FORMAT}: upgrade "
                "cifarzoo"
            )
        check_data(data)
        classes = tuple(
            ClassScore(**{**c, "recall_interval": _pair(c["recall_interval"])})
            for c in data["classes"]
        )
        return cls(
            **{
                **data,
                "accuracy_interval": tuple(data["accuracy_interval"]),
                "classes": classes,
                "confusion": tuple(tuple(row) for row in data["confusion"]),
                "reliability": tuple(ReliabilityBin(**b) for b in data["reliability"]),
                **{key: tuple(data[key]) for key in ("labels", "predicted", "confidence")},
            }
        )

    def to_json(self) -> str:
        """Write the report as JSON text, with a line for each field."""
        lines = (f'"{key}": {json.dumps(value)}' for key, value in self.to_dict().items())
        return "{\n" + ",\n".join(lines) + "\n}"

    def to_markdown(self) -> str:
        """Write a headline, a table of the classes and the confusion matrix as Markdown."""
        return as_markdown(self)

    def to_dataframe(self, rows: Rows = "classes") -> DataFrame:
        """Make a data frame of pandas.

        Args:
            rows: What a row stands for. "classes": a class, with its scores. "images": an image, in
                the order of the set, with its label, the predicted class and its probability.
                "confusion": a pair of a label and a predicted class, with the number of images.

        Raises:
            MissingExtraError: pandas is not installed.
            ArgumentError: ``rows`` is something else.
        """
        return data_frame(as_rows(self, rows))

    def __repr__(self) -> str:
        name, data = one_line(self.model), one_line(self.data)
        views = "" if self.tta == "none" else f", tta {self.tta}"
        return (
            f"EvaluationReport({name!r} on {data!r}: accuracy {self.accuracy:.2%}, "
            f"{self.num_images:,} images{views})"
        )

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as .json, .md or .txt, or its confusion matrix as .png, .svg or .pdf.

        Raises:
            ArgumentError: ``path`` has another suffix.
            OutputError: The file cannot be written.
            MissingExtraError: A picture is wanted and matplotlib is not installed.
        """
        path = home_path(path)
        check_report_path(path)
        texts: dict[str, Callable[[], str]] = {
            ".json": self.to_json,
            ".md": self.to_markdown,
            ".txt": lambda: as_text(self, whole=True),
        }
        suffix = path.suffix.lower()
        if suffix in texts:
            return write_text(path, texts[suffix]())
        figure = plot_confusion_matrix(self)
        with atomic_path(path) as part:
            figure.savefig(part, dpi=150)
        return path


def check_report_path(path: Path) -> None:
    """Raise ArgumentError when no report can be saved under a name like this."""
    known = (".json", ".md", ".txt", ".png", ".svg", ".pdf")
    if path.suffix.lower() not in known:
        raise ArgumentError(f"a report is saved as one of {', '.join(known)}; got {path.name!r}")


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])
