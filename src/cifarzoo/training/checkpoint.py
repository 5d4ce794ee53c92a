"""Checkpoints: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifarzoo.errors import ArgumentError, CheckpointError, InputError, WeightsError
from cifarzoo.files.paths import user_path
from cifarzoo.files.writing import write_bytes
from cifarzoo.runs import CHECKPOINT_NAME, RunFolder
from cifarzoo.zoo.torch_files import kind_of_file, read_torch_file

__all__ = [
    "CHECKPOINT_NAME",
    "check_same",
    "choose_checkpoint",
    "find_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]

_FORMAT = 1


def write_checkpoint(path: str | Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (tensors and plain data), replacing an older checkpoint atomically.

    Raises:
        InputError: Something in it could not be read again without running code.
        OutputError: It cannot be written; the older checkpoint is still whole.
    """
    buffer = io.BytesIO()  # torch reports a full disk as a RuntimeError without a reason
    torch.save({"format": _FORMAT, **_plain(state)}, buffer)
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="meta", weights_only=True)  # takes no memory of a GPU
    except pickle.UnpicklingError as error:
        raise InputError(
            "the run cannot be saved: the state_dict() of its data, optimizer or scheduler holds "
            f"more than tensors and plain data: {_first_line(error)}"
        ) from error
    return write_bytes(path, buffer.getvalue())


def _plain(value: Any) -> Any:
    """``value`` with Python's numbers for numpy's, which a schedule of np.cos leaves behind."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file at ``path``, which may be the run's folder."""
    path = user_path(path)
    found = path / CHECKPOINT_NAME if path.is_dir() else path
    if not found.is_file():
        raise CheckpointError(f"there is no checkpoint {found}; start the run without resuming")
    return found


def choose_checkpoint(resume: bool | str | Path, output: Path | None) -> Path | None:
    """The checkpoint that a run in the folder ``output`` continues; None where it begins anew.

    Raises:
        ArgumentError: There is no folder to continue in.
        CheckpointError: There is no checkpoint, or the run would replace another one's files.
    """
    run = RunFolder(output) if output is not None else None
    if resume is False:
        if run is not None and run.checkpoint.exists():
            raise CheckpointError(
                f"{run.checkpoint} exists; continue it with resume=True, or choose another "
                "output folder"
            )
        if run is not None and run.weights.exists():
            raise CheckpointError(
                f"{run.weights} exists and would be replaced; choose another output folder"
            )
        return None
    source = output if resume is True else Path(resume)
    if source is None:
        raise ArgumentError("resume=True needs an output folder; or pass the checkpoint's path")
    found = find_checkpoint(source)
    if run is not None:
        is_here = found.parent.samefile(run.path)  # one that was renamed is of the same run
        others = [run.checkpoint] if is_here else [run.checkpoint, run.weights]
        taken = [each for each in others if each.exists() and not found.samefile(each)]
        if taken:
            raise CheckpointError(
                f"to continue {found} would replace {taken[0]}; move that file away, or choose "
                "another output folder"
            )
    return found


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        CheckpointError: There is none, or it is damaged or of another kind.
    """
    found = find_checkpoint(path)
    try:
        state = read_torch_file(found) if kind_of_file(found) == "torch" else None
    except WeightsError as error:
        raise CheckpointError(f"checkpoint {error}") from error
    if not isinstance(state, dict) or not _is_equal(state.get("format"), _FORMAT):
        raise CheckpointError(f"{found} is not a checkpoint of this version of cifarzoo")
    return state


def check_same(what: str, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise CheckpointError naming the fields in which ``saved`` and ``current`` differ."""
    differing = [
        f"{key} was {saved.get(key)!r}, is now {current.get(key)!r}"
        for key in sorted({*saved, *current}, key=str)
        if not _is_equal(saved.get(key), current.get(key))
    ]
    if differing:
        raise CheckpointError(
            f"the checkpoint belongs to another {what}: {'; '.join(differing)}; resume with the "
            "same one, or start a new run in another folder"
        )


def _is_equal(saved: Any, current: Any) -> bool:
    try:
        return bool(saved == current)
    except (RuntimeError, ValueError):  # a tensor or an array where a number was
        return False
