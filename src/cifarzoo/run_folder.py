"""The folder of a training run: what lies in it, and who may write there."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cifarzoo.errors import CheckpointError, MissingExtraError
from cifarzoo.evaluation import EvaluationReport, plot_history
from cifarzoo.files import atomic_path, make_directory, write_text
from cifarzoo.recipe import Recipe
from cifarzoo.training import History
from cifarzoo.training.checkpoint import CHECKPOINT_NAME
from cifarzoo.weights import WEIGHTS_NAME, save_weights

__all__ = ["claim", "disclaim", "keep", "new_folder", "read_claim"]

_NOTE_NAME = "run.json"
_RECIPE_NAME = "recipe.toml"
_EARLY = (_NOTE_NAME, _RECIPE_NAME, "history.csv")  # what is there before the first checkpoint


def new_folder(label: str) -> Path:
    """Make a folder below ``runs`` that nobody else has: the time, then ``label``."""
    first = make_directory("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{label}"
    folder, number = first, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError:  # of a run that was started in the same second
            number += 1
            folder = first.with_name(f"{first.name}-{number}")
        else:
            return folder


def claim(folder: Path, facts: Mapping[str, Any], recipe: Recipe) -> None:
    """Note in ``folder`` what the run is, before it starts; the folder is made if need be.

    Args:
        folder: The folder.
        facts: What the run consists of beside its recipe: model, data, command.
        recipe: How it trains.

    Raises:
        CheckpointError: The folder holds another run, or a file that the run would write.
    """
    make_directory(folder)
    found = [name for name in (WEIGHTS_NAME, CHECKPOINT_NAME, *_EARLY) if (folder / name).exists()]
    if {WEIGHTS_NAME, CHECKPOINT_NAME}.isdisjoint(found) and _NOTE_NAME in found:
        raise CheckpointError(
            f"{folder} holds a run without a checkpoint: it has not come to one yet, or ended "
            f"before; remove its {', '.join(found)} in that case, or choose another --output"
        )
    if found:
        raise CheckpointError(
            f"{folder} holds a run already, or its {found[0]}; continue it with --resume, or "
            "choose another --output"
        )
    write_text(folder / _NOTE_NAME, json.dumps(facts, indent=1) + "\n")
    recipe.save(folder / _RECIPE_NAME)


def read_claim(folder: Path) -> tuple[dict[str, Any], Recipe]:
    """The facts and the recipe that `claim` noted.

    Raises:
        CheckpointError: No run was started in ``folder``, or its note is damaged.
    """
    note = folder / _NOTE_NAME
    if not note.is_file() or not (folder / _RECIPE_NAME).is_file():
        raise CheckpointError(f"{folder} holds no run; start one with --output {folder}")
    try:
        facts: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{note} is damaged: {error}; start the run again") from error
    return facts, Recipe.load(folder / _RECIPE_NAME)


def disclaim(folder: Path) -> None:
    """Take back what `claim` wrote when nothing came of the run, and the folder if it is empty."""
    if (folder / CHECKPOINT_NAME).exists():
        return
    for name in _EARLY:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def keep(
    folder: Path,
    network: nn.Module,
    facts: Mapping[str, Any],
    history: History,
    reports: Sequence[EvaluationReport],
    validation: Sequence[EvaluationReport] = (),
) -> list[Path]:
    """Write weights, history and reports, and pictures where matplotlib is installed.

    Args:
        folder: The folder.
        network: The trained network.
        facts: Provenance for the weights file: model, data, recipe, command.
        history: Its training.
        reports: Evaluations that differ in test-time augmentation; the first has none.
        validation: The same on images that were held out from training, if there were any.

    Returns:
        What was written.
    """
    metadata = {
        **facts,
        "history": history.to_list(),
        "train_seconds": history.seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
        "validation_accuracy": {report.tta: report.accuracy for report in validation},
        "test_accuracy": {report.tta: report.accuracy for report in reports},
    }
    written = [
        save_weights(network, folder / WEIGHTS_NAME, metadata=metadata),
        history.save(folder / "history.json"),
    ]
    for report in reports:
        suffix = "" if report.tta == "none" else f"-{report.tta}"
        written.append(report.save(folder / f"report{suffix}.json"))
    try:
        written.append(reports[0].save(folder / "confusion.png"))
        with atomic_path(folder / "curves.png") as part:
            plot_history(history, title=reports[0].model).savefig(part, dpi=150)
    except MissingExtraError:
        return written
    return [*written, folder / "curves.png"]
