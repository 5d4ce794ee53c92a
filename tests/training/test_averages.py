"""Averages of the weights: lookahead by hand, batch normalization of averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import PLAIN, make_batches, make_trainer, same_state
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cifarzoo import (
    CIFAR10_PREPROCESSING,
    EpochRecord,
    History,
    ImageSet,
    Loader,
    Logger,
    Trainer,
    evaluate,
)
from cifarzoo.data.feed import Source
from cifarzoo.training.averages import Lookahead
from cifarzoo.training.checkpoint import read_checkpoint


def test_slow_weights_follow_less_and_less() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    lookahead = Lookahead(model, 0.9)
    expected = 0.0
    for steps in range(1, 21):
        live = expected + steps  # the network has moved
        nn.init.constant_(model.weight, live)
        lookahead.update(steps, steps / 20)
        if steps % 5 == 0:
            decay = 0.9**5 * (steps / 20) ** 3
            expected = decay * expected + (1 - decay) * live
            torch.testing.assert_close(model.weight.detach(), torch.tensor([[expected]]))
        else:
            torch.testing.assert_close(model.weight.detach(), torch.tensor([[float(live)]]))


def test_running_statistics_are_averaged_too() -> None:
    model = nn.BatchNorm2d(2)
    lookahead = Lookahead(model, 0.5)
    assert model.running_mean is not None
    model.running_mean.fill_(2.0)
    lookahead.take()
    assert float(model.running_mean.sum()) == 0


def test_the_result_of_a_run_is_the_slow_weights(few: ImageSet) -> None:
    recipe = PLAIN.replace(epochs=1, batch_size=50, learning_rate=0.01)  # four steps: no update
    slow = make_trainer(recipe.replace(lookahead_decay=0.5))
    before = {k: v.clone() for k, v in slow.model.state_dict().items()}
    slow.fit(few)
    assert all(torch.equal(v, before[k]) for k, v in slow.model.state_dict().items())


def test_the_last_validation_is_of_the_slow_weights(few: ImageSet) -> None:
    recipe = PLAIN.replace(epochs=2, learning_rate=0.05, lookahead_decay=0.9)  # 8 steps: 3 too many
    trainer = make_trainer(recipe)
    history = trainer.fit(few, few)
    report = evaluate(trainer.model, few, **PLACE)
    assert report.loss == pytest.approx(history[-1].val_loss, rel=1e-5)
    assert report.accuracy == history[-1].val_accuracy


class Normalized(nn.Module):
    """A dense layer of the mean colours, normalized by the batch; then dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = nn.Linear(3, 10)
        self.norm = nn.BatchNorm1d(10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.dropout(self.norm(self.dense(images.mean((2, 3)))))
        return logits


MOVING = PLAIN.replace(epochs=2, batch_size=50, learning_rate=1.0, ema_decay=0.9)
PLACE: dict[str, Any] = {"device": "cpu", "precision": "float32"}  # compared exactly


def test_the_statistics_of_averaged_weights_are_those_of_the_training_images(few: ImageSet) -> None:
    model = Normalized()
    Trainer(model, MOVING, **PLACE).fit(few)
    with torch.no_grad():
        inputs = model.dense(CIFAR10_PREPROCESSING.normalize(few.images).mean((2, 3)))
    assert model.norm.running_mean is not None
    torch.testing.assert_close(model.norm.running_mean, inputs.mean(0))
    assert model.norm.momentum == 0.1
    assert model.training


@pytest.mark.parametrize("kind", ["set", "loader", "generator", "list"])
def test_measuring_the_average_changes_nothing_of_the_training(
    kind: str, few: ImageSet, tmp_path: Path
) -> None:
    raw = []
    for name, val in (("without", None), ("with", few)):
        torch.manual_seed(0)  # for the order of the DataLoader
        source: Source = few
        if kind == "loader":
            source = DataLoader(few, batch_size=50, shuffle=True)
        elif kind == "generator":
            own = torch.Generator().manual_seed(3)
            source = DataLoader(few, batch_size=50, shuffle=True, generator=own)
        elif kind == "list":
            source = make_batches(few)
        Trainer(Normalized(), MOVING, output=tmp_path / name, **PLACE).fit(source, val)
        raw.append(read_checkpoint(tmp_path / name)["learner"])
    assert same_state(raw[0]["model"], raw[1]["model"])
    assert same_state(raw[0]["ema"], raw[1]["ema"])


def test_a_stream_is_not_read_further_than_it_is_trained_on(few: ImageSet) -> None:
    stream = iter(make_batches(few) * 3)
    steps = len(make_batches(few))
    model = Normalized()
    Trainer(model, MOVING, **PLACE).fit(stream, steps_per_epoch=steps)
    assert len(list(stream)) == steps
    assert model.norm.num_batches_tracked == 2 * steps  # its statistics stayed averages


def test_an_average_is_measured_with_a_stated_number_of_steps_too(few: ImageSet) -> None:
    """Of an ImageSet, which is at hand; and the training stays the same."""
    models = [Normalized(), Normalized()]
    for model, val in zip(models, (None, few), strict=True):
        Trainer(model, MOVING, **PLACE).fit(few, val, steps_per_epoch=6)
    assert same_state(*(dict(model.state_dict()) for model in models))
    model = models[0]
    with torch.no_grad():
        inputs = model.dense(CIFAR10_PREPROCESSING.normalize(few.images).mean((2, 3)))
    assert model.norm.running_mean is not None
    torch.testing.assert_close(model.norm.running_mean, inputs.mean(0))


class Drawing(Loader):
    """Draws numbers of its own, and keeps where it stands."""

    def __init__(self, images: ImageSet, **options: Any) -> None:
        super().__init__(images, **options)
        self.own = torch.Generator().manual_seed(1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in super().__iter__():
            yield images + torch.randn(1, generator=self.own), labels

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "own": self.own.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.own.set_state(state["own"])
        super().load_state_dict({key: value for key, value in state.items() if key != "own"})


def test_measuring_the_average_changes_nothing_of_a_loader_of_ones_own(few: ImageSet) -> None:
    models = [Normalized(), Normalized()]
    for model, val in zip(models, (None, few), strict=True):
        loader = Drawing(few, batch_size=50, shuffle=True)
        Trainer(model, MOVING, **PLACE).fit(loader, val)
    assert same_state(*(dict(model.state_dict()) for model in models))


class End(Logger):
    """Ends the run after some epochs."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def on_epoch(self, record: EpochRecord) -> bool:
        return record.epoch == self._epochs

    def is_over(self, history: History) -> bool:
        return len(history) >= self._epochs


@pytest.mark.parametrize("average", ["ema_decay", "lookahead_decay"])
def test_a_run_that_a_logger_ends_has_the_averages_of_a_whole_one(
    average: str, few: ImageSet, sample_test: ImageSet, tmp_path: Path
) -> None:
    """With validation images and without, and when it is resumed."""
    recipe = PLAIN.replace(epochs=3, batch_size=20, **{average: 0.9})
    few = few.subset(range(60))
    found = []
    for val, output in ((None, tmp_path), (sample_test.subset(range(20)), None)):
        trainer = Trainer(Normalized(), recipe, loggers=[End(2)], output=output, **PLACE)
        trainer.fit(few, val)
        found.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
    assert same_state(*found)
    again = Trainer(Normalized(), recipe, loggers=[End(2)], output=tmp_path, **PLACE)
    again.fit(few, resume=True)
    assert same_state(again.model.state_dict(), found[0])
    if average == "lookahead_decay":
        # the slow weights of the checkpoint are the result
        slow = read_checkpoint(tmp_path)["learner"]["lookahead"]
        live = [t for t in found[0].values() if t.is_floating_point()]
        assert all(torch.equal(a, b) for a, b in zip(slow, live, strict=True))


def test_frozen_parameters_stay_as_they_are_with_lookahead(few: ImageSet) -> None:
    recipe = PLAIN.replace(
        epochs=4, batch_size=20, lookahead_decay=0.95, groups={"biases": {"freeze_at": 0.3}}
    )
    seen: list[Tensor] = []

    class Look(Logger):
        def on_epoch(self, record: EpochRecord) -> None:
            biases = [p.detach().flatten() for p in trainer.model.parameters() if p.ndim < 2]
            seen.append(torch.cat(biases).clone())

    trainer = make_trainer(recipe, loggers=[Look()])
    trainer.fit(few)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])
