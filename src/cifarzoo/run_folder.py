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
from cifarzoo.files import atomic_path, write_text
from cifarzoo.recipe import Recipe
from cifarzoo.training import History
from cifarzoo.training.checkpoint import CHECKPOINT_NAME
from cifarzoo.weights import save_weights

__all__ = ["WEIGHTS_NAME", "claim", "keep", "new_name"]

WEIGHTS_NAME = "weights.safetensors"
_NOTE_NAME = "run.json"


def new_name(label: str) -> Path:
    """A folder below ``runs`` that nobody has used: the time, then ``label``."""
    return Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{label}"


def claim(folder: Path, facts: Mapping[str, Any], recipe: Recipe, *, resuming: bool) -> None:
    """Note in ``folder`` what the run is, before it starts.

    Args:
        folder: The folder; it exists.
        facts: What must stay the same when the run continues: model and data.
        recipe: How it trains.
        resuming: Whether a run that is there already continues.

    Raises:
        CheckpointError: The folder holds another run.
    """
    note = folder / _NOTE_NAME
    if not resuming:
        if (folder / WEIGHTS_NAME).exists() or (folder / CHECKPOINT_NAME).exists():
            raise CheckpointError(
                f"{folder} holds a run already; continue it with --resume, or choose another "
                "--output"
            )
        write_text(note, json.dumps(facts, indent=1) + "\n")
        recipe.save(folder / "recipe.toml")
        return
    before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else facts
    changed = [key for key in facts if before.get(key) != facts[key]]
    if changed:
        raise CheckpointError(
            f"{folder} was trained with another {' and '.join(changed)}: "
            f"{', '.join(str(before.get(key)) for key in changed)}; resume with the same"
        )


def keep(
    folder: Path,
    network: nn.Module,
    facts: Mapping[str, Any],
    history: History,
    reports: Sequence[EvaluationReport],
) -> list[Path]:
    """Write weights, history and reports, and pictures where matplotlib is installed.

    Args:
        folder: The folder.
        network: The trained network.
        facts: Provenance for the weights file: model, data, recipe, command.
        history: Its training.
        reports: Evaluations that differ in test-time augmentation; the first has none.

    Returns:
        What was written.
    """
    metadata = {
        **facts,
        "history": history.to_list(),
        "train_seconds": history.seconds,
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
