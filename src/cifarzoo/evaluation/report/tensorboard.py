"""An evaluation in TensorBoard: beside the scalars of the run that led to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cifarzoo.data import ImageSet
from cifarzoo.errors import MissingExtraError
from cifarzoo.evaluation.report import EvaluationReport
from cifarzoo.evaluation.report.plots import (
    plot_confusion_matrix,
    plot_predictions,
    plot_reliability,
)
from cifarzoo.files.writing import make_directory
from cifarzoo.plain import flatten
from cifarzoo.recipe import Recipe

__all__ = ["log_report"]


def log_report(
    folder: str | Path,
    report: EvaluationReport,
    *,
    images: ImageSet | None = None,
    recipe: Recipe | None = None,
) -> None:
    """Write a report into a TensorBoard log: numbers, confusion matrix, reliability and images.

    Args:
        folder: Folder of the log, such as the one of a `TensorBoardLogger`.
        report: What `evaluate` returned.
        images: The images that the report is about. Some of them are then shown with their
            predictions, and so are the most confident errors.
        recipe: Recipe of the network. Its fields become hyperparameters, with the accuracy and the
            loss of the report as their result, so that runs can be sorted by them.

    Raises:
        InputError: The images are not those of the report.
        MissingExtraError: TensorBoard or matplotlib is not installed.
        OutputError: The folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "log_report needs tensorboard: pip install 'cifarzoo[tensorboard]'"
        ) from error
    pictures: dict[str, Any] = {
        "confusion": plot_confusion_matrix(report),
        "reliability": plot_reliability(report),
    }
    if images is not None:
        pictures["samples"] = plot_predictions(report, images)
        pictures["confident_errors"] = plot_predictions(
            report, images, [error.index for error in report.confident_errors(24)]
        )
    results = {"test/accuracy": report.accuracy, "test/loss": report.loss}
    writer: Any = SummaryWriter(str(make_directory(folder)))
    for name, figure in pictures.items():
        if figure is not None:
            writer.add_figure(f"test/{name}", figure, close=False)
    writer.add_text("test/report", f"```\n{report}\n```")
    if recipe is None:
        for name, value in results.items():
            writer.add_scalar(name, value)
    else:
        # in the same folder: the run stays one run
        fields = {name: _shown(value) for name, value in flatten(recipe.to_dict()).items()}
        writer.add_hparams(fields, results, run_name=".")
    writer.close()


def _shown(value: Any) -> Any:
    """What TensorBoard can show."""
    return value if isinstance(value, bool | int | float | str) else str(value)
