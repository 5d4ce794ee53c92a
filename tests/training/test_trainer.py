"""The training loop: what it accepts, measures, refuses and leaves behind."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import PLAIN, Events, make_batches, make_trainer, measured, same_state, weights
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from cifarzoo import (
    CIFAR10_PREPROCESSING,
    Augmentation,
    ImageSet,
    Loader,
    Prediction,
    Preprocessing,
    Recipe,
    Trainer,
    attach_card,
    create_model,
    evaluate,
    get_card,
    predict,
)
from cifarzoo.compute.place import compile_pays
from cifarzoo.errors import (
    ArgumentError,
    CheckpointError,
    InputError,
    NonFiniteLossError,
    OutputError,
)
from cifarzoo.training import learner as learner_module
from cifarzoo.training import loop as run_module
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.training.loggers import StepProgress

ONE_STEP = PLAIN.replace(epochs=1, batch_size=200, momentum=0, weight_decay=0)


def normalized(images: ImageSet) -> Tensor:
    return CIFAR10_PREPROCESSING.normalize(images.images)


@torch.no_grad()
def loss_and_accuracy(model: nn.Module, images: ImageSet, **options: Any) -> tuple[float, float]:
    """Measured apart from the Trainer."""
    logits = model.eval()(normalized(images))
    loss = F.cross_entropy(logits, images.labels, **options)
    return float(loss), float((logits.argmax(1) == images.labels).double().mean())


# what a run does


def test_the_loss_goes_down(few: ImageSet) -> None:
    history = make_trainer(PLAIN.replace(epochs=8, batch_size=20, learning_rate=0.03)).fit(few)
    losses = history.column("train_loss")
    assert history.column("epoch") == list(range(1, 9))
    assert losses[0] == pytest.approx(2.303, abs=0.05)
    assert losses[-1] < 2.1
    assert history[-1].train_accuracy > 0.2


def test_the_first_record_is_the_untrained_networks_loss_and_accuracy(few: ImageSet) -> None:
    trainer = make_trainer(ONE_STEP.replace(label_smoothing=0.3))
    with torch.no_grad():  # an opinionated network, for which the smoothing matters
        trainer.model.get_parameter("fc3.weight").mul_(100)
        guessed = trainer.model(normalized(few)).argmax(1)
    images = ImageSet(few.images, torch.cat((guessed[:150], few.labels[150:])), few.classes)
    loss, accuracy = loss_and_accuracy(trainer.model, images, label_smoothing=0.3)
    assert loss != pytest.approx(loss_and_accuracy(trainer.model, images)[0], rel=0.1)
    record = trainer.fit(images)[0]
    assert record.train_loss == pytest.approx(loss, rel=1e-5)
    assert record.train_accuracy == pytest.approx(accuracy)


def test_a_step_is_the_textbooks(few: ImageSet) -> None:
    trainer = make_trainer(ONE_STEP.replace(weight_decay=0.5, learning_rate=0.1))
    model = create_model("simple", seed=0)
    F.cross_entropy(model(normalized(few)), few.labels).backward()
    trainer.fit(few)
    for name, old in model.named_parameters():
        assert old.grad is not None
        decay = 0.5 if old.ndim >= 2 else 0.0
        expected = old.detach() - 0.1 * (old.grad + decay * old.detach())
        torch.testing.assert_close(trainer.model.get_parameter(name).detach(), expected)


def test_validation_is_measured_on_the_model_as_it_is_left(
    few: ImageSet, sample_test: ImageSet
) -> None:
    val = sample_test.subset(range(150))
    trainer = make_trainer(PLAIN)
    history = trainer.fit(few, val)
    loss, accuracy = loss_and_accuracy(trainer.model, val)
    assert history[-1].val_loss == pytest.approx(loss, rel=1e-5)
    assert history[-1].val_accuracy == pytest.approx(accuracy)


def test_validation_changes_nothing(few: ImageSet, sample_test: ImageSet) -> None:
    alone, watched = make_trainer(), make_trainer()
    without = alone.fit(few)
    with_val = watched.fit(few, make_batches(sample_test.subset(range(100))))
    assert same_state(weights(alone.model), weights(watched.model))
    assert without.column("val_loss") == [None, None]
    assert None not in with_val.column("val_loss")


def test_records_hold_the_clock_and_the_rate(few: ImageSet) -> None:
    history = make_trainer(PLAIN.replace(scheduler="linear")).fit(few)
    for record in history.records:
        assert record.seconds > 0
        assert record.images_per_second == pytest.approx(200 / record.seconds)
    # the rate of the epoch's last step, of eight steps in all
    assert history.column("learning_rate") == pytest.approx([0.02 * 5 / 8, 0.02 * 1 / 8])


def test_mixed_images_count_by_the_label_of_the_larger_share(
    few: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        shares = 0.3 * F.one_hot(labels, 10) + 0.7 * F.one_hot((labels + 1) % 10, 10)
        return images, shares

    monkeypatch.setattr(learner_module, "build_mixer", lambda *unused: mix)
    trainer = make_trainer(ONE_STEP)
    with torch.no_grad():
        expected = trainer.model(normalized(few)).argmax(1) == (few.labels + 1) % 10
    assert trainer.fit(few)[0].train_accuracy == pytest.approx(float(expected.float().mean()))


# reproducibility


RANDOM = PLAIN.replace(
    scheduler="onecycle",
    augmentation=Augmentation(flip="random", crop_padding=4, cutout=8),
)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}],
    ids=["plain", "mixup", "cutmix", "both"],
)
def test_the_same_seed_gives_the_same_weights(changes: dict[str, float], few: ImageSet) -> None:
    first, second = (make_trainer(RANDOM.replace(**changes)) for _ in range(2))
    first_history = first.fit(few)
    torch.rand(3)  # what the caller draws in between does not matter
    assert measured(second.fit(few)) == measured(first_history)
    assert same_state(weights(first.model), weights(second.model))


@pytest.mark.parametrize("changes", [{"seed": 1}, {"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}])
def test_another_seed_or_mixing_gives_other_weights(
    changes: dict[str, float], few: ImageSet
) -> None:
    first, second = make_trainer(RANDOM), make_trainer(RANDOM.replace(**changes))
    first.fit(few)
    second.fit(few)
    assert not same_state(weights(first.model), weights(second.model))


def test_dropout_is_drawn_from_the_seed(few: ImageSet) -> None:
    images = few.subset(range(60))
    runs = []
    for _ in range(2):
        trainer = make_trainer(PLAIN.replace(epochs=1, batch_size=30), model="deep_bn")
        trainer.fit(images)
        runs.append(weights(trainer.model))
        torch.rand(1)
    assert same_state(*runs)


def test_the_global_generator_is_left_alone(few: ImageSet) -> None:
    before = torch.get_rng_state()
    make_trainer(RANDOM.replace(mixup_alpha=0.4), model="simple").fit(few)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError):
        make_trainer(RANDOM).fit([(torch.zeros(4, 3, 32, 32), torch.full((4,), 0.5))])
    assert torch.equal(torch.get_rng_state(), before)


# what a recipe asks for


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_wrapped_network_is_prepared_averaged_and_grouped_as_itself(
    wrap: Callable[[nn.Module], nn.Module], few: ImageSet
) -> None:
    recipe = PLAIN.replace(epochs=1, ema_decay=0.9, groups={"whiten_bias": {"freeze_at": 0.5}})
    plain, inner = (create_model("airbench94", widths=(24, 24, 24), seed=0) for _ in range(2))
    for model in (plain, wrap(inner)):
        images = few.subset(range(50))
        Trainer(model, recipe, device="cpu", precision="float32").fit(images)
    assert inner.is_prepared
    for name, value in plain.state_dict().items():
        # a compiled network rounds differently
        torch.testing.assert_close(inner.state_dict()[name], value, rtol=0, atol=1e-3)


def test_the_average_of_the_weights_is_the_result(
    few: ImageSet, sample_test: ImageSet, tmp_path: Path
) -> None:
    val = sample_test.subset(range(100))
    raw = make_trainer(PLAIN)
    raw.fit(few)
    trainer = make_trainer(PLAIN.replace(ema_decay=0.9), output=tmp_path)
    history = trainer.fit(few, val)
    saved = read_checkpoint(tmp_path)["learner"]
    assert same_state(weights(trainer.model), saved["ema"])
    assert same_state(weights(raw.model), saved["model"])
    assert not same_state(saved["ema"], saved["model"])
    assert history[-1].val_loss == pytest.approx(loss_and_accuracy(trainer.model, val)[0], 1e-5)


def test_the_gradient_norm_is_clipped(few: ImageSet) -> None:
    moved = {}
    for clip_norm in (0.0, 0.01):
        trainer = make_trainer(ONE_STEP.replace(clip_norm=clip_norm, learning_rate=1))
        before = weights(trainer.model)
        trainer.fit(few)
        after = weights(trainer.model)
        moved[clip_norm] = float(sum((after[k] - before[k]).square().sum() for k in before)) ** 0.5
    assert moved[0.0] > 0.02
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)


def test_plateau_lowers_the_rate_when_the_loss_stands_still(few: ImageSet) -> None:
    recipe = PLAIN.replace(
        epochs=4,
        learning_rate=1e-6,
        scheduler="plateau",
        scheduler_options={"gamma": 0.5, "patience": 0},
    )
    history = make_trainer(recipe).fit(few, few)
    assert history.column("learning_rate") == pytest.approx([1e-6, 1e-6, 5e-7, 2.5e-7])


class RecordingPlateau(ReduceLROnPlateau):
    """Remembers the losses it is stepped with."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.losses: list[float] = []

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        self.losses.append(float(metrics))


@pytest.mark.parametrize("has_val", [True, False])
def test_plateau_goes_by_the_validation_loss_where_there_is_one(
    has_val: bool, few: ImageSet, sample_test: ImageSet
) -> None:
    built: list[RecordingPlateau] = []

    def factory(optimizer: Optimizer, epochs: int, steps: int) -> RecordingPlateau:
        built.append(RecordingPlateau(optimizer))
        return built[0]

    val = sample_test.subset(range(50)) if has_val else None
    history = make_trainer(scheduler=factory).fit(few, val)
    assert built[0].losses == history.column("val_loss" if has_val else "train_loss")


def test_a_scheduler_may_be_a_factory(few: ImageSet) -> None:
    def halving(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LRScheduler:
        assert (epochs, steps_per_epoch) == (3, 4)
        return StepLR(optimizer, step_size=steps_per_epoch, gamma=0.5)

    # the options belong to the recipe's scheduler and do not reach the factory
    recipe = PLAIN.replace(epochs=3, scheduler="cosine", scheduler_options={"warmup_epochs": 1})
    history = make_trainer(recipe, scheduler=halving).fit(few)
    assert history.column("learning_rate") == pytest.approx([0.02, 0.01, 0.005])


def test_an_optimizer_may_be_a_factory(few: ImageSet) -> None:
    def factory(groups: list[dict[str, Any]]) -> Optimizer:
        return SGD(groups, lr=0.125)

    history = make_trainer(optimizer=factory).fit(few)
    assert history.column("learning_rate") == [0.125, 0.125]


def test_names_replace_the_recipes_and_drop_their_options() -> None:
    recipe = PLAIN.replace(
        scheduler_options={"warmup_epochs": 1}, optimizer_options={"dampening": 0.1}
    )
    trainer = make_trainer(recipe, optimizer="adam", scheduler="onecycle")
    expected = PLAIN.replace(optimizer="adam", scheduler="onecycle")
    assert trainer.recipe == expected


def test_timms_schedulers_and_optimizers_train(few: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(learning_rate=1e-3), optimizer="lion")
    before = weights(trainer.model)
    trainer.fit(few)
    assert not same_state(before, weights(trainer.model))
    history = make_trainer(scheduler="timm.cosine").fit(few)
    assert history[1].learning_rate < history[0].learning_rate


@pytest.mark.parametrize(("precision", "rel"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_parameters_stay_float32_in_either_precision(
    precision: str, rel: float, few: ImageSet
) -> None:
    reference = make_trainer(ONE_STEP).fit(few)
    events = Events()
    trainer = make_trainer(ONE_STEP, precision=precision, loggers=[events])
    history = trainer.fit(few, few)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert events.starts[0].precision == getattr(torch, precision)
    assert events.starts[0].images.dtype == getattr(torch, precision)
    assert history[0].train_loss == pytest.approx(reference[0].train_loss, rel=rel)
    assert history[0].val_loss is not None


def test_a_module_made_elsewhere_trains(few: ImageSet) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    before = weights(model)
    Trainer(model, PLAIN, device="cpu", precision="float32").fit(few)
    assert not same_state(before, weights(model))


# data


def as_dataloader(images: Tensor, labels: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(images, labels), batch_size=50)


SOURCES: dict[str, Callable[[ImageSet], Iterable[tuple[Tensor, Tensor]]]] = {
    "loader": lambda few: Loader(few, batch_size=50),
    "uint8 DataLoader of the set": lambda few: DataLoader(few, batch_size=50),
    "uint8 DataLoader": lambda few: as_dataloader(few.images, few.labels),
    "float DataLoader": lambda few: as_dataloader(normalized(few), few.labels),
    "list": make_batches,
    "tuple of lists": lambda few: tuple([i, t] for i, t in make_batches(few)),  # type: ignore[misc]  # as a DataLoader's
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source_trains_the_same_network(name: str, few: ImageSet) -> None:
    reference, trainer = make_trainer(), make_trainer()
    expected = reference.fit(
        [(normalized(few)[i : i + 50], few.labels[i : i + 50]) for i in STARTS]
    )
    history = trainer.fit(SOURCES[name](few))
    assert history.column("train_loss") == pytest.approx(expected.column("train_loss"), rel=1e-4)
    torch.testing.assert_close(
        dict(trainer.model.state_dict()), dict(reference.model.state_dict()), rtol=1e-3, atol=1e-5
    )


STARTS = range(0, 200, 50)


def test_an_image_set_is_shuffled_and_augmented(few: ImageSet) -> None:
    events = Events()
    recipe = PLAIN.replace(epochs=1, augmentation=Augmentation(crop_padding=4))
    make_trainer(recipe, loggers=[events]).fit(few)
    batch = events.starts[0].images
    assert batch.shape == (50, 3, 32, 32)
    known = {tuple(image[:, 8:24, 8:24].flatten().tolist()) for image in normalized(few)}
    seen = [tuple(image[:, 8:24, 8:24].flatten().tolist()) for image in batch]
    assert sum(image in known for image in seen) < 25


def test_a_last_batch_that_is_not_full_is_left_out_of_an_image_set(few: ImageSet) -> None:
    events = Events()
    make_trainer(PLAIN.replace(batch_size=150), loggers=[events]).fit(few)
    assert events.starts[0].steps_per_epoch == 1


def test_a_generator_without_end_needs_steps_per_epoch(few: ImageSet) -> None:
    source = itertools.cycle(make_batches(few))
    with pytest.raises(InputError, match=r"cycle has no length; pass steps_per_epoch to fit\(\)"):
        make_trainer().fit(source)
    events = Events()
    history = make_trainer(loggers=[events]).fit(source, steps_per_epoch=3)
    assert len(history) == 2
    assert events.starts[0].steps_per_epoch == 3


def test_a_generator_that_ends_early_is_an_input_error(few: ImageSet) -> None:
    six = (batch for _ in range(3) for batch in make_batches(few)[:2])
    with pytest.raises(InputError, match=r"ended after 2 of 4 batches; pass something that can"):
        make_trainer().fit(six, steps_per_epoch=4)


@pytest.fixture
def good(few: ImageSet) -> tuple[Tensor, Tensor]:
    """A batch that nothing is wrong with."""
    return make_batches(few, 8)[0]


BAD: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "floats in 0..255": (
        lambda x, y: (x.float(), y),
        r"must be normalized; these lie in \d+\.\.255: pass uint8",
    ),
    "not a number": (lambda x, y: (x / 0 * 0, y), "must be normalized; these lie in nan"),
    "fractions as labels": (lambda x, y: (x, y + 0.9), r"whole numbers.*; got \d\.9"),
    "soft labels": (lambda x, y: (x, F.one_hot(y, 10) * 0.9), r"rows with one 1; got .* \(8, 10\)"),
    "a label too many": (lambda x, y: (x, y[:7]), r"one for each image; got torch.int64 \(7,\)"),
    "an unknown class": (lambda x, y: (x, y + 10), r"0..9 for a model with 10 classes; got 1"),
    "a negative class": (lambda x, y: (x, y - 10), r"labels must be in 0..9"),
    "one image": (lambda x, y: (x[0], y), r"\(batch, 3, height, width\); got \(3, 32, 32\)"),
    "grey images": (lambda x, y: (x[:, :1], y), r"got \(8, 1, 32, 32\)"),
    "grey floats": (lambda x, y: (x[:, :1] / 255, y), r"got \(8, 1, 32, 32\)"),
    "no image": (lambda x, y: (x[:0] / 255, y[:0]), r"got \(0, 3, 32, 32\)"),
    "another size": (lambda x, y: (x[:, :, ::2, ::2], y), "32"),
    "no labels": (lambda x, y: x, r"must be pairs .*got Tensor"),
    "whole numbers": (lambda x, y: (x.int(), y), r"uint8 in 0..255, or float; got torch.int32"),
    "keys for two things": (lambda x, y: {"img": x, "image": x, "label": y}, "one key for the im"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_before_any_step(
    name: str, good: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    spoil, message = BAD[name]
    events = Events()
    trainer = make_trainer(loggers=[events], output=tmp_path)
    before = weights(trainer.model)
    with pytest.raises(InputError, match=message):
        trainer.fit([spoil(*good), good])
    assert same_state(weights(trainer.model), before)
    assert events.names == []
    assert list(tmp_path.iterdir()) == []


def with_a_label_too_high(images: ImageSet) -> ImageSet:
    """The last image has a class that a network of ten does not know."""
    labels = images.labels.clone()
    labels[-1] = 11
    return ImageSet(images.images, labels, tuple("abcdefghijkl"))


@pytest.mark.parametrize("place", ["train", "val"])
def test_one_bad_label_in_a_set_is_found_before_any_step(place: str, few: ImageSet) -> None:
    bad = with_a_label_too_high(few)
    # four steps an epoch: it need not be in the first
    for seed in range(3):
        trainer = make_trainer(PLAIN.replace(seed=seed))
        before = weights(trainer.model)
        sets = (bad, few) if place == "train" else (few, bad)
        with pytest.raises(InputError, match=r"labels must be in 0..9 .*; got 0..11"):
            trainer.fit(*sets)
        assert same_state(weights(trainer.model), before)


def test_bad_validation_batches_are_refused(few: ImageSet) -> None:
    with pytest.raises(InputError, match=r"must be normalized; these lie in .*255"):
        make_trainer().fit(few, [(few.images.float(), few.labels)])
    bad = with_a_label_too_high(few)
    with pytest.raises(InputError, match=r"labels must be in 0..9 .*; got 0..11"):
        make_trainer().fit(few, [(bad.images, bad.labels)])


def test_a_source_without_batches_is_refused() -> None:
    with pytest.raises(InputError, match="the data has no batch"):
        make_trainer().fit([])


def test_a_source_without_length_is_refused() -> None:
    with pytest.raises(InputError, match="int has no length"):
        make_trainer().fit(3)  # type: ignore[arg-type]  # what the test is about


def test_a_batch_larger_than_the_set_is_refused(few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="batch_size 201 with drop_last leaves no batch of 200"):
        make_trainer(PLAIN.replace(batch_size=201)).fit(few)


# a loss that is not finite


class SpoiledFrom:
    """Good batches; from one on the network gives what is no number."""

    def __init__(
        self, images: ImageSet, first_bad: int, model: nn.Module, *, interrupts: bool = False
    ) -> None:
        self.model = model
        self.batches = [(normalized(images)[i : i + 50], images.labels[i : i + 50]) for i in STARTS]
        self.first_bad = first_bad
        self.interrupts = interrupts
        self.count = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.batches:
            self.count += 1
            is_bad = self.count >= self.first_bad
            if is_bad and self.interrupts:
                os.kill(os.getpid(), signal.SIGINT)
            if is_bad:
                with torch.no_grad():
                    next(self.model.parameters()).fill_(torch.nan)
            yield images, labels


@pytest.mark.parametrize("tick", [0.0, 1000.0])
def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_checkpoint(
    tick: float, few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_TICK", tick)
    events = Events()
    trainer = make_trainer(output=tmp_path, loggers=[events])
    message = (
        r"not finite in epoch 2, step 3 of 4 \(peak learning rate 0.02\); "
        r"lower learning_rate \(try 0.002\), set clip_norm=1, or warm up longer"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        trainer.fit(SpoiledFrom(few, 7, trainer.model))
    saved = read_checkpoint(tmp_path)
    assert len(saved["records"]) == 1
    assert saved["step"] == 0
    assert all(bool(value.isfinite().all()) for value in saved["learner"]["model"].values())
    assert events.names[-1] == "end"
    assert len(events.histories[0]) == 1


def test_an_interruption_does_not_save_a_loss_that_is_not_finite(
    few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_TICK", 1000.0)
    trainer = make_trainer(output=tmp_path)
    with pytest.raises(NonFiniteLossError, match="epoch 2, step 2 of 4"):
        trainer.fit(SpoiledFrom(few, 6, trainer.model, interrupts=True))
    assert read_checkpoint(tmp_path)["step"] == 0


def test_a_learning_rate_far_too_high_is_reported(few: ImageSet, tmp_path: Path) -> None:
    trainer = make_trainer(PLAIN.replace(learning_rate=1e6, batch_size=10), output=tmp_path)
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 1, step \d+ of 20 \(peak learning rate 1e\+06"
    ):
        trainer.fit(few)
    assert not (tmp_path / "checkpoint.pt").exists()


# arguments and output


@pytest.mark.parametrize("recipe", ["default", {"epochs": 1}, 3])
def test_a_recipe_of_the_wrong_type_is_refused(recipe: Any) -> None:
    with pytest.raises(ArgumentError, match=r"recipe must be a Recipe; got .*Recipe.load\(\)"):
        Trainer(create_model("simple"), recipe)


def test_the_default_recipe_is_the_default() -> None:
    assert Trainer(create_model("simple"), device="cpu").recipe == Recipe()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("device", "quantum", "device 'quantum' cannot be used here"),
        (
            "precision",
            "int8",
            "precision must be 'auto' or one of 'float32', 'bfloat16', 'float16'; got 'int8'",
        ),
        ("optimizer", "sdg", "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ("scheduler", "cosin", "unknown scheduler 'cosin'; did you mean 'cosine'"),
    ],
)
def test_wrong_options_are_refused(option: str, value: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_trainer(**{option: value})


def test_a_checkpoint_is_not_overwritten_without_resuming(few: ImageSet, tmp_path: Path) -> None:
    make_trainer(output=tmp_path).fit(few)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint.pt exists; continue it with resume=Tr"):
        make_trainer(output=tmp_path).fit(few)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_resuming_needs_a_place(few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="resume=True needs an output folder"):
        make_trainer().fit(few, resume=True)


@pytest.mark.parametrize("inner", ["", "deeper"])
def test_an_output_that_is_a_file_is_refused(inner: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*taken"):
        make_trainer(output=tmp_path / "taken" / inner)
    assert (tmp_path / "taken").read_text() == ""


def test_loggers_are_told_in_order(few: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_TICK", 0.0)
    events = Events()
    history = make_trainer(loggers=[events]).fit(few)
    assert events.names == ["start", *(["progress"] * 4 + ["epoch"]) * 2, "end"]
    assert [(p.epoch, p.step) for p in events.progress] == [
        (e, s) for e in (1, 2) for s in range(1, 5)
    ]
    assert events.progress[-1].loss == pytest.approx(history[-1].train_loss, rel=1e-5)
    assert events.progress[-1].accuracy == pytest.approx(history[-1].train_accuracy)
    assert events.progress[-1].images_per_second > 0
    assert events.records == list(history.records)
    assert events.histories == [history]
    start = events.starts[0]
    assert (start.name, start.epochs_done, start.recipe) == ("simple", 0, PLAIN)


def test_class_names_of_the_data_go_on_the_models_card(few: ImageSet) -> None:
    pets = ImageSet(few.images, few.labels % 2, ("cat", "dog"), "pets")
    model = create_model("simple", num_classes=2, seed=0)
    Trainer(model, Recipe(epochs=1, batch_size=50)).fit(pets)
    assert get_card(model).classes == ("cat", "dog")
    prediction = predict(model, few.images[0])
    assert isinstance(prediction, Prediction)
    assert prediction.label in ("cat", "dog")


def test_ten_other_classes_replace_the_names_of_cifar10(few: ImageSet) -> None:
    digits = ImageSet(few.images, few.labels, tuple("0123456789"), "digits")
    model = create_model("simple", seed=0)
    Trainer(model, Recipe(epochs=1, batch_size=50)).fit(digits)
    assert get_card(model).classes == tuple("0123456789")


@pytest.mark.parametrize("has_val", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_the_model_comes_back_in_its_mode(mode: bool, has_val: bool, few: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(epochs=1))
    trainer.model.train(mode)
    trainer.fit(few, few if has_val else None)
    assert all(module.training is mode for module in trainer.model.modules())


def test_what_is_normalized_here_may_lie_anywhere(few: ImageSet) -> None:
    """A network may want images in 0..1, and grey pictures lie there for others too."""
    model = create_model("simple", seed=0)
    plain = dataclasses.replace(get_card(model), preprocessing=Preprocessing((0, 0, 0), (1, 1, 1)))
    attach_card(model, plain)
    Trainer(model, PLAIN).fit(few, few)
    assert evaluate(model, few).num_images == len(few)
    batches = make_batches(few)
    assert evaluate(model, batches).predicted == evaluate(model, few).predicted
    loader = Loader(few, batch_size=50, preprocessing=plain.preprocessing)
    assert evaluate(model, loader).num_images == len(few)
    Trainer(create_model("simple"), PLAIN).fit(batches, batches)
    grey = torch.full((10, 3, 32, 32), 150, dtype=torch.uint8)
    assert evaluate(create_model("simple"), [(grey, torch.arange(10))]).num_images == 10


def test_parameters_can_be_flattened_after_training(few: ImageSet) -> None:
    model = create_model("resnet18_cifar", seed=0)
    Trainer(model, Recipe(epochs=1, batch_size=20)).fit(few.subset(range(20)))
    assert torch.nn.utils.parameters_to_vector(model.parameters()).isfinite().all()


class Sizes(nn.Module):
    """Remembers the sizes of the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images.shape[-1])
        return self.head(images.float().mean((2, 3)))


def test_progressive_resolution_follows_the_recipe(few: ImageSet) -> None:
    model = Sizes()
    recipe = Recipe(epochs=2, batch_size=50, image_sizes=[[0, 16], [0.25, 24], [0.5, 32]])
    Trainer(model, recipe, device="cpu").fit(few)
    assert model.seen == [16, 16, 24, 24, 32, 32, 32, 32]


def test_progressive_resolution_is_refused_by_networks_of_one_size(few: ImageSet) -> None:
    model = create_model("simple", seed=0)
    before = weights(model)
    recipe = Recipe(epochs=1, batch_size=50, image_sizes=[[0, 24], [0.5, 32]])
    with pytest.raises(InputError, match=r"trains at 24 pixels, which this .*32x32"):
        Trainer(model, recipe, device="cpu").fit(few)
    assert same_state(weights(model), before)


def test_compile_takes_yes_no_or_auto() -> None:
    with pytest.raises(ArgumentError, match="compile must be True, False or 'auto'; got 'yes'"):
        Trainer(create_model("simple"), compile="yes")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_training_ends_where_plain_training_does(few: ImageSet) -> None:
    recipe = Recipe(epochs=2, batch_size=50, learning_rate=0.01)
    plain, compiled = (create_model("simple", seed=0) for _ in range(2))
    for model, flag in ((plain, False), (compiled, True)):
        Trainer(model, recipe, device="cpu", precision="float32", compile=flag).fit(few)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-3, atol=1e-4)


def test_compiling_pays_on_a_gpu_in_long_runs_only() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert compile_pays(gpu, 10_000)
    assert not compile_pays(gpu, 100)
    assert not compile_pays(cpu, 10_000)


def test_a_group_is_left_alone_after_its_time(
    few: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases learn in the first of two epochs only; the rate they learn at reaches its end then."""
    recipe = PLAIN.replace(
        scheduler="linear", groups={"biases": {"freeze_at": 0.5}}, weight_decay=0.0
    )

    monkeypatch.setattr(run_module, "_TICK", 0.0)  # every step is reported

    class Rates(Events):
        def on_progress(self, progress: StepProgress) -> None:
            biases.append(trainer.model.get_parameter("fc3.bias").detach().clone())

    biases: list[Tensor] = []
    trainer = make_trainer(recipe, loggers=[Rates()])
    trainer.fit(few)
    first, second = biases[:4], biases[4:]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[2], first[3])
    assert all(torch.equal(b, first[3]) for b in second)
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_a_model_that_returns_no_logits_is_refused(few: ImageSet) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(InputError, match="must return logits"):
        Trainer(Pair(), PLAIN, device="cpu").fit(few)


def test_parameters_that_are_not_finite_are_refused_before_the_first_step(few: ImageSet) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.get_parameter("fc1.bias")[0] = float("nan")
    with pytest.raises(InputError, match=r"parameter fc1.bias is not finite"):
        trainer.fit(few)


def test_a_scheduler_class_is_no_factory(few: ImageSet) -> None:
    trainer = make_trainer(scheduler=torch.optim.lr_scheduler.StepLR)
    with pytest.raises(ArgumentError, match=r"a name or a factory, not .*StepLR"):
        trainer.fit(few)


def test_what_is_no_optimizer_factory_is_refused(few: ImageSet) -> None:
    ready = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    not_yet: Any = ready
    with pytest.raises(ArgumentError, match="is a name, a class, or a function of parameters; got"):
        make_trainer(optimizer=not_yet).fit(few)
    with pytest.raises(ArgumentError, match="must return a torch Optimizer; got NoneType"):
        make_trainer(optimizer=lambda groups: None).fit(few)
    with pytest.raises(ArgumentError, match=r"a name or a factory, not <torch.*StepLR"):
        make_trainer(scheduler=torch.optim.lr_scheduler.StepLR(ready, 1)).fit(few)


def test_a_networks_own_preparation_sees_the_images_once(few: ImageSet, tmp_path: Path) -> None:
    class Prepared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)
            self.seen: list[tuple[int, ...]] = []

        def prepare(self, images: Tensor) -> None:
            self.seen.append(tuple(images.shape))
            nn.init.ones_(self.head.bias)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(images.mean((2, 3)))
            return logits

    recipe = PLAIN.replace(learning_rate=0.0, ema_decay=0.5)
    for source, shape in ((few, (200, 3, 32, 32)), (make_batches(few), (50, 3, 32, 32))):
        model = Prepared()
        Trainer(model, recipe, device="cpu").fit(source)
        assert model.seen == [shape]
        assert torch.equal(model.head.bias, torch.ones(10))  # the average was prepared too
