"""The best epoch's network, and runs that end early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import PLAIN, Events, InterruptAt, make_trainer, same_state, weights
from torch import Tensor, nn

from cifarzoo import (
    EarlyStopping,
    EpochRecord,
    History,
    ImageSet,
    Logger,
    Trainer,
    create_model,
    evaluate,
    load_model,
    read_metadata,
)
from cifarzoo.errors import ArgumentError, CheckpointError
from cifarzoo.training import loop

SIX = PLAIN.replace(epochs=6, learning_rate=0.05)


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers are told of every step, so that a run can be stopped after any."""
    monkeypatch.setattr(loop, "_TICK", 0.0)


class Watch(Logger):
    """Keeps a copy of the network after each epoch."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.states = network, list[dict[str, Tensor]]()

    def on_epoch(self, record: EpochRecord) -> None:
        self.states.append(weights(self.network))


@pytest.fixture(scope="module")
def parts(sample_train: ImageSet) -> tuple[ImageSet, ImageSet]:
    train, val = sample_train.split(100)
    return train.split(200)[1], val


def best_of(history: History) -> int:
    accuracies = history.column("val_accuracy")
    return accuracies.index(max(accuracies))  # the first of equals


def test_the_network_of_the_best_epoch_is_handed_over(
    parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    trainer = make_trainer(SIX, keep="best", output=tmp_path / "run")
    watch = Watch(trainer.model)
    trainer.loggers = (watch,)
    history = trainer.fit(*parts)
    best = best_of(history)
    assert best != len(history) - 1  # or the test shows nothing
    assert same_state(weights(trainer.model), watch.states[best])
    report = evaluate(trainer.model, parts[1], device="cpu", precision="float32")
    assert report.accuracy == history[best].val_accuracy
    metadata = read_metadata(tmp_path / "run")["metadata"]
    assert metadata["kept_epoch"] == best + 1
    assert len(metadata["history"]) == 6


def test_the_last_epochs_network_is_kept_unless_asked(parts: tuple[ImageSet, ImageSet]) -> None:
    trainer = make_trainer(SIX)
    watch = Watch(trainer.model)
    trainer.loggers = (watch,)
    trainer.fit(*parts)
    assert same_state(weights(trainer.model), watch.states[-1])


def test_of_averaged_weights_the_averaged_network_is_kept(
    parts: tuple[ImageSet, ImageSet],
) -> None:
    trainer = make_trainer(SIX.replace(ema_decay=0.5), keep="best")
    history = trainer.fit(*parts)
    report = evaluate(trainer.model, parts[1], device="cpu", precision="float32")
    assert report.accuracy == max(history.column("val_accuracy"))


def test_the_best_is_known_after_an_interruption(
    parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    whole = make_trainer(SIX, keep="best")
    best = best_of(whole.fit(*parts))
    stopped = make_trainer(
        SIX, keep="best", output=tmp_path / "run", loggers=[InterruptAt(min(best + 2, 6), 2)]
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*parts)
    again = make_trainer(SIX, keep="best", output=tmp_path / "run")
    again.fit(*parts, resume=True)
    assert same_state(weights(whole.model), weights(again.model))


def test_a_run_that_kept_no_best_cannot_be_asked_for_it_later(
    parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_trainer(SIX, output=tmp_path / "run", loggers=[InterruptAt(2, 2)]).fit(*parts)
    again = make_trainer(SIX, keep="best", output=tmp_path / "run")
    before = weights(again.model)
    with pytest.raises(CheckpointError, match="begun with keep='last'"):
        again.fit(*parts, resume=True)
    assert same_state(before, weights(again.model))


@pytest.mark.parametrize("val", [None, "test"])
def test_nothing_is_chosen_without_validation_or_by_test_images(
    val: Any, few: ImageSet, sample_test: ImageSet, tmp_path: Path
) -> None:
    trainer = make_trainer(keep="best", output=tmp_path / "run")
    message = "needs validation images" if val is None else "test images decide nothing"
    with pytest.raises(ArgumentError, match=message):
        trainer.fit(few, None if val is None else sample_test)
    assert not list((tmp_path / "run").iterdir())


def test_keep_is_last_or_best() -> None:
    with pytest.raises(ArgumentError, match="keep must be 'last' or 'best'; got 'first'"):
        make_trainer(keep="first")


def record(epoch: int, accuracy: float | None, loss: float | None = None) -> EpochRecord:
    return EpochRecord(epoch, 1.0, 0.5, loss, accuracy, 0.1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("patience", "least", "accuracies", "stops_after"),
    [
        (1, 0.0, [0.1, 0.2, 0.2], 3),
        (2, 0.0, [0.3, 0.2, 0.3, 0.4], 3),
        (2, 0.0, [0.3, 0.2, 0.31, 0.1, 0.2], 5),
        (2, 0.05, [0.3, 0.31, 0.32], 3),
        (9, 0.0, [0.1] * 9, None),
    ],
)
def test_patience_ends(
    patience: int, least: float, accuracies: list[float], stops_after: int | None
) -> None:
    stopping = EarlyStopping(patience, least=least)
    found = [stopping.on_epoch(record(i, x)) for i, x in enumerate(accuracies, 1)]
    assert found == [i == stops_after for i in range(1, len(accuracies) + 1)]


def test_the_loss_is_better_when_it_is_lower() -> None:
    stopping = EarlyStopping(1, by="val_loss")
    assert [stopping.on_epoch(record(1, 0.5, loss)) for loss in (3.0, 2.0, 2.5)] == [
        False,
        False,
        True,
    ]


def test_a_run_ends_early_with_all_it_has(parts: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    class AfterTwo(Logger):
        def on_epoch(self, record: EpochRecord) -> bool:
            return record.epoch == 2

    events = Events()
    trainer = make_trainer(
        SIX.replace(ema_decay=0.5), output=tmp_path / "run", loggers=[AfterTwo(), events]
    )
    history = trainer.fit(*parts)
    assert len(history) == 2
    assert len(read_metadata(tmp_path / "run")["metadata"]["history"]) == 2
    report = evaluate(trainer.model, parts[1], device="cpu", precision="float32")
    assert report.accuracy == history[-1].val_accuracy  # the averaged weights were handed over
    two = make_trainer(SIX.replace(ema_decay=0.5, epochs=6))
    assert trainer.model.training == two.model.training


@pytest.mark.parametrize("fields", [{"ema_decay": 0.9}, {"lookahead_decay": 0.9}])
def test_the_checkpoint_of_a_run_that_ends_early_holds_what_it_hands_over(
    fields: dict[str, float], parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    class AfterTwo(Logger):
        def on_epoch(self, record: EpochRecord) -> bool:
            return record.epoch == 2

    model = create_model("deep_bn", seed=0)  # it has batch normalization
    recipe = SIX.replace(learning_rate=0.1, **fields)
    trainer = Trainer(model, recipe, device="cpu", output=tmp_path, loggers=[AfterTwo()])
    trainer.fit(parts[0])
    saved = load_model(tmp_path / "checkpoint.pt").state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_early_stopping_goes_on_as_if_there_had_been_no_interruption(
    parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    def trainer(*loggers: Logger, **options: Any) -> Any:
        recipe = SIX.replace(learning_rate=1e-6, epochs=9)  # nothing is learned
        return make_trainer(recipe, loggers=[EarlyStopping(4), *loggers], **options)

    whole = trainer().fit(*parts)
    assert len(whole) < 9
    with pytest.raises(KeyboardInterrupt):
        trainer(InterruptAt(3, 2), output=tmp_path / "run").fit(*parts)
    again = trainer(output=tmp_path / "run").fit(*parts, resume=True)
    assert len(again) == len(whole)
    # it has ended; whoever has more patience may go on
    kept = (tmp_path / "run" / "weights.safetensors").read_bytes()
    for _ in range(2):
        trainer(output=tmp_path / "run").fit(*parts, resume=True)
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == kept
    longer = make_trainer(SIX.replace(learning_rate=1e-6, epochs=9), output=tmp_path / "run")
    assert len(longer.fit(*parts, resume=True)) == 9
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() != kept


def test_the_command_line_leaves_early_stopping_to_python(
    parts: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    make_trainer(SIX, loggers=[EarlyStopping(4)], output=tmp_path).fit(*parts)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["resuming"]["only_in_python"] == ["early stopping"]


def test_early_stopping_needs_something_to_go_by(few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="early stopping needs validation images"):
        make_trainer(loggers=[EarlyStopping()]).fit(few)
    with pytest.raises(ArgumentError, match="patience must be a whole number of at least 1"):
        EarlyStopping(0)
    wrong: Any = "accuracy"
    with pytest.raises(ArgumentError, match="by must be 'val_accuracy' or 'val_loss'"):
        EarlyStopping(by=wrong)
