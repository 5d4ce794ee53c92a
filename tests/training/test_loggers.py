"""What loggers show and write."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from runs import PLAIN, Events, InterruptAt, make_trainer, same_state
from torch import nn

from cifarzoo import (
    ConsoleLogger,
    CSVLogger,
    EpochRecord,
    History,
    ImageSet,
    JSONLinesLogger,
    Logger,
    TensorBoardLogger,
)
from cifarzoo.errors import ArgumentError, MissingExtraError, OutputError
from cifarzoo.training import loop as run_module
from cifarzoo.training.loggers import RunStart, StepProgress

FIELDS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
]


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_TICK", 0.0)


def show(few: ImageSet, val: ImageSet | None, **options: Any) -> tuple[str, History]:
    """What a short run writes on a console."""
    console = Console(file=io.StringIO(), **options)
    history = make_trainer(loggers=[ConsoleLogger(console)]).fit(few, val)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), history


def plain(text: str) -> str:
    """Without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [80, 200])
def test_the_bar_shows_all_there_is_to_know(width: int, few: ImageSet) -> None:
    text, _ = show(few, None, force_terminal=True, width=width)
    assert re.search(
        r"epoch 2/2  loss \d\.\d{3}  acc \d+\.\d%  lr 0\.02  [\d,]+ images/s ━.* left \d:\d\d:\d\d",
        plain(text),
    )
    assert max(len(line) for line in re.split(r"[\r\n]", plain(text)) if "left" in line) <= width


def test_a_long_fast_run_still_fits_into_80_columns() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    logger = ConsoleLogger(console)
    start = RunStart(
        name="[/simple]",  # no markup
        network=nn.Identity(),
        recipe=PLAIN.replace(epochs=100),
        steps_per_epoch=400,
        epochs_done=0,
        history=History(),
        device=torch.device("cpu"),
        precision=torch.float32,
        compiled=False,
        images=torch.zeros(1, 3, 32, 32),
    )
    logger.on_start(start)
    logger.on_progress(StepProgress(10, 200, 1.23456, 0.54321, 0.012345, 12_345.6))
    logger.on_end(History())
    assert isinstance(console.file, io.StringIO)
    shown = "epoch 10/100  loss 1.235  acc 54.3%  lr 0.012  12,346 images/s"
    assert re.search(
        rf"{shown} ━+.* left (\d|-):(\d\d|--):(\d\d|--)", plain(console.file.getvalue())
    )


def test_a_wide_terminal_shows_the_share_and_the_time_too(few: ImageSet) -> None:
    text, _ = show(few, None, force_terminal=True, width=110)
    assert re.search(r"images/s ━+ +100% \d:\d\d:\d\d left \d:\d\d:\d\d", plain(text))


def test_the_bar_is_taken_away_in_the_end(few: ImageSet) -> None:
    text, _ = show(few, None, force_terminal=True, width=110)
    assert text.endswith("\x1b[1A\x1b[2K")  # up one line, and erase it


@pytest.mark.parametrize("is_terminal", [True, False])
def test_each_epoch_leaves_a_line(is_terminal: bool, few: ImageSet) -> None:
    text, history = show(few, few, force_terminal=is_terminal, width=200)
    for record in history.records:
        line = (
            f"epoch {record.epoch}/2  train loss {record.train_loss:.3f}"
            f"  train acc {record.train_accuracy:6.2%}  val loss {record.val_loss:.3f}"
            f"  val acc {record.val_accuracy:6.2%}  lr 0.02     {record.seconds:6.1f} s"
            f"  {record.images_per_second:>7,.0f} images/s"
        )
        assert line in plain(text)


def test_without_a_terminal_there_are_only_the_lines(few: ImageSet) -> None:
    text, _ = show(few, None, force_terminal=False, width=40)
    assert "\x1b" not in text
    lines = text.rstrip().splitlines()  # an older rich ends with an empty line
    assert len(lines) == 2
    assert all(line.startswith("epoch ") and line.endswith(" images/s") for line in lines)
    assert "val" not in text


def test_a_console_logger_writes_on_standard_error(
    few: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(loggers=[ConsoleLogger()]).fit(few)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 2/2  train loss" in err


class Gone(io.StringIO):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_is_gone_does_not_end_the_run(few: ImageSet) -> None:
    console = Console(file=Gone(), force_terminal=False)
    assert len(make_trainer(loggers=[ConsoleLogger(console)]).fit(few)) == 2


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_record(few: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "log.csv"
    history = make_trainer(loggers=[CSVLogger(path)]).fit(few)
    assert path.read_text().splitlines()[0] == ",".join(FIELDS)
    rows = read_csv(path)
    assert len(rows) == 2
    for row, record in zip(rows, history.records, strict=True):
        expected = {k: "" if v is None else str(v) for k, v in record.to_dict().items()}
        assert row == expected


def test_json_lines_hold_every_record(few: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "log.jsonl"
    history = make_trainer(loggers=[JSONLinesLogger(path)]).fit(few, few)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == history.to_list()
    assert list(rows[0]) == FIELDS


@pytest.mark.parametrize("at", [(1, 2), (2, 4), (3, 1)])
def test_files_go_on_where_the_run_goes_on(
    at: tuple[int, int], few: ImageSet, tmp_path: Path
) -> None:
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    recipe = PLAIN.replace(epochs=3)

    def loggers() -> list[Logger]:
        return [CSVLogger(table), JSONLinesLogger(lines)]

    stopped = make_trainer(recipe, output=tmp_path, loggers=[InterruptAt(*at), *loggers()])
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(few)
    history = make_trainer(recipe, output=tmp_path, loggers=loggers()).fit(few, resume=True)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == history.to_list()
    assert [row["epoch"] for row in read_csv(table)] == ["1", "2", "3"]
    assert table.read_text().count("epoch") == 1


@pytest.mark.parametrize("logger", [CSVLogger, JSONLinesLogger])
def test_a_row_that_a_kill_prevented_is_written_when_the_run_goes_on(
    logger: type[CSVLogger | JSONLinesLogger], few: ImageSet, tmp_path: Path
) -> None:
    path = tmp_path / "log"

    class Killed(Logger):
        """Comes after the checkpoint and before the row."""

        def on_epoch(self, record: EpochRecord) -> None:
            path.write_text("half a ro")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(output=tmp_path, loggers=[Killed(), logger(path)]).fit(few)
    make_trainer(output=tmp_path, loggers=[logger(path)]).fit(few, resume=True)
    text = path.read_text()
    assert "half" not in text
    assert len(text.splitlines()) == (3 if logger is CSVLogger else 2)


@pytest.mark.parametrize("logger", [CSVLogger, JSONLinesLogger])
def test_a_new_run_replaces_an_old_file(
    logger: type[CSVLogger | JSONLinesLogger], few: ImageSet, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_text("left over\n" * 50)
    make_trainer(PLAIN.replace(epochs=1), loggers=[logger(path)]).fit(few)
    assert "left over" not in path.read_text()
    assert len(path.read_text().splitlines()) == (2 if logger is CSVLogger else 1)


def test_a_file_that_cannot_be_written_is_an_output_error(few: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        make_trainer(loggers=[CSVLogger(tmp_path / "file" / "log.csv")]).fit(few)


def test_the_base_logger_does_nothing(few: ImageSet) -> None:
    watched, alone = make_trainer(loggers=[Logger()]), make_trainer()
    watched.fit(few)
    alone.fit(few)
    assert same_state(watched.model.state_dict(), alone.model.state_dict())


# TensorBoard


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_holds_scalars_graph_and_recipe(few: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "deeper" / "tb"
    history = make_trainer(loggers=[TensorBoardLogger(folder)]).fit(few, few)
    events = read_events(folder)
    columns = {
        "loss/train": "train_loss",
        "loss/val": "val_loss",
        "accuracy/train": "train_accuracy",
        "accuracy/val": "val_accuracy",
        "learning_rate": "learning_rate",
        "images_per_second": "images_per_second",
    }
    assert set(events.Tags()["scalars"]) == set(columns)
    for tag, column in columns.items():
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [1, 2]
        assert [s.value for s in scalars] == pytest.approx(history.column(column), rel=1e-6)
    nodes = " ".join(node.name for node in events.Graph().node)
    assert all(layer in nodes for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"))
    assert events.Tags()["tensors"] == ["recipe/text_summary"]


def test_tensorboard_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.on_epoch(EpochRecord(1, float("nan"), 0.5, None, None, 0.1, 1.0, 10.0))
    logger.on_end(History())
    found = read_events(tmp_path).Tags()["scalars"]
    assert sorted(found) == ["accuracy/train", "images_per_second", "learning_rate"]


def test_drawing_the_graph_changes_nothing(few: ImageSet, tmp_path: Path) -> None:
    images = few.subset(range(60))
    recipe = PLAIN.replace(epochs=1, batch_size=30)
    logger = TensorBoardLogger(tmp_path)
    watched = make_trainer(recipe, model="deep_bn", loggers=[logger])
    alone = make_trainer(recipe, model="deep_bn")
    watched.fit(images)
    alone.fit(images)
    assert same_state(watched.model.state_dict(), alone.model.state_dict())


def test_tensorboard_goes_on_where_the_run_goes_on(few: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "tb"
    stop = InterruptAt(1, 4)
    stopped = make_trainer(output=tmp_path, loggers=[stop, TensorBoardLogger(folder)])
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(few)
    trainer = make_trainer(output=tmp_path, loggers=[TensorBoardLogger(folder)])
    trainer.fit(few, resume=True)
    assert [s.step for s in read_events(folder).Scalars("loss/train")] == [1, 2]


def test_without_tensorboard_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError) as caught:
        TensorBoardLogger(tmp_path / "tb")
    expected = "TensorBoardLogger needs tensorboard: pip install 'cifarzoo[tensorboard]'"
    assert str(caught.value) == expected
    assert not (tmp_path / "tb").exists()


def test_a_logger_that_cannot_start_is_the_error_that_is_seen(few: ImageSet) -> None:
    class Broken(Logger):
        def on_start(self, run: RunStart) -> None:
            raise OutputError("no room")

    first = Events()
    with pytest.raises(OutputError, match="no room"):
        make_trainer(loggers=[first, Broken(), ConsoleLogger()]).fit(few)
    assert len(first.histories) == 1


@pytest.mark.parametrize("loggers", [ConsoleLogger, [ConsoleLogger], [print]])
def test_what_is_no_logger_is_refused(loggers: Any) -> None:
    with pytest.raises(ArgumentError, match="loggers must be Logger objects"):
        make_trainer(loggers=loggers)
