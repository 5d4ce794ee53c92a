"""A checkpoint that an older version wrote goes on in this one.

`stored/checkpoint.pt` and `stored/end.safetensors` were made at commit 6d0f372 by `begin` and by a
run that nobody interrupted. They are never made again: a run may have begun long ago.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from runs import InterruptAt, make_trainer
from safetensors.torch import load_file
from torch import nn

import cifarzoo
from cifarzoo import Augmentation, ImageSet, Recipe, Trainer
from cifarzoo.errors import CheckpointError
from cifarzoo.training import loop as run_module
from cifarzoo.training.checkpoint import read_checkpoint, write_checkpoint

STORED = Path(__file__).parent / "stored"
RECIPE = Recipe(
    epochs=3,
    batch_size=20,
    optimizer="muon_sgd",
    learning_rate=0.05,
    momentum=0.6,
    label_smoothing=0.1,
    scheduler="linear",
    augmentation=Augmentation(flip="alternating", crop_padding=4, cutout=8, contrast=0.1),
    image_sizes=[[0, 16], [0.5, 32]],
    ema_decay=0.9,
    groups={"biases": {"freeze_at": 0.6}},
)
"""What the recipes of the zoo's long runs are made of."""


def stored_net(*, num_classes: int = 10) -> nn.Module:
    """The smallest network with filters, running statistics and dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(16, num_classes),
    )


@pytest.fixture(autouse=True)
def registered(own_registries: None) -> None:
    cifarzoo.register_model(
        name="stored_net", description="A test.", source="here", parameters=1, macs=1
    )(stored_net)


@pytest.fixture
def images(few: ImageSet) -> ImageSet:
    return few.subset(range(60))


def begin(images: ImageSet, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop in the middle of the second epoch."""
    monkeypatch.setattr(run_module, "_TICK", 0.0)
    loggers = [InterruptAt(2, 1)]
    trainer = make_trainer(RECIPE, model="stored_net", output=folder, loggers=loggers)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(images)


def resume(images: ImageSet, folder: Path) -> Trainer:
    trainer = make_trainer(RECIPE, model="stored_net", output=folder)
    assert len(trainer.fit(images, resume=True)) == 3
    return trainer


def test_a_run_begun_by_an_older_version_ends_as_it_would_have_there(
    images: ImageSet, tmp_path: Path
) -> None:
    shutil.copy(STORED / "checkpoint.pt", tmp_path)
    ended = resume(images, tmp_path).model.state_dict()
    expected = load_file(STORED / "end.safetensors")
    assert ended.keys() == expected.keys()
    for name, value in expected.items():
        # processors round differently; another order or another draw would be far off
        torch.testing.assert_close(ended[name], value, atol=1e-3, rtol=0)


def test_a_run_begun_before_the_recipe_had_a_field_goes_on(
    images: ImageSet, tmp_path: Path
) -> None:
    saved = read_checkpoint(STORED)
    del saved["recipe"]["clip_norm"], saved["recipe"]["augmentation"]["brightness"]
    write_checkpoint(tmp_path / "checkpoint.pt", saved)
    resume(images, tmp_path)


def test_a_field_that_this_version_does_not_know_is_refused(
    images: ImageSet, tmp_path: Path
) -> None:
    saved = read_checkpoint(STORED)
    saved["recipe"]["of_tomorrow"] = 0.5
    write_checkpoint(tmp_path / "checkpoint.pt", saved)
    with pytest.raises(CheckpointError, match="of_tomorrow"):
        resume(images, tmp_path)
