"""Runs with the layers in C: the same training, but for rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo import Augmentation, ImageSet, Recipe, Trainer
from cifarzoo.compute.cpu import library
from cifarzoo.compute.machine import computes_bfloat16

RECIPE = Recipe(
    epochs=2,
    batch_size=20,
    learning_rate=0.01,
    scheduler="constant",
    augmentation=Augmentation(flip="random", crop_padding=2),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "deep_bn", "airbench94"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_is_that_of_torchs_layers(
    name: str, precision: str, few: ImageSet, built: None
) -> None:
    if precision == "bfloat16" and not computes_bfloat16(torch.device("cpu")):
        few = few.subset(range(60))  # torch imitates it, which is slow
    losses = []
    for kernels in (True, False):
        model = cifarzoo.create_model(name, seed=0)
        trainer = Trainer(model, RECIPE, device="cpu", precision=precision, kernels=kernels)  # type: ignore[arg-type]
        losses.append([record.train_loss for record in trainer.fit(few).records])
        assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
        assert all(type(buffer) is torch.Tensor for buffer in model.buffers())
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_run_of_torchvisions_network_is_too(few: ImageSet, built: None) -> None:
    import torchvision

    losses = []
    for kernels in (True, False):
        torch.manual_seed(0)
        model = torchvision.models.mobilenet_v2(num_classes=10, dropout=0.0)
        trainer = Trainer(model, RECIPE.replace(epochs=1), device="cpu", kernels=kernels)
        losses.append(trainer.fit(few.subset(range(60))).records[0].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_long_runs_compile_them_and_short_ones_do_not(
    few: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    monkeypatch.setattr(library, "build", lambda: bool(built.append(1)))
    for steps, expected in ((199, 0), (200, 1)):
        recipe = RECIPE.replace(epochs=1, batch_size=1)
        Trainer(cifarzoo.create_model("simple", seed=0), recipe, device="cpu").fit(
            few.subset(range(steps))
        )
        assert len(built) == expected
