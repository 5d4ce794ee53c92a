"""Pictures, as matplotlib figures; needs the ``plots`` extra."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cifarzoo.display.panels import in_a_line, panels
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import check_kind, texts, whole_number, whole_numbers
from cifarzoo.plain import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cifarzoo.data import ImageSet
    from cifarzoo.evaluation.comparison import Comparison
    from cifarzoo.evaluation.report import EvaluationReport
    from cifarzoo.evaluation.robustness import RobustnessReport

__all__ = [
    "plot_comparison",
    "plot_confusion_matrix",
    "plot_history",
    "plot_predictions",
    "plot_reliability",
    "plot_robustness",
]

# colours that stay apart for colour-blind readers (Okabe & Ito 2008)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MOST_NUMBERS = 20  # classes whose counts are written into the matrix
_MOST_NAMES = 120  # along a side of the confusion matrix
_WIDEST = 20.0  # inches of it; what is larger takes gigabytes to draw
_NARROW = 4.9  # inches; a phone shows such a picture at about its own size


def plot_confusion_matrix(
    confusion: EvaluationReport | Sequence[Sequence[int]],
    classes: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw a confusion matrix as a heat map, with the counts written into it.

    The colour of a cell is its share of the images of the true class, so classes of different size
    can be compared.

    Args:
        confusion: A report of `evaluate`; or counts (C, C), a row for each true class and a column
            for each predicted one.
        classes: Names of the C classes. Only counts need them, since a report has them.
        title: Text above the picture. For a report, it is the model, the data and the accuracy
            unless given.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The matrix is not C by C whole numbers, or ``classes`` is no list of names.
    """
    check_kind("title", "" if title is None else title, str)
    report: Any = confusion
    if hasattr(report, "confusion"):
        if classes is not None:
            raise InputError("a report has its own class names; leave out classes")
        classes = [score.name for score in report.classes]
        if title is None:
            title = f"{report.model} on {report.data}: {report.accuracy:.2%}"
        report = report.confusion
    elif classes is None:
        raise InputError(
            "a confusion matrix needs the names of its classes; pass a report of evaluate(), or "
            "counts and classes"
        )
    names = texts(classes)
    if not names:
        raise InputError(f"classes must be a list of names; got {shorten(classes)}")
    return _draw_matrix(_square(report, len(names)), names, title or "")


def _square(counts: Any, size: int) -> list[list[int]]:
    """Counts as Python's; raises InputError unless there are ``size`` rows of ``size`` of them."""
    try:
        rows = [*counts]
    except TypeError:
        rows = []
    found = [row for row in map(whole_numbers, rows) if row and len(row) == size and min(row) >= 0]
    if not len(found) == len(rows) == size:
        raise InputError(
            f"confusion must be a report of evaluate(), or {size}x{size} numbers of images, a row "
            f"and column for each class; got {shorten(counts)}"
        )
    return found


def plot_history(histories: Any, *, title: str = "", columns: int = 3) -> Figure:
    """Draw training curves: loss, accuracy and learning rate against epochs.

    Args:
        histories: A `History`, or what its ``to_list()`` gave, as the metadata of a weights file
            holds it; or a mapping from names to several of these, which are drawn together.
        title: Text above the picture.
        columns: Number of panels side by side, 1 to 3; one fits a narrow page.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArgumentError: ``columns`` is not 1, 2 or 3.
        InputError: There is nothing to draw, or it is no history.
    """
    check_kind("title", title, str)
    runs = {
        name: _records(history)
        for name, history in (
            histories if isinstance(histories, Mapping) else {"": histories}
        ).items()
    }
    if not runs or any(len(history) == 0 for history in runs.values()):
        raise InputError("a history needs at least one epoch to be drawn")
    across = _side_by_side(columns, 3)
    width, height = (4.9, 2.6) if across == 1 else (4.0, 3.6)
    figure, (loss, accuracy, rate) = panels(
        3, width=width * across, height=height * -(-3 // across), columns=across
    )
    for (name, history), colour in zip(runs.items(), itertools.cycle(_COLOURS), strict=False):
        epochs = [record["epoch"] for record in history]
        name = in_a_line(name)
        prefix = f"{name} " if name else ""
        marker = "o" if len(epochs) == 1 else None  # a line of one point is not seen
        for axis, kind, factor in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            for part, style in (("train", "--"), ("val", "-")):
                values = [record.get(f"{part}_{kind}") for record in history]
                if any(value is not None for value in values):
                    label = f"{prefix}{part}"
                    # a run that was continued may have been validated in a part of its epochs
                    scaled = [math.nan if value is None else value * factor for value in values]
                    axis.plot(epochs, scaled, style, color=colour, label=label, marker=marker)
        rates = [record["learning_rate"] for record in history]
        rate.plot(epochs, rates, color=colour, label=name or None, marker=marker)
    for axis, label in (
        (loss, "loss"),
        (accuracy, "accuracy (%)"),
        (rate, "learning rate (end of epoch)"),
    ):
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    loss.legend()
    figure.suptitle(in_a_line(title))
    return figure


def plot_reliability(report: EvaluationReport) -> Figure:
    """Draw a reliability diagram: how often the network is right at each confidence.

    Where bars stay below the diagonal, the network is overconfident. The lower panel shows the
    share of the images in each bin.

    Args:
        report: What `evaluate` returned.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure, (upper, lower) = panels(2, width=5.0, height=5.6, columns=1, ratios=(3, 1))
    width = 1 / len(report.reliability)
    middles = [(place + 0.5) * width for place in range(len(report.reliability))]
    filled = [(x, b) for x, b in zip(middles, report.reliability, strict=True) if b.count]
    upper.bar(
        [x for x, _ in filled],
        [b.accuracy for _, b in filled],
        width=width * 0.92,
        color=_COLOURS[0],
        label="accuracy",
    )
    upper.plot(
        [b.confidence for _, b in filled],
        [b.confidence for _, b in filled],
        "o",
        color=_COLOURS[1],
        markersize=4,
        label="mean confidence",
    )
    upper.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1)
    upper.set_ylabel("accuracy")
    upper.set_title(
        in_a_line(f"{report.model} on {report.data}: ECE {report.expected_calibration_error:.3f}"),
        fontsize=10,
    )
    upper.legend(loc="upper left")
    shares = [b.count / report.num_images for b in report.reliability]
    lower.bar(middles, shares, width=width * 0.92, color="#888888")
    lower.set_ylabel("share")
    lower.set_xlabel("confidence")
    for axis in (upper, lower):
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
    return figure


def plot_predictions(
    report: EvaluationReport,
    images: ImageSet,
    indices: Sequence[int] | None = None,
    *,
    columns: int = 8,
) -> Figure | None:
    """Draw images with what they are and what the network says; mistakes are in colour.

    Args:
        report: What `evaluate` returned.
        images: The images that the report is about.
        indices: Numbers of the images to draw; the first 24 unless given.
        columns: Number of images side by side, at least 1.

    Returns:
        The figure; None if there is nothing to show.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ArgumentError: ``columns`` is below 1, or there is no image of such a number.
        InputError: The images are not those of the report.
    """
    columns = _side_by_side(columns)
    chosen = list(range(min(24, report.num_images))) if indices is None else list(indices)
    if not {*chosen} <= {*range(report.num_images)}:
        raise ArgumentError(
            f"indices must be numbers in 0..{report.num_images - 1}; got {shorten(chosen)}"
        )
    report.check_images(images)
    if not chosen:
        return None
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = panels(len(chosen), width=1.35 * columns, height=1.65 * rows, columns=columns)
    for axis, index in zip(axes, chosen, strict=True):
        label, predicted = report.labels[index], report.predicted[index]
        axis.imshow(images.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.set_axis_off()
        names = [in_a_line(score.name) for score in report.classes]
        text = f"{names[predicted]} {report.confidence[index]:.0%}"
        if label != predicted:
            text = f"{names[label]}\n{text}"
        axis.set_title(text, fontsize=8, color="#222222" if label == predicted else _COLOURS[1])
    return figure


def plot_comparison(comparisons: Comparison | Sequence[Comparison]) -> Figure:
    """Draw how far apart models are: each difference in accuracy with its 95 % interval.

    Where the interval reaches across zero, the images do not show which model is better.

    Args:
        comparisons: What `compare` returned, or several of these.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: There is no comparison.
    """
    pairs = [*comparisons] if isinstance(comparisons, Sequence) else [comparisons]
    if not pairs:
        raise InputError("there is no comparison to be drawn")
    figure, (axes,) = panels(1, width=4.9, height=1.3 + 0.6 * len(pairs))
    places = range(len(pairs))
    differences = [100 * each.difference for each in pairs]
    ends = [[100 * end for end in each.difference_interval] for each in pairs]
    sides = [
        [difference - low for difference, (low, _) in zip(differences, ends, strict=True)],
        [high - difference for difference, (_, high) in zip(differences, ends, strict=True)],
    ]
    axes.axvline(0, linestyle="--", color="#888888", linewidth=1)
    axes.errorbar(differences, places, xerr=sides, fmt="o", color=_COLOURS[0], capsize=4)
    names = [
        "\nminus ".join(
            in_a_line(f"{name} {share:.2%}")
            for name, share in zip(each.names, each.accuracy, strict=True)
        )
        for each in pairs
    ]
    axes.set_yticks(places, names, fontsize=9)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel("difference in accuracy (points)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def plot_robustness(reports: RobustnessReport | Sequence[RobustnessReport]) -> Figure:
    """Draw accuracy against severity: a panel for each corruption, a line for each model.

    Args:
        reports: What `evaluate_robustness` returned, or several of the same corruptions.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: There is no report, or their corruptions differ.
    """
    reports = [*reports] if isinstance(reports, Sequence) else [reports]
    names = list(reports[0].accuracies) if reports else []
    if not names or any(list(report.accuracies) != names for report in reports):
        raise InputError("robustness is drawn of one or more reports with the same corruptions")
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure, axes = panels(len(names), width=2.4 * columns, height=2 * rows + 0.6, columns=columns)
    for axis, name in zip(axes, names, strict=True):
        for report, colour in zip(reports, itertools.cycle(_COLOURS), strict=False):
            severities = [0, *report.severities]
            values = [100 * a for a in (report.clean_accuracy, *report.accuracies[name])]
            axis.plot(
                severities, values, "o-", color=colour, markersize=3, label=in_a_line(report.model)
            )
        axis.set_title(in_a_line(name.replace("_", " ")), fontsize=9)
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.supxlabel("severity", fontsize=9)
    figure.supylabel("accuracy (%)", fontsize=9)
    return figure


def _draw_matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    count = len(classes)
    has_numbers = count <= _MOST_NUMBERS
    side = min(_WIDEST, max(_NARROW, (0.34 if has_numbers else 0.16) * count + 1.5))
    step = -(-count // _MOST_NAMES)  # of the names that have room
    # the scale of the colours stands below, so that the cells have all of the width
    figure, axes = panels(2, width=side, height=side * 1.12, columns=1, ratios=(30, 1))
    shares = [[n / max(sum(row), 1) for n in row] for row in confusion]
    image = axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1)
    # a count is as large as its cell allows: a cell is about 0.7 of the side divided by the classes
    letters = max(len(str(n)) for row in confusion for n in row)
    size = min(10.0, 72 * 0.7 * side / count / (0.66 * letters))
    middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
    for row, counts in enumerate(confusion if has_numbers else ()):
        for column, n in enumerate(counts):
            if n:
                colour = "white" if shares[row][column] > 0.5 else "#222222"
                axes[0].text(column, row, str(n), color=colour, **middle)
    names = [in_a_line(name) for name in classes]
    places = range(0, count, step)
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes[0].set_xticks(places, names[::step], **slanted)
    labels = [
        name if any(row) else f"{name} (no images)"
        for name, row in zip(names, confusion, strict=True)
    ]
    axes[0].set_yticks(places, labels[::step])
    if not has_numbers:
        axes[0].tick_params(labelsize=7)
    axes[0].set_xlabel("predicted")
    axes[0].set_ylabel("true")
    axes[0].set_title(in_a_line(title))
    label = "share of the true class"
    figure.colorbar(image, cax=axes[1], orientation="horizontal", label=label)
    return figure


def _records(history: Any) -> Sequence[Mapping[str, Any]]:
    """A mapping for each epoch."""
    records = history.to_list() if hasattr(history, "to_list") else history
    if not isinstance(records, Sequence) or not all(isinstance(r, Mapping) for r in records):
        raise InputError(
            f"a history is what Trainer.fit() returned, or its to_list(); got {shorten(history)}"
        )
    return records


def _side_by_side(columns: Any, most: int | None = None) -> int:
    """``columns``, if it is a number of panels."""
    number = whole_number(columns)
    if number is None or number < 1 or (most is not None and number > most):
        allowed = f"in 1..{most}" if most else "of at least 1"
        raise ArgumentError(f"columns must be a whole number {allowed}; got {columns!r}")
    return number
