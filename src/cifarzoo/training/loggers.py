"""Loggers: the one way to watch a run. Each is told of its start, progress, epochs and end."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import ArgumentError, MissingExtraError, OutputError
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import cannot_write, make_directory, write_text
from cifarzoo.names import whole_number
from cifarzoo.recipe import Recipe
from cifarzoo.training.history import EpochRecord, History

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "CSVLogger",
    "ConsoleLogger",
    "EarlyStopping",
    "JSONLinesLogger",
    "Logger",
    "RunStart",
    "StepProgress",
    "TensorBoardLogger",
    "scalars",
]


@dataclasses.dataclass(frozen=True)
class RunStart:
    """Holds what is known when a run starts or continues.

    Args:
        name: Name of the model.
        network: The module that is trained.
        recipe: Recipe of the run.
        steps_per_epoch: Number of optimizer steps in an epoch.
        epochs_done: Number of finished epochs; above 0 if the run continues.
        history: Records of the finished epochs.
        device: Device that the run computes on.
        precision: Dtype that the run computes in.
        compiled: Whether torch.compile has compiled the network.
        images: One batch as the network sees it, (B, 3, H, W).
    """

    name: str
    network: nn.Module
    recipe: Recipe
    steps_per_epoch: int
    epochs_done: int
    history: History
    device: torch.device
    precision: torch.dtype
    compiled: bool
    images: Tensor


@dataclasses.dataclass(frozen=True)
class StepProgress:
    """Says where the run stands; loggers receive it a few times a second, not at every step.

    Args:
        epoch: Number of the running epoch, from 1.
        step: Number of finished steps of this epoch.
        loss: Mean training loss of the epoch so far.
        accuracy: Training accuracy of the epoch so far, 0..1.
        learning_rate: Learning rate of the first parameter group.
        images_per_second: Number of training images a second, in this epoch so far.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float
    learning_rate: float
    images_per_second: float


class Logger:
    """Base class of all loggers; override the methods that you need."""

    def on_start(self, run: RunStart) -> None:
        """Called when the run starts or continues."""

    def on_progress(self, progress: StepProgress) -> None:
        """Called a few times a second, after some steps."""

    def on_epoch(self, record: EpochRecord) -> bool | None:
        """Called after each epoch; return True to end the run, as after the last epoch."""

    def is_over(self, history: History) -> bool:
        """Called before a saved run goes on; return True if you have ended it already."""
        return False

    def on_end(self, history: History) -> None:
        """Called when the run has ended, was interrupted or failed; close what is open."""


class EarlyStopping(Logger):
    """Ends a run that no longer gets better on the validation images.

    Most schedules lower the learning rate until the end of the run, and early stopping cuts this
    off. So use it with a schedule that stays constant or follows the loss ("constant", "plateau").
    It keeps the network of the last epoch; ``Trainer(keep="best")`` keeps that of the best one.

    Args:
        patience: Number of epochs in a row without a better result, after which the run ends.
        by: Measurement that is compared: "val_accuracy", or "val_loss", which is better when it is
            lower.
        least: Smallest difference that counts as better.

    Raises:
        ArgumentError: ``patience`` is below 1, or ``by`` has another value.

    Example:
        >>> stopping = EarlyStopping(patience=3)
    """

    def __init__(
        self,
        patience: int = 10,
        *,
        by: Literal["val_accuracy", "val_loss"] = "val_accuracy",
        least: float = 0.0,
    ) -> None:
        if whole_number(patience) is None or patience < 1:
            raise ArgumentError(f"patience must be a whole number of at least 1; got {patience!r}")
        if by not in ("val_accuracy", "val_loss"):
            raise ArgumentError(f"by must be 'val_accuracy' or 'val_loss'; got {by!r}")
        self._patience, self._by, self._least = patience, by, least
        self._best, self._waited = -math.inf, 0

    def on_start(self, run: RunStart) -> None:
        """Begin, or go on as if there had been no interruption."""
        self.is_over(run.history)

    def is_over(self, history: History) -> bool:
        """Tell whether the epochs so far end the run."""
        self._best, self._waited = -math.inf, 0
        answers = [self.on_epoch(record) for record in history.records]
        return any(answers)

    def on_epoch(self, record: EpochRecord) -> bool:
        """End the run after ``patience`` epochs without a better result."""
        value = getattr(record, self._by)
        if value is None:
            raise ArgumentError("early stopping needs validation images; pass them to fit()")
        value = value if self._by == "val_accuracy" else -value
        if value > self._best + self._least:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        return self._waited >= self._patience


_PARTS = 1_000_000  # of the bar


class ConsoleLogger(Logger):
    """Shows a progress bar and a line for each epoch.

    The bar has the loss, the accuracy, the learning rate, the images per second and the time that
    is left. If the terminal is gone, as after SIGHUP, the run still saves what it has.

    Args:
        console: The rich console to draw on; unless given, the notebook, or else standard error.
            Without a terminal or a notebook, only the lines are written.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)

    def on_start(self, run: RunStart) -> None:
        """Draw the bar of the whole run."""
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        from cifarzoo.display.bar import moving_bar

        if run.compiled:
            with _unseen():
                self._console.print("compiling the network: the first steps take longer")
        self._recipe = run.recipe
        self._steps = run.steps_per_epoch
        is_wide = self._console.width >= 110
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),  # gives way first where the terminal is narrow
            *((TaskProgressColumn(), TimeElapsedColumn()) if is_wide else ()),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )
        # without a terminal the bar would only leave empty lines between the epochs
        self._bar = moving_bar(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(
            escape(run.name), total=_PARTS, completed=self._share(run.epochs_done)
        )
        with _unseen():
            self._bar.start()

    def on_progress(self, progress: StepProgress) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            completed=self._share(progress.epoch - 1 + progress.step / self._steps),
            description=(
                f"epoch {progress.epoch}/{self._recipe.epochs}  loss {progress.loss:.3f}  "
                f"acc {progress.accuracy:.1%}  lr {progress.learning_rate:.2g}  "
                f"{progress.images_per_second:,.0f} images/s"
            ),
        )

    def on_epoch(self, record: EpochRecord) -> None:
        """Write the epoch's line above the bar."""
        validation = (
            f"  val loss {record.val_loss:.3f}  val acc {record.val_accuracy:6.2%}"
            if record.val_loss is not None
            else ""
        )
        with _unseen():
            self._console.print(
                f"epoch {record.epoch:>{len(str(self._recipe.epochs))}}/{self._recipe.epochs}"
                f"  train loss {record.train_loss:.3f}  train acc {record.train_accuracy:6.2%}"
                f"{validation}  lr {record.learning_rate:<8.2g} {record.seconds:6.1f} s"
                f"  {record.images_per_second:>7,.0f} images/s",
                highlight=False,
                soft_wrap=True,
            )
        self._bar.update(self._task, completed=self._share(record.epoch))

    def on_end(self, history: History) -> None:
        """Take the bar away."""
        with _unseen():
            self._bar.stop()

    def _share(self, epochs: float) -> int:
        # steps at small images are quick: counted alike, the time left would start far too short
        return round(_PARTS * self._recipe.work_share(epochs / self._recipe.epochs))


def _unseen() -> contextlib.AbstractContextManager[None]:
    return contextlib.suppress(OSError)


class _FileLogger(Logger):
    """Appends to a file; a run that starts anew replaces it, one that continues completes it."""

    def __init__(self, path: str | Path) -> None:
        self.path = home_path(path).absolute()  # the program may go to another folder meanwhile
        if self.path.is_dir():
            raise OutputError(f"cannot write {self.path}: it is a folder; name a file in it")

    def is_over(self, history: History) -> bool:
        """Bring the file to where the run is: a kill may have come between an epoch and its row."""
        if len(history):
            self._complete(history)
        return False

    def on_start(self, run: RunStart) -> None:
        """Begin the file anew, or complete it."""
        make_directory(self.path.parent)
        if len(run.history):
            self._complete(run.history)
        else:
            self.path.unlink(missing_ok=True)

    def _complete(self, history: History) -> None:
        write_text(self.path, self._head() + "".join(map(self._row, history.records)))

    def on_epoch(self, record: EpochRecord) -> None:
        """Append the epoch's row."""
        self._append(("" if self.path.exists() else self._head()) + self._row(record))

    def _append(self, text: str) -> None:
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _head(self) -> str:
        return ""

    def _row(self, record: EpochRecord) -> str:
        raise NotImplementedError


class CSVLogger(_FileLogger):
    """Writes a CSV file with a row for each epoch, below a header.

    Args:
        path: The file.
    """

    def _head(self) -> str:
        return ",".join(field.name for field in dataclasses.fields(EpochRecord)) + "\r\n"

    def _row(self, record: EpochRecord) -> str:
        line = io.StringIO()
        csv.writer(line).writerow(record.to_dict().values())
        return line.getvalue()


class JSONLinesLogger(_FileLogger):
    """Writes a file with a line for each epoch, which is a JSON object.

    Args:
        path: The file.
    """

    def _row(self, record: EpochRecord) -> str:
        return json.dumps(record.to_dict()) + "\n"


def scalars(record: EpochRecord) -> dict[str, float]:
    """The numbers of an epoch under the names that others show, where there are any."""
    found = {
        "loss/train": record.train_loss,
        "loss/val": record.val_loss,
        "accuracy/train": record.train_accuracy,
        "accuracy/val": record.val_accuracy,
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
    }
    return {name: x for name, x in found.items() if x is not None and math.isfinite(x)}


class TensorBoardLogger(Logger):
    """Writes loss, accuracy, learning rate and the network's graph into a TensorBoard log.

    Args:
        folder: Folder of the log.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                "TensorBoardLogger needs tensorboard: pip install 'cifarzoo[tensorboard]'"
            ) from error
        self._folder, self._make = folder, SummaryWriter

    @functools.cached_property
    def _writer(self) -> Any:
        """Made when it is used: before, the folder may be that of another run."""
        return self._make(str(make_directory(self._folder)))

    def on_start(self, run: RunStart) -> None:
        """Draw the graph, once."""
        if run.epochs_done:
            return
        images = run.images[:1].float()
        # a traced pass in training mode would change the running statistics
        with warnings.catch_warnings(), torch.no_grad(), evaluating(run.network) as network:
            warnings.simplefilter("ignore")  # tracing warns of every shape check
            self._writer.add_graph(network, images)
        self._writer.add_text("recipe", f"```\n{json.dumps(run.recipe.to_dict(), indent=1)}\n```")

    def on_epoch(self, record: EpochRecord) -> None:
        """Add the epoch's scalars."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def on_end(self, history: History) -> None:
        """Close the log."""
        self._writer.close()
