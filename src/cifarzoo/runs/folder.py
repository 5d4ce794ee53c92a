"""The folder of a training run, as a value: what lies in it, and who may write there.

`Trainer` writes it, for programs and for the command line alike; the latter adds reports and
pictures. ``run.json`` and ``recipe.toml`` are there from the beginning, so that a run which was
stopped can be told about; weights and history follow at its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cifarzoo.errors import ArgumentError, CheckpointError, OutputError
from cifarzoo.files.locking import Timeout, held
from cifarzoo.files.paths import file_name, reason_of
from cifarzoo.files.writing import make_directory, write_text
from cifarzoo.recipe import Recipe
from cifarzoo.runs.notes import check_facts
from cifarzoo.zoo.card import unwrap
from cifarzoo.zoo.saving import save_weights
from cifarzoo.zoo.weights import WEIGHTS_NAME

__all__ = ["CHECKPOINT_NAME", "Hold", "RunFolder", "check_checksums", "network_sha256"]

CHECKPOINT_NAME = "checkpoint.pt"
_HISTORY_NAME = "history.json"
_NOTE_NAME = "run.json"
_RECIPE_NAME = "recipe.toml"
_LOCK_NAME = ".lock"
_OF_COMMANDS = (  # what `cifarzoo train` writes beside
    *("history.csv", "report.json", "report-flip.json", "confusion.png", "curves.png"),
    "tensorboard",
)
_RESUMING = "resuming"  # what only the note holds: how the run can go on
# what a run that goes on has as it began
_SAME = {
    "model": "another model",
    "data_sha256": "other training images",
    "val_sha256": "other validation images",
}


@dataclasses.dataclass(frozen=True)
class Hold:
    """A folder that no other run may write to meanwhile, and that must stay where it is.

    Args:
        path: The folder.
        status: What the system says of it.
    """

    path: Path
    status: os.stat_result

    def is_there(self) -> bool:
        """Whether the folder at this path is still the one that was locked, with its note."""
        try:
            return (self.path / _NOTE_NAME).exists() and os.path.samestat(
                self.path.stat(), self.status
            )
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise OutputError when the folder is gone, for what is written there would be alone."""
        if not self.is_there():
            raise OutputError(
                f"cannot write {self.path}: the folder of this run was deleted, moved or replaced "
                "while it trained, so the run has ended; go on from its folder if you have moved "
                "it, or begin the run again"
            )


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where a run writes.

    Args:
        path: The folder; it need not exist yet.
    """

    path: Path

    @classmethod
    def new(cls, label: str) -> RunFolder:
        """Make a folder below ``runs`` that nobody else has: the time, then ``label``."""
        now = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
        first = make_directory("runs") / f"{now}-{file_name(label)}"
        folder, number = first, 1
        while True:
            try:
                folder.mkdir()
            except FileExistsError:  # of a run that was started in the same second
                number += 1
                folder = first.with_name(f"{first.name}-{number}")
            else:
                return cls(folder)

    @property
    def weights(self) -> Path:
        """The weights, which a finished run has."""
        return self.path / WEIGHTS_NAME

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, there after the first epoch."""
        return self.path / CHECKPOINT_NAME

    @property
    def note(self) -> Path:
        """What the run is, there from the beginning."""
        return self.path / _NOTE_NAME

    def files(self) -> list[str]:
        """The names in it that a run would write; empty where one may start."""
        names = (WEIGHTS_NAME, CHECKPOINT_NAME, _NOTE_NAME, _RECIPE_NAME, _HISTORY_NAME)
        return [name for name in (*names, *_OF_COMMANDS) if (self.path / name).exists()]

    def is_run(self) -> bool:
        """Whether a run was started here."""
        return not {WEIGHTS_NAME, CHECKPOINT_NAME, _NOTE_NAME}.isdisjoint(self.files())

    def epochs_of_result(self) -> int | None:
        """How many epochs the run had when it ended; None where it has not, or does not tell."""
        try:
            records = json.loads((self.path / _HISTORY_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return len(records) if isinstance(records, list) and self.weights.exists() else None

    def remove_if_empty(self) -> None:
        """Remove the folder, unless something lies in it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[Hold]:
        """Let no other run write here, for the block; a process that dies loses the lock.

        Raises:
            CheckpointError: A run is at work here.
            OutputError: The folder cannot be written.
        """
        make_directory(self.path)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(self.path / _LOCK_NAME, wait=False))
            except Timeout:
                raise CheckpointError(
                    f"a run is at work in {self.path}; wait until it has ended or stop it, or "
                    "choose another output folder"
                ) from None
            if hasattr(os, "O_DIRECTORY"):  # while it is open, no other folder gets its number
                stack.callback(os.close, os.open(self.path, os.O_RDONLY))
            yield Hold(self.path, self.path.stat())

    @contextlib.contextmanager
    def claimed(
        self, facts: Mapping[str, Any], recipe: Recipe, hold: Hold, *, resumed: bool
    ) -> Iterator[dict[str, Any]]:
        """Note what the run is, before the block trains; yields what is noted.

        One that fails before its first checkpoint leaves nothing behind in the folder.

        Args:
            facts: What the run consists of beside its recipe: model, data, command.
            recipe: How it trains.
            hold: The lock on this folder.
            resumed: Whether it goes on: it then keeps the note that it began with, if there is one.

        Raises:
            CheckpointError: The folder holds another run, as one with other images, or a file that
                the run would replace.
            ArgumentError: JSON cannot hold one of the facts.
        """
        if resumed and self.note.exists():
            noted, planned = self.read()
            if planned != recipe:
                raise CheckpointError(
                    f"{self.path} holds a run with another recipe; choose another output folder"
                )
            check_checksums(noted, facts, f"{self.path} holds a run with")
            yield noted
            return
        written = self._claim(facts, recipe, resumed=resumed)
        try:
            yield dict(facts)
        except BaseException:
            if hold.is_there() and not self.checkpoint.exists():
                for path in written:
                    path.unlink(missing_ok=True)
            raise

    def read(self) -> tuple[dict[str, Any], Recipe]:
        """The facts and the recipe that were noted as the run began.

        Raises:
            CheckpointError: No run was started here, or its note is damaged.
        """
        plan = self.path / _RECIPE_NAME
        if not self.note.is_file() or not plan.is_file():
            raise CheckpointError(f"{self.path} holds no {_NOTE_NAME} and {_RECIPE_NAME} of a run")
        try:
            facts = json.loads(self.note.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"{self.note} cannot be read: {reason_of(error)}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self.note} is damaged: {error}; start the run again"
            ) from error
        return check_facts(facts, str(self.note), CheckpointError), Recipe.load(plan)

    def keep(
        self, network: nn.Module, facts: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
    ) -> list[Path]:
        """Write what remains of a run: its weights, which carry all the rest, and its history.

        Args:
            network: The trained network.
            facts: Provenance for the weights file: model, data, recipe, command.
            history: Its training, as ``History.to_list()`` has it.

        Returns:
            What was written. A network whose state is more than tensors has no weights file; its
            checkpoint holds it.
        """
        metadata = {
            **{key: value for key, value in facts.items() if key != _RESUMING},
            "history": history,
            "train_seconds": sum(record["seconds"] for record in history),
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        text = json.dumps(history, indent=1) + "\n"
        written = [write_text(self.path / _HISTORY_NAME, text)]
        if all(isinstance(part, Tensor) for part in unwrap(network).state_dict().values()):
            written.insert(0, save_weights(network, self.weights, metadata=metadata))
        return written

    def _claim(self, facts: Mapping[str, Any], recipe: Recipe, *, resumed: bool) -> list[Path]:
        """Write the note and the recipe; those of a run that came to nothing are replaced."""
        history = self.path / _HISTORY_NAME
        if history.exists() and not resumed:
            raise CheckpointError(
                f"{history} is the history of a run, which this one would replace; move it away, "
                "or choose another output folder"
            )
        plan = self.path / _RECIPE_NAME
        written = [self.note]
        if self.note.exists() or not plan.exists():
            written.append(plan)
        elif Recipe.load(plan) != recipe:
            raise CheckpointError(
                f"{plan} holds another recipe, which the run would replace; move it away, or "
                "choose another output folder"
            )
        try:
            text = json.dumps(facts, indent=1)
        except TypeError as error:
            raise ArgumentError(
                f"metadata and options must be plain data, as JSON holds it: {error}"
            ) from error
        self.note.unlink(missing_ok=True)  # of a run that is dead: the lock is ours
        write_text(self.note, text + "\n", replace=False)
        if plan in written:
            recipe.save(plan)
        return written


def check_checksums(before: Mapping[str, Any], now: Mapping[str, Any], whose: str) -> None:
    """Raise CheckpointError when a run would go on with another model or other images.

    Args:
        before: What it began with: names and checksums, as far as they are known.
        now: The same now.
        whose: How the message begins.
    """
    for role, what in _SAME.items():
        if role in before and role in now and before[role] != now[role]:
            raise CheckpointError(
                f"{whose} {what}; continue it with what it began with, or choose another output "
                "folder"
            )


def network_sha256(network: nn.Module) -> str:
    """Checksum of what a network's state does not tell: its layers, and which are frozen."""
    inner = unwrap(network)
    frozen = [name for name, p in inner.named_parameters() if not p.requires_grad]
    return hashlib.sha256(f"{inner}\n{frozen}".encode()).hexdigest()
