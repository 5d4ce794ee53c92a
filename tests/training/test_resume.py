"""A run that was interrupted and resumed is the run that was not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import (
    PLAIN,
    Events,
    InterruptAt,
    make_batches,
    make_trainer,
    measured,
    same_state,
    weights,
)
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from cifarzoo import (
    CIFAR10_PREPROCESSING,
    Augmentation,
    ImageSet,
    Loader,
    Logger,
    Recipe,
    Trainer,
    create_model,
    get_card,
    load_model,
)
from cifarzoo.data.feed import Source
from cifarzoo.errors import CheckpointError, OutputError
from cifarzoo.training import loop as run_module
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.training.history import EpochRecord

EVERYTHING = Recipe(
    epochs=3,
    batch_size=10,
    learning_rate=0.02,
    momentum=0.9,
    label_smoothing=0.1,
    scheduler="onecycle",
    augmentation=Augmentation(flip="alternating", crop_padding=3, cutout=6),
    mixup_alpha=0.3,
    cutmix_alpha=0.5,
    ema_decay=0.9,
    lookahead_decay=0.95,
    groups={"biases": {"freeze_at": 0.6}},
    clip_norm=1.0,
)
"""All that has a state or draws at random; `little` adds dropout and running statistics."""


def little() -> nn.Module:
    """A network whose step takes a moment, with fixed parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(256, 10),
        )


def make_little(**options: Any) -> Trainer:
    """A Trainer that does EVERYTHING with `little`."""
    return Trainer(little(), EVERYTHING, device="cpu", precision="float32", **options)


@pytest.fixture(autouse=True)
def every_step_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_TICK", 0.0)


@pytest.fixture(scope="module")
def train(few: ImageSet) -> ImageSet:
    """Sixty images: six steps of EVERYTHING."""
    return few.subset(range(60))


@pytest.fixture(scope="module")
def val(few: ImageSet) -> ImageSet:
    return few.subset(range(60, 80))


def as_set(images: ImageSet) -> Source:
    return images


def as_dataloader(images: ImageSet) -> Source:
    return DataLoader(images, batch_size=10, shuffle=True, num_workers=0)


def as_dataloader_with_a_generator(images: ImageSet) -> Source:
    generator = torch.Generator().manual_seed(7)
    return DataLoader(images, batch_size=10, shuffle=True, generator=generator)


def as_dataloader_with_a_sampler(images: ImageSet) -> Source:
    sampler = RandomSampler(images, generator=torch.Generator().manual_seed(7))
    return DataLoader(images, batch_sampler=BatchSampler(sampler, 10, drop_last=False))


def as_loader(images: ImageSet) -> Source:
    return Loader(
        images,
        batch_size=10,
        shuffle=True,
        augmentation=EVERYTHING.augmentation,
        generator=torch.Generator().manual_seed(5),
    )


def as_list(images: ImageSet) -> Source:
    return make_batches(images, 10)


def resumed(
    source: Callable[[ImageSet], Source],
    train: ImageSet,
    val: ImageSet,
    *,
    at: tuple[int, int],
    folder: Path,
) -> tuple[Trainer, list[dict[str, Any]]]:
    """Interrupt a run at an epoch and step, and let a new Trainer finish it."""
    first = make_little(output=folder, loggers=[InterruptAt(*at)])
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch"):
        first.fit(source(train), val)
    torch.rand(5)
    second = make_little(output=folder)
    history = second.fit(source(train), val, resume=True)
    return second, measured(history)


# the first step, the middle, the end of an epoch
POINTS = [(1, 1), (2, 2), (2, 3)]


@pytest.mark.parametrize(
    "source",
    [
        as_set,
        as_dataloader,
        as_dataloader_with_a_generator,
        as_dataloader_with_a_sampler,
        as_loader,
        as_list,
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    source: Callable[[ImageSet], Source], train: ImageSet, val: ImageSet, tmp_path: Path
) -> None:
    thirty = train.subset(range(30))  # three steps
    whole = make_little(output=tmp_path / "whole")
    expected = measured(whole.fit(source(thirty), val))
    end = read_checkpoint(tmp_path / "whole")["learner"]
    for at in POINTS:
        folder = tmp_path / f"resumed at {at}"
        trainer, records = resumed(source, thirty, val, at=at, folder=folder)
        assert same_state(trainer.model.state_dict(), whole.model.state_dict()), at
        assert records == expected, at
        # what is saved at the end is the same too: optimizer, schedule, raw weights and average
        found = read_checkpoint(folder)["learner"]
        assert same_state(found["model"], end["model"]), at
        assert found["scheduler"] == end["scheduler"], at
        assert str(found["optimizer"]) == str(end["optimizer"]), at


def test_two_interruptions_in_one_epoch_change_nothing(
    train: ImageSet, val: ImageSet, tmp_path: Path
) -> None:
    whole = make_little()
    whole.fit(train, val)
    for place in [(2, 1), (2, 2), (3, 1)]:
        trainer = make_little(output=tmp_path, loggers=[InterruptAt(*place)])
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(train, val, resume=place != (2, 1))
    last = make_little(output=tmp_path)
    last.fit(train, val, resume=True)
    assert same_state(last.model.state_dict(), whole.model.state_dict())


class Crash(Logger):
    """Fails after an epoch, as a power cut would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, record: EpochRecord) -> None:
        if record.epoch == self.epoch:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("scheduler", ["plateau", "timm.cosine", "step"])
def test_a_crash_after_an_epoch_is_made_good(
    scheduler: str, train: ImageSet, tmp_path: Path
) -> None:
    options = {"patience": 0, "gamma": 0.5} if scheduler == "plateau" else {}
    recipe = PLAIN.replace(
        epochs=4, batch_size=20, scheduler=scheduler, scheduler_options=options, learning_rate=0.3
    )
    whole = make_trainer(recipe)
    expected = whole.fit(train)
    with pytest.raises(RuntimeError, match="power cut"):
        make_trainer(recipe, output=tmp_path, loggers=[Crash(2)]).fit(train)
    second = make_trainer(recipe, output=tmp_path)
    assert measured(second.fit(train, resume=True)) == measured(expected)
    assert same_state(second.model.state_dict(), whole.model.state_dict())


def test_the_history_continues(train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(epochs=4, batch_size=20)
    first, second = Events(), Events()
    stop = InterruptAt(3, 2)
    trainer = make_trainer(recipe, output=tmp_path, loggers=[stop, first])
    message = r"stopped in epoch 3 after step 2; continue with resume='.*checkpoint\.pt'"
    with pytest.raises(KeyboardInterrupt, match=message):
        trainer.fit(train)
    assert first.names[-1] == "end"
    assert len(first.histories[0]) == 2
    history = make_trainer(recipe, output=tmp_path, loggers=[second]).fit(train, resume=True)
    assert history.records[:2] == first.histories[0].records
    assert history.column("epoch") == [1, 2, 3, 4]
    assert second.starts[0].epochs_done == 2
    assert [(p.epoch, p.step) for p in second.progress] == [(3, 3), (4, 1), (4, 2), (4, 3)]
    assert [record.epoch for record in second.records] == [3, 4]


def test_an_epoch_resumed_counts_its_time_on_both_sides(train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(epochs=1, batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, output=tmp_path, loggers=[InterruptAt(1, 2)]).fit(train)
    before = read_checkpoint(tmp_path)["seconds"]
    record = make_trainer(recipe, output=tmp_path).fit(train, resume=True)[0]
    assert record.seconds > before > 0
    assert record.images_per_second == pytest.approx(60 / record.seconds)


@pytest.mark.parametrize("resume", ["folder", "file"])
def test_a_run_resumes_from_a_path_into_another_folder(
    resume: str, train: ImageSet, tmp_path: Path
) -> None:
    recipe = PLAIN.replace(batch_size=20)
    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, output=old, loggers=[InterruptAt(1, 2)]).fit(train)
    kept = (old / "checkpoint.pt").read_bytes()
    path = old if resume == "folder" else str(old / "checkpoint.pt")
    history = make_trainer(recipe, output=new).fit(train, resume=path)
    assert len(history) == 2
    assert (old / "checkpoint.pt").read_bytes() == kept
    assert len(read_checkpoint(new)["records"]) == 2


def test_another_run_in_the_output_folder_is_not_replaced(train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(batch_size=20)
    for name in ("one", "other"):
        make_trainer(recipe, output=tmp_path / name).fit(train)
    kept = (tmp_path / "other" / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"to continue .*one.* would replace .*other"):
        make_trainer(recipe, output=tmp_path / "other").fit(train, resume=tmp_path / "one")
    assert (tmp_path / "other" / "checkpoint.pt").read_bytes() == kept


def test_the_optimizers_state_may_come_in_another_layout(train: ImageSet, tmp_path: Path) -> None:
    """As on another device: torch's fused optimizers walk through memory without looking at it."""
    recipe = PLAIN.replace(batch_size=20, momentum=0.9)
    whole = make_trainer(recipe)
    whole.fit(train)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, output=tmp_path, loggers=[InterruptAt(1, 2)]).fit(train)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for kept in state["learner"]["optimizer"]["state"].values():
        assert not kept["momentum_buffer"].is_contiguous() or kept["momentum_buffer"].ndim < 4
        kept["momentum_buffer"] = kept["momentum_buffer"].contiguous()
    torch.save(state, path)
    resumed = make_trainer(recipe, output=tmp_path)
    resumed.fit(train, resume=True)
    assert same_state(resumed.model.state_dict(), whole.model.state_dict())


def test_class_names_come_back_when_no_epoch_is_left(train: ImageSet, tmp_path: Path) -> None:
    pets = ImageSet(train.images, train.labels % 2, ("cat", "dog"), "pets")
    recipe = PLAIN.replace(batch_size=20)
    models = [create_model("simple", num_classes=2) for _ in range(2)]
    for model, resume in zip(models, (False, True), strict=True):
        Trainer(model, recipe, output=tmp_path).fit(pets, resume=resume)
        assert get_card(model).classes == ("cat", "dog")


def test_a_finished_run_is_given_back_without_training(train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(batch_size=20, ema_decay=0.9)
    first = make_trainer(recipe, output=tmp_path)
    history = first.fit(train)
    events = Events()
    second = make_trainer(recipe, output=tmp_path, loggers=[events])
    assert second.fit(train, resume=True) == history
    assert same_state(first.model.state_dict(), second.model.state_dict())
    assert events.names == []


def test_an_interruption_without_output_says_that_nothing_was_saved(train: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(batch_size=20), loggers=[InterruptAt(1, 2)])
    with pytest.raises(KeyboardInterrupt, match="after step 2; nothing was saved, for the Trainer"):
        trainer.fit(train)


def test_an_interruption_in_the_last_step_of_all_comes_when_all_is_written(
    train: ImageSet, tmp_path: Path
) -> None:
    recipe = PLAIN.replace(batch_size=20)
    trainer = make_trainer(recipe, output=tmp_path, loggers=[InterruptAt(2, 3)])
    with pytest.raises(KeyboardInterrupt, match="the run is complete"):
        trainer.fit(train)
    whole = make_trainer(recipe)
    whole.fit(train)
    assert same_state(load_model(tmp_path).state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("output", [None, "new"])
@pytest.mark.parametrize("other", ["training", "validation"])
def test_a_run_goes_on_with_its_own_images_in_any_folder(
    output: str | None, other: str, train: ImageSet, tmp_path: Path
) -> None:
    recipe, changed = PLAIN.replace(batch_size=20), train.subset(range(len(train) - 1, -1, -1))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, output=tmp_path / "old", loggers=[InterruptAt(1, 2)]).fit(train, train)
    images = (changed, train) if other == "training" else (train, changed)
    options = {} if output is None else {"output": tmp_path / output}
    with pytest.raises(CheckpointError, match=f"is of a run with other {other} images"):
        make_trainer(recipe, **options).fit(*images, resume=tmp_path / "old")
    (tmp_path / "old" / "run.json").unlink()  # the checkpoint knows it by itself
    with pytest.raises(CheckpointError, match=f"is of a run with other {other} images"):
        make_trainer(recipe, **options).fit(*images, resume=tmp_path / "old")
    assert len(make_trainer(recipe, **options).fit(train, train, resume=tmp_path / "old")) == 2


def test_the_history_of_a_run_is_not_replaced(train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(batch_size=20)
    make_trainer(recipe, output=tmp_path).fit(train)
    for name in ("weights.safetensors", "checkpoint.pt", "run.json", "recipe.toml"):
        (tmp_path / name).unlink()  # published, and tidied up
        kept = (tmp_path / "history.json").read_bytes()
        with pytest.raises(CheckpointError):
            make_trainer(recipe.replace(epochs=1), output=tmp_path).fit(train)
        assert (tmp_path / "history.json").read_bytes() == kept


# what does not belong together


@pytest.fixture
def stopped(train: ImageSet, tmp_path: Path) -> Path:
    """The folder of a run of PLAIN that was stopped in its first epoch, after step 2."""
    trainer = make_trainer(
        PLAIN.replace(batch_size=20), output=tmp_path / "run", loggers=[InterruptAt(1, 2)]
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train)
    return tmp_path / "run"


def test_another_recipe_is_refused(stopped: Path, train: ImageSet) -> None:
    kept = (stopped / "checkpoint.pt").read_bytes()
    recipe = PLAIN.replace(batch_size=20, epochs=9, augmentation={"cutout": 4})
    trainer = make_trainer(recipe, output=stopped)
    message = (
        r"belongs to another recipe: augmentation was .*'cutout': 0, 'contrast': 0.0, "
        r"'brightness': 0.0, 'policies': \[\]}, is now .*'cutout': 4, .*}; "
        r"epochs was 2, is now 9; resume with the same one, or start a new run"
    )
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(train, resume=True)
    assert (stopped / "checkpoint.pt").read_bytes() == kept


def test_another_model_is_refused(stopped: Path, train: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(batch_size=20), model="deep_bn", output=stopped)
    message = "belongs to another model: name was 'simple', is now 'deep_bn'"
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(train, resume=True)


def test_a_model_with_other_options_is_refused(stopped: Path, train: ImageSet) -> None:
    model = create_model("simple", num_classes=12)
    trainer = Trainer(model, PLAIN.replace(batch_size=20), device="cpu", output=stopped)
    with pytest.raises(CheckpointError, match=r"fc3\.weight has the shape \(10, 32\), here"):
        trainer.fit(train, resume=True)


def test_a_module_of_the_same_class_with_other_layers_is_refused(
    train: ImageSet, tmp_path: Path
) -> None:
    recipe = PLAIN.replace(batch_size=20)
    place: dict[str, Any] = {"device": "cpu", "precision": "float32", "output": tmp_path}
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    Trainer(narrow, recipe, **place).fit(train)
    deep = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 10))
    with pytest.raises(CheckpointError, match="belongs to another model, optimizer, scheduler"):
        Trainer(deep, recipe, **place).fit(train, resume=True)


def test_another_optimizer_is_refused(stopped: Path, train: ImageSet) -> None:
    def one_group(groups: list[dict[str, Any]]) -> Optimizer:
        return SGD([p for group in groups for p in group["params"]], lr=0.1)

    trainer = make_trainer(PLAIN.replace(batch_size=20), optimizer=one_group, output=stopped)
    before = weights(trainer.model)
    with pytest.raises(CheckpointError, match="belongs to another model, optimizer, scheduler"):
        trainer.fit(train, resume=True)
    assert same_state(trainer.model.state_dict(), before)
    assert all(p.is_contiguous() for p in trainer.model.parameters())


def test_data_of_another_length_is_refused(stopped: Path, train: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(batch_size=20), output=stopped)
    message = "belongs to another data set: steps_per_epoch was 3, is now 1"
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(make_batches(train.subset(range(20)), 20), resume=True)


def test_a_missing_checkpoint_is_named(train: ImageSet, tmp_path: Path) -> None:
    for resume in (True, tmp_path / "absent.pt"):
        with pytest.raises(CheckpointError, match=r"there is no checkpoint .*; start the run with"):
            make_trainer(output=tmp_path).fit(train, resume=resume)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share: float, stopped: Path, train: ImageSet) -> None:
    path = stopped / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    trainer = make_trainer(PLAIN.replace(batch_size=20), output=stopped)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"checkpoint .*checkpoint\.pt is (empty|truncated)"):
        trainer.fit(train, resume=True)
    assert same_state(trainer.model.state_dict(), before)


# a full disk


def test_a_full_disk_leaves_the_older_checkpoint_whole(
    train: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PLAIN.replace(epochs=3, batch_size=20)
    whole = make_trainer(recipe)
    whole.fit(train)
    write = Path.write_bytes
    saves: list[Path] = []

    def fill_up(path: Path, content: bytes) -> int:
        if path.suffix != ".pt":
            return write(path, content)
        saves.append(path)
        if len(saves) < 2:
            return write(path, content)
        write(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_up)
        with pytest.raises(OutputError, match=r"cannot write .*\.pt: no space left on device; fre"):
            make_trainer(recipe, output=tmp_path).fit(train)
    assert len(saves) == 2
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", "recipe.toml", "checkpoint.pt"}
    assert len(read_checkpoint(tmp_path)["records"]) == 1
    second = make_trainer(recipe, output=tmp_path)
    second.fit(train, resume=True)
    assert same_state(second.model.state_dict(), whole.model.state_dict())


def one_cycle(optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
    return OneCycleLR(optimizer, max_lr=0.1, epochs=epochs, steps_per_epoch=steps + 1)


def by_numpy(optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
    """Its rates are numpy's numbers."""
    return LambdaLR(optimizer, lambda step: np.cos(step / (epochs * steps)))


@pytest.mark.parametrize("factory", [one_cycle, by_numpy])
def test_a_custom_scheduler_resumes(factory: Any, train: ImageSet, tmp_path: Path) -> None:
    recipe = PLAIN.replace(epochs=3, batch_size=20)
    whole = make_trainer(recipe, scheduler=factory)
    whole.fit(train)
    stop = InterruptAt(2, 1)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, scheduler=factory, output=tmp_path, loggers=[stop]).fit(train)
    second = make_trainer(recipe, scheduler=factory, output=tmp_path)
    second.fit(train, resume=True)
    assert same_state(second.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_that_begin_anew_are_told(
    persistent: bool, train: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torch draws for them once in their life; afterwards the sampler draws another number."""
    images = CIFAR10_PREPROCESSING.normalize(train.images)

    def batches() -> DataLoader[Any]:
        return DataLoader(
            TensorDataset(images, train.labels),
            batch_size=10,
            shuffle=True,
            num_workers=1,
            persistent_workers=persistent,
        )

    expected = make_little().fit(batches())
    with pytest.raises(KeyboardInterrupt):
        make_little(output=tmp_path, loggers=[InterruptAt(2, 3)]).fit(batches())
    caplog.clear()
    found = make_little(output=tmp_path).fit(batches(), resume=True)
    assert ("persistent_workers=True" in caplog.text) is persistent
    assert (found[-1].train_loss == expected[-1].train_loss) is not persistent
