"""Pictures, as matplotlib figures; needs the ``plots`` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cifarzoo.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_confusion_matrix", "plot_history"]

# colours that stay apart for colour-blind readers (Okabe & Ito 2008)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plot_confusion_matrix(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], *, title: str = ""
) -> Figure:
    """Heat map of a confusion matrix with the counts written in.

    Colour is the share of the true class, so that classes of different size compare.

    Args:
        confusion: Counts (C, C), rows true, columns predicted.
        classes: C names.
        title: Above the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The matrix is not C by C.
    """
    count = len(classes)
    if len(confusion) != count or any(len(row) != count for row in confusion):
        raise InputError(f"confusion must be {count}x{count}, a row and column for each class")
    side = max(5.0, 0.62 * count)
    figure, axes = _subplots(1, width=side, height=side * 0.92)
    shares = [[n / max(sum(row), 1) for n in row] for row in confusion]
    image = axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(count):
        for column in range(count):
            if count <= 20 and confusion[row][column]:
                colour = "white" if shares[row][column] > 0.5 else "#222222"
                axes[0].text(
                    column,
                    row,
                    str(confusion[row][column]),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=colour,
                )
    axes[0].set_xticks(range(count), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes[0].set_yticks(range(count), classes)
    axes[0].set_xlabel("predicted")
    axes[0].set_ylabel("true")
    axes[0].set_title(title)
    figure.colorbar(image, ax=axes[0], fraction=0.046, pad=0.03, label="share of the true class")
    return figure


def plot_history(histories: Any, *, title: str = "") -> Figure:
    """Training curves: loss, accuracy and learning rate against epochs.

    Args:
        histories: A History, or several by name, which are drawn together.
        title: Above the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: There is nothing to draw.
    """
    runs = histories if isinstance(histories, Mapping) else {"": histories}
    if not runs or any(len(history) == 0 for history in runs.values()):
        raise InputError("a history needs at least one epoch to be drawn")
    figure, (loss, accuracy, rate) = _subplots(3, width=12.0, height=3.6)
    for (name, history), colour in zip(runs.items(), _repeat(_COLOURS), strict=False):
        epochs = history.column("epoch")
        prefix = f"{name} " if name else ""
        marker = "o" if len(epochs) == 1 else None
        for axis, kind, factor in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            for part, style in (("train", "--"), ("val", "-")):
                values = history.column(f"{part}_{kind}")
                if values[0] is not None:
                    label = f"{prefix}{part}"
                    scaled = [value * factor for value in values]
                    axis.plot(epochs, scaled, style, color=colour, label=label, marker=marker)
        rates = history.column("learning_rate")
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
    figure.suptitle(title)
    return figure


def _subplots(count: int, *, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure that belongs to nobody: no pyplot, so no window and no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib: pip install 'cifarzoo[plots]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _repeat(items: Sequence[str]) -> Any:
    while True:
        yield from items
