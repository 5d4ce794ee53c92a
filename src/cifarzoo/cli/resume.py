"""What `train --resume` needs to know: the run in a folder, and whether this is all of it.

A run of the command line can always go on here. One of a program can where it was made of what the
command line has too: a model of the zoo as it is built, and images of a known set.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

import cifarzoo
from cifarzoo import ImageSet, Recipe
from cifarzoo.cli.application import name_data
from cifarzoo.errors import CheckpointError, DataError, WeightsError
from cifarzoo.runs import CHECKPOINT_NAME, RunFolder, network_sha256
from cifarzoo.training.checkpoint import find_checkpoint
from cifarzoo.zoo.card import attach_card
from cifarzoo.zoo.content import parse_card
from cifarzoo.zoo.torch_files import kind_of_file

__all__ = ["build_network", "check_images", "read_run"]


def read_run(path: Path) -> tuple[Path, dict[str, Any], Recipe]:
    """The checkpoint of the run at ``path``, the facts about the run, and its recipe.

    Args:
        path: The run's folder, or a checkpoint in it.

    Raises:
        CheckpointError: There is none, or only the program that began the run can continue it.
    """
    checkpoint = find_checkpoint(path)
    _check_kind(checkpoint)
    folder = checkpoint.parent
    run = RunFolder(folder)
    if not run.note.exists():
        raise _only_in_python(folder, "the folder has no run.json, which describes a run")
    facts, recipe = run.read()
    facts = name_data(facts)
    resuming = facts.get("resuming")
    if resuming is None:  # begun here
        _check_told(run, facts, "model", "data", "val_size", "watch_test")
        return checkpoint, facts, recipe
    _check_told(run, facts, "model")
    _check_told(run, resuming, "card", "network_sha256", "only_in_python")
    reasons = [f"it has {reason}" for reason in resuming["only_in_python"]]
    if facts["model"] not in cifarzoo.list_models():
        reasons.append(f"its model {facts['model']!r} does not belong to the zoo")
    if "data" not in facts and "data_name" in facts:
        reasons.append(f"it trains on {facts['data_name']!r}, which --data does not know")
    elif "val_size" not in facts and "val_name" in facts:
        reasons.append(f"it measures {facts['val_name']!r} every epoch")
    if reasons:
        raise _only_in_python(folder, ", ".join(reasons))
    _check_told(run, facts, "data", "val_size", "watch_test")
    return checkpoint, facts, recipe


def _check_kind(checkpoint: Path) -> None:
    """Raise CheckpointError when a file that somebody named is none."""
    try:
        is_one = checkpoint.name == CHECKPOINT_NAME or kind_of_file(checkpoint) == "torch"
    except WeightsError:
        is_one = False
    if not is_one:
        raise CheckpointError(
            f"{checkpoint} is no checkpoint; --resume takes the folder of a run, or the "
            f"{CHECKPOINT_NAME} in it"
        )


def _check_told(run: RunFolder, facts: dict[str, Any], *names: str) -> None:
    """Raise CheckpointError when the note of a run says nothing of what it should."""
    missing = [name for name in names if facts.get(name) is None]
    if missing:
        raise CheckpointError(
            f"{run.note} is damaged: it does not state {', '.join(missing)}; copy the file again, "
            "or begin the run again in another folder"
        )


def check_images(
    checkpoint: Path, facts: dict[str, Any], train: ImageSet, val: ImageSet | None
) -> None:
    """Raise when these are not the images that the run was started with."""
    for role, images in (("data_sha256", train), ("val_sha256", val)):
        found = images.sha256() if images is not None else None
        if facts.get(role, found) == found:
            continue
        if facts.get("resuming") is None:
            raise DataError(
                f"the images found here differ from those that {checkpoint} was started with; name "
                "the folder of the original ones with --root"
            )
        reason = f"its images are neither {facts['data']} nor a split(size) of it with seed 0"
        raise _only_in_python(checkpoint.parent, reason)


def build_network(checkpoint: Path, facts: dict[str, Any], recipe: Recipe) -> nn.Module:
    """The network of a run that a program began; raises when the program has changed it."""
    resuming = facts["resuming"]
    card = parse_card(resuming["card"], str(checkpoint.parent))
    network = cifarzoo.create_model(
        card.name, num_classes=card.num_classes, seed=recipe.seed, **card.options
    )
    if resuming["network_sha256"] != network_sha256(network):
        raise _only_in_python(
            checkpoint.parent, f"the program changed its {card.name!r} after the zoo had built it"
        )
    built = cifarzoo.get_card(network)
    attach_card(network, dataclasses.replace(built, preprocessing=card.preprocessing))
    return network


def _only_in_python(folder: Path, reason: str) -> CheckpointError:
    """The error that says how a run of a program goes on."""
    return CheckpointError(
        f"the run in {folder} was started by a Python program, and only that program can continue "
        f"it: {reason}. In the program, write Trainer(model, recipe, ..., output={str(folder)!r})"
        ".fit(train, ..., resume=True), with the same model, recipe and data"
    )
