"""Trainers in other contexts, and networks that cannot be trained: said before any work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from runs import PLAIN, make_trainer, same_state
from torch import nn
from torch.nn.utils import prune

import cifarzoo
from cifarzoo import ImageSet, Trainer
from cifarzoo.errors import ArgumentError

RECIPE = PLAIN.replace(epochs=1)


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_is_the_same_wherever_it_is_called(
    context: Callable[[], AbstractContextManager[object]], precision: str, few: ImageSet
) -> None:
    recipe = RECIPE.replace(batch_size=10)
    plain, inside = (make_trainer(recipe, precision=precision) for _ in range(2))
    images = few.subset(range(30))  # convolutions of float16 are slow on CPUs
    plain.fit(images)
    with context():
        inside.fit(images)
    assert same_state(plain.model.state_dict(), inside.model.state_dict())


def made_under_inference() -> nn.Module:
    with torch.inference_mode():
        return cifarzoo.create_model("simple", seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cifarzoo.create_model("simple").to("meta"), 'on the device "meta"'),
        (made_under_inference, "was made under torch.inference_mode"),
        (lambda: cifarzoo.create_model("simple").double(), r"holds float64.*model.float\(\)"),
        (lambda: cifarzoo.create_model("simple").half(), r"holds float16.*model.float\(\)"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(
    make: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Trainer(make(), RECIPE, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_copy_of_what_was_made_under_inference_is_trained(few: ImageSet) -> None:
    model = made_under_inference()
    Trainer(copy.deepcopy(model), RECIPE, device="cpu", precision="float32").fit(few)


def test_no_gradients_are_left_behind(few: ImageSet) -> None:
    trainer = make_trainer(RECIPE)
    first, *others = trainer.model.parameters()
    first.grad = torch.ones_like(first)  # of somebody's own loop
    trainer.fit(few)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in others)


def test_a_pruned_network_is_not_averaged_with_torchs_own_error(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    prune.l1_unstructured(model.conv1, "weight", 0.5)
    trainer = Trainer(model, RECIPE.replace(ema_decay=0.9), device="cpu", precision="float32")
    with pytest.raises(ArgumentError, match=r"prune\.remove"):
        trainer.fit(few)
    prune.remove(model.conv1, "weight")
    trainer.fit(few)
