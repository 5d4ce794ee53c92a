"""The queue of `zoo.py`: what is trained next, one run at a time, and what is left.

The list of entries is a TOML file. Each run is a process of ``cifarzoo train`` with a folder of its
own, so that a stopped run goes on by ``cifarzoo train --resume``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from finished_weights import keep

import cifarzoo
from cifarzoo import read_metadata
from cifarzoo.compute.machine import describe_machine
from cifarzoo.errors import CifarZooError
from cifarzoo.files.writing import make_directory, write_text
from cifarzoo.training.checkpoint import CHECKPOINT_NAME
from cifarzoo.zoo.weights import WEIGHTS_NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Entry", "Queue", "QueueError", "Run", "read_list"]

SHORT = 20  # minutes; shorter runs come first, the shortest at the head
_NOTE_NAME = "queue.json"  # in the folder of a run: its entry, and the commits that trained it


class QueueError(CifarZooError):
    """The list cannot be read, another queue is at work, or a run failed."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the list: a network and how it is trained, with one or more seeds.

    Args:
        name: What the runs are called, with the seed behind it.
        model: The network; an entry waits until one of this name is registered.
        minutes: How long a run is thought to take on two cores with bfloat16.
        why: What the entry is for.
        recipe: The recipe that it starts from.
        changes: Fields of the recipe that differ, as for ``cifarzoo train --set``.
        best_of: Trials; recipe and changes are those of the best of them.
        val_size: 0 for a final run on all images; otherwise the entry is a trial, measured on so
            many held-out images.
        seeds: The seeds.
        needs_bfloat16: Whether it waits for a processor that computes bfloat16.
        data: The images.
    """

    name: str
    model: str
    minutes: float
    why: str
    recipe: str = "default"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    best_of: Sequence[str] = ()
    val_size: int = 0
    seeds: Sequence[int] = (0,)
    needs_bfloat16: bool = False
    data: str = "cifar10"


@dataclasses.dataclass(frozen=True)
class Run:
    """An entry with one of its seeds."""

    entry: Entry
    seed: int

    @property
    def name(self) -> str:
        """What its folder, its weights and its line in the log are called."""
        return f"{self.entry.name}-{self.seed}"


def read_list(path: Path) -> list[Entry]:
    """The entries of a list.

    Raises:
        QueueError: It is not TOML, an entry has unknown or missing fields, or two have one name.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["entry"]
        entries = [Entry(**table) for table in tables]
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise QueueError(f"{path} is no list of entries: {error}") from error
    names = [entry.name for entry in entries]
    twice = {name for name in names if names.count(name) > 1}
    unknown = {name for entry in entries for name in entry.best_of} - set(names)
    if twice or unknown:
        raise QueueError(f"{path}: names used twice {sorted(twice)}, unknown {sorted(unknown)}")
    return entries


class Queue:
    """The runs of a list, those in progress and those that are finished.

    Args:
        listing: The TOML file; it is read again before each run, so it may grow meanwhile.
        home: Folder for the runs in progress.
        results: Folder for finished weights, and for the log of all finished runs.
        commit: The commit that the code is of, for the metadata.
        program: What trains, as the start of a command line.
    """

    def __init__(
        self,
        listing: Path,
        home: Path,
        results: Path,
        *,
        commit: str = "",
        program: Sequence[str] = (sys.executable, "-m", "cifarzoo"),
    ) -> None:
        self.listing = listing
        self.home = home
        self.log = results / "log.jsonl"
        self.commit = commit
        self._program = program
        self._failed: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    # what there is to do

    def finished(self) -> dict[str, dict[str, Any]]:
        """The lines of the log, by the name of their run."""
        if not self.log.exists():
            return {}
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
        return {line["run"]: line for line in found}

    def left(self) -> list[Run]:
        """The runs that are not finished, in the order in which they come.

        What was begun comes first, then runs under 20 minutes, the shortest first, then the others
        as they are listed.
        """
        done = self.finished()
        entries = read_list(self.listing)
        runs = [Run(entry, seed) for entry in entries for seed in entry.seeds]

        def rank(run: Run) -> tuple[bool, bool, float, int]:
            minutes = run.entry.minutes
            is_long = minutes >= SHORT
            place = entries.index(run.entry)
            return not self._is_begun(run), is_long, 0 if is_long else minutes, place

        return sorted((run for run in runs if run.name not in done), key=rank)

    def reason_to_wait(self, run: Run, left: Iterable[Run]) -> str:
        """Why ``run`` cannot be trained now; empty when it can."""
        entry = run.entry
        if run.name in self._failed:
            return self._failed[run.name]
        if entry.model not in cifarzoo.list_models():
            return f"{entry.model} is not registered yet"
        if entry.needs_bfloat16 and not describe_machine(torch.device("cpu"))["bfloat16"]:
            return "this processor has no bfloat16"
        trials = {
            other.name
            for other in left
            if other.entry.model == entry.model and other.entry.val_size
        }
        if trials and not entry.val_size:
            return f"comes after {', '.join(sorted(trials))}"
        return ""

    def minutes_left(self, run: Run) -> float:
        """How long ``run`` is thought to take from where it stands."""
        done, epochs = self._progress(run)
        return run.entry.minutes * (1 - done / max(epochs, 1))

    def describe(self) -> str:
        """What is left, with hours."""
        left = self.left()
        rows, hours, waiting = [], 0.0, 0.0
        for run in left:
            minutes, reason = self.minutes_left(run), self.reason_to_wait(run, left)
            done, epochs = self._progress(run)
            hours, waiting = (
                (hours, waiting + minutes / 60)
                if reason and not reason.startswith("comes after")
                else (hours + minutes / 60, waiting)
            )
            note = f"waits: {reason}" if reason else f"{done} of {epochs} epochs" if done else ""
            rows.append(f"{run.name:32} {minutes:5.0f} min  {note}".rstrip())
        summary = (
            f"{len(self.finished())} runs finished, {len(left)} left: {hours:.1f} hours to train, "
            f"{waiting:.1f} hours wait"
        )
        return "\n".join([*rows, summary])

    # the work

    def work(self) -> int:
        """Train what is left, one run after another, until nothing is left that can be trained.

        Returns:
            How many runs failed.

        Raises:
            QueueError: Another queue is at work, or the list cannot be read.
        """
        with self._lock() as held, self._forward_signals():
            while not self._is_stopped:
                left = self.left()
                run = next((run for run in left if not self.reason_to_wait(run, left)), None)
                if run is None:
                    break
                print(f"{time.strftime('%F %T')} {run.name}: {run.entry.why}", flush=True)
                try:
                    if self._train(run, held):
                        print(json.dumps(self._finish(run)), flush=True)
                except QueueError as error:
                    self._failed[run.name] = str(error)
                print(self.describe(), flush=True)
        return len(self._failed)

    def stop(self) -> bool:
        """Ask the queue that is at work to save its run and end; False if there is none."""
        try:
            with self._lock():
                return False
        except QueueError:
            try:
                os.kill(int((self.home / "lock").read_text(encoding="utf-8")), signal.SIGTERM)
            except ProcessLookupError as error:
                raise QueueError(
                    "the queue was killed, and the run that it left behind is still at work; let "
                    "it end, or stop its `cifarzoo train`"
                ) from error
            return True

    def _folder(self, run: Run) -> Path:
        return self.home / "runs" / run.name

    def _is_begun(self, run: Run) -> bool:
        return (self._folder(run) / CHECKPOINT_NAME).exists()

    def _progress(self, run: Run) -> tuple[int, int]:
        """Finished epochs, and all of them."""
        folder = self._folder(run)
        history = folder / "history.csv"
        if not (self._is_begun(run) and history.exists()):  # the first row follows the checkpoint
            return 0, 0
        lines = history.read_text(encoding="utf-8").splitlines()
        return len(lines) - 1, cifarzoo.Recipe.load(folder / "recipe.toml").epochs

    def _prepare(self, run: Run) -> list[str]:
        """The call of ``cifarzoo`` that begins ``run``, or goes on from where it stopped."""
        folder = self._folder(run)
        spec = dataclasses.asdict(self._settled(run.entry)) | {"seed": run.seed}
        note = folder / _NOTE_NAME
        if self._is_begun(run):
            facts = json.loads(note.read_text(encoding="utf-8"))
            if _identity(facts["spec"]) != _identity(spec):
                raise QueueError(f"{folder} was begun with other settings; rename the entry")
            command = ["train", "--resume", str(folder)]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # of a run killed before its first checkpoint
            make_directory(folder)
            facts = {"spec": spec, "commits": []}
            command = _command(spec)
        if self.commit not in facts["commits"]:
            facts["commits"].append(self.commit)
        write_text(note, json.dumps(facts))
        return command

    def _train(self, run: Run, held: int) -> bool:
        """Run ``cifarzoo train``; whether it came to its end, and was not asked to stop."""
        command = self._prepare(run)
        # a session of its own: Ctrl-C reaches it once, from here; the lock lives as long as it does
        place = self._folder(run) / "output.txt"
        with place.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._program, *command],
                cwd=self.home / "runs",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[held],
            )
        if self._is_stopped:
            self._process.terminate()
        code = self._process.wait()
        if code and not self._is_stopped:
            raise QueueError(f"failed with exit status {code}, see {place}")
        return code == 0

    def _settled(self, entry: Entry) -> Entry:
        """``entry`` with the recipe of the best of its trials, if it has any."""
        if not entry.best_of:
            return entry
        lines = [line for line in self.finished().values() if line["entry"] in entry.best_of]
        best = max(lines, key=lambda line: float(line["validation_accuracy"]["none"]))
        return dataclasses.replace(
            entry, recipe=best["recipe"], changes={**best["changes"], **entry.changes}
        )

    def _finish(self, run: Run) -> dict[str, Any]:
        """Measure a trained run, keep its weights if it is final, and note it in the log."""
        folder = self._folder(run)
        facts = read_metadata(folder / WEIGHTS_NAME)["metadata"]
        note = json.loads((folder / _NOTE_NAME).read_text(encoding="utf-8"))
        line: dict[str, Any] = {
            "date": time.strftime("%F"),
            "run": run.name,
            "entry": run.entry.name,
            "model": run.entry.model,
            "recipe": note["spec"]["recipe"],
            "changes": note["spec"]["changes"],
            "seed": run.seed,
            "val_size": run.entry.val_size,
            "epochs": facts["recipe"]["epochs"],
            "minutes": round(facts["train_seconds"] / 60, 1),
            "processor": facts["machine"]["processor"],
            "precision": facts["precision"],
            "commits": note["commits"],
        }
        if run.entry.val_size:  # a choice follows, so that test images have no place in it
            line["validation_accuracy"] = facts["validation_accuracy"]
        else:
            line |= keep(folder, self.log.parent / f"{run.name}.safetensors", note["commits"])
        make_directory(self.log.parent)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        (folder / CHECKPOINT_NAME).unlink()
        return line

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        """Hold the one lock; a run whose queue was killed holds it too."""
        make_directory(self.home / "runs")
        with (self.home / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise QueueError(
                    f"another queue, process {file.read()}, or a run that it left behind is at "
                    f"work in {self.home}; see --state, or end it with --stop"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield file.fileno()

    @contextlib.contextmanager
    def _forward_signals(self) -> Iterator[None]:
        """Hand a request to stop on to the run, which saves itself."""

        def request(signum: int, frame: FrameType | None) -> None:
            self._is_stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, request) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)


def _identity(spec: Mapping[str, Any]) -> str:
    """What a run is made of; estimate, reason, needs and other seeds may change meanwhile.

    What was chosen among trials stays chosen: a later trial does not change a run that has begun.
    """
    facts = {key: value for key, value in spec.items() if key != "seed"}
    entry = dataclasses.replace(Entry(**facts), minutes=0, why="", seeds=(), needs_bfloat16=False)
    if entry.best_of:
        entry = dataclasses.replace(entry, recipe="", changes={}, best_of=("some",))
    return json.dumps(dataclasses.asdict(entry) | {"seed": spec["seed"]}, sort_keys=True)


def _command(spec: Mapping[str, Any]) -> list[str]:
    command = ["train", spec["model"], "--recipe", spec["recipe"], "--data", spec["data"]]
    for field, value in spec["changes"].items():
        command += ["--set", f"{field}={json.dumps(value)}"]
    command += ["--seed", str(spec["seed"]), "--val-size", str(spec["val_size"])]
    # a relative folder: the command is written into the metadata, and is run in the queue's folder
    return [*command, "--output", f"{spec['name']}-{spec['seed']}"]
