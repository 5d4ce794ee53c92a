"""What a run must not touch or take over: another run's files, images and name."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from runs import Events, InterruptAt, make_trainer

from cifarzoo import CSVLogger, History, ImageSet, JSONLinesLogger, Logger, Recipe
from cifarzoo.errors import CheckpointError, InputError, OutputError
from cifarzoo.training import loop as run_module


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_TICK", 0.0)


RECIPE = Recipe(epochs=2, batch_size=50)


def interrupt(train: ImageSet, folder: Path, *loggers: Logger) -> None:
    trainer = make_trainer(RECIPE, output=folder, loggers=[*loggers, InterruptAt(1, 2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train)


def test_finished_weights_of_another_run_are_not_replaced(few: ImageSet, tmp_path: Path) -> None:
    make_trainer(RECIPE, output=tmp_path / "done").fit(few)
    (tmp_path / "done/checkpoint.pt").unlink()  # it takes more space than the weights
    before = (tmp_path / "done/weights.safetensors").read_bytes()
    interrupt(few, tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"would replace .*weights\.safetensors"):
        make_trainer(RECIPE, output=tmp_path / "done").fit(few, resume=tmp_path / "other")
    assert (tmp_path / "done/weights.safetensors").read_bytes() == before


def test_a_run_goes_on_with_the_images_that_it_began_with(few: ImageSet, tmp_path: Path) -> None:
    interrupt(few, tmp_path / "run")
    other = ImageSet(few.images, (few.labels + 1) % 10, few.classes, "others")
    with pytest.raises(CheckpointError, match="with other training images; continue it with"):
        make_trainer(RECIPE, output=tmp_path / "run").fit(other, resume=True)
    assert len(make_trainer(RECIPE, output=tmp_path / "run").fit(few, resume=True)) == 2


class Failing(Logger):
    """Cannot say goodbye."""

    def on_end(self, history: History) -> None:
        raise OSError("the server is gone")


def test_a_logger_that_fails_at_the_end_costs_no_result(
    few: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    caplog.set_level(logging.ERROR, "cifarzoo")
    make_trainer(RECIPE, output=tmp_path / "run", loggers=[Failing(), events]).fit(few)
    assert (tmp_path / "run/weights.safetensors").exists()
    assert "Failing failed as the run ended" in caplog.text
    assert events.names[-1] == "end"


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
def test_a_file_whose_last_row_was_lost_is_completed(
    kind: type[CSVLogger] | type[JSONLinesLogger], few: ImageSet, tmp_path: Path
) -> None:
    file = tmp_path / "history"
    make_trainer(RECIPE, output=tmp_path / "run", loggers=[kind(file)]).fit(few)
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    make_trainer(RECIPE, output=tmp_path / "run", loggers=[kind(file)]).fit(few, resume=True)
    assert file.read_bytes() == whole


def test_a_run_stays_in_its_folder_wherever_the_program_goes(
    few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(RECIPE, output="run", loggers=[CSVLogger("rows.csv")])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    trainer.fit(few)
    assert (tmp_path / "run/weights.safetensors").exists()
    assert (tmp_path / "rows.csv").exists()
    assert not [*Path().iterdir()]


@pytest.mark.parametrize("path", ["", "."])
def test_a_folder_is_no_file_to_log_to(path: str) -> None:
    with pytest.raises(OutputError, match="it is a folder; name a file in it"):
        CSVLogger(path)


@pytest.mark.parametrize(
    "text", ["{}", '""', '[{"epoch": 1}]', "[" * 100_000, '[{"epoch": 1, "epoch": 2}]']
)
def test_what_is_no_history_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(InputError, match="cannot read a training history"):
        History.load(tmp_path / "history.json")
