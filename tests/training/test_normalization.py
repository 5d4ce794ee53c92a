"""A frozen backbone stays what it is, its batch statistics included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import PLAIN, InterruptAt, make_trainer
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ImageSet, Recipe, create_model

SHORT = PLAIN.replace(epochs=1)


def frozen_but_for(model: nn.Module, *names: str) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(names))
    return model


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


RECIPES: dict[str, Recipe] = {
    "plain": SHORT,
    "averaged": SHORT.replace(ema_decay=0.5),
    "lookahead": SHORT.replace(lookahead_decay=0.5, batch_size=20),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("name", "head"), [("resnet20", "fc"), ("deep_bn", "fc5")])
def test_training_the_last_layer_moves_no_statistics(
    name: str, head: str, recipe: str, few: ImageSet
) -> None:
    model = frozen_but_for(create_model(name, seed=0), head)
    before = statistics(model)
    fc = getattr(model, head).weight.detach().clone()
    trainer = make_trainer(RECIPES[recipe])
    trainer.model = model
    trainer.fit(few)
    after = statistics(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(getattr(model, head).weight, fc)
    assert all(module.training for module in model.modules())


def test_statistics_of_the_part_that_is_trained_move(few: ImageSet) -> None:
    model = frozen_but_for(create_model("resnet20", seed=0), "layer3", "fc")
    before = statistics(model)
    trainer = make_trainer(SHORT.replace(ema_decay=0.5))
    trainer.model = model
    trainer.fit(few)
    moved = {n.split(".")[0] for n, v in statistics(model).items() if not torch.equal(v, before[n])}
    assert moved == {"layer3"}


def test_a_normalization_without_parameters_belongs_to_its_neighbour(few: ImageSet) -> None:
    """Before a frozen backbone, within it, and before a new head that is trained."""

    def norm(size: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(size, affine=False)

    block = nn.Sequential(nn.ReLU(), nn.Sequential(norm(4)))
    backbone = nn.Sequential(norm(3), nn.Conv2d(3, 4, 8, stride=8), block).requires_grad_(False)
    head = nn.Sequential(norm(4), nn.Conv2d(4, 10, 4), nn.Flatten())
    trainer = make_trainer(SHORT)
    trainer.model = nn.Sequential(backbone, head)
    before = statistics(trainer.model)
    trainer.fit(few)
    after = statistics(trainer.model)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {
        f"1.0.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_a_frozen_backbone_stays_frozen_after_an_interruption(
    few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifarzoo.training.loop._TICK", 0.0)
    results = []
    for interrupted in (False, True):
        folder = tmp_path / str(interrupted)
        model = frozen_but_for(create_model("resnet20", seed=0), "fc")
        before = statistics(model)
        trainer = make_trainer(SHORT, output=folder, loggers=[InterruptAt(1, 2)] * interrupted)
        trainer.model = model
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(few)
            trainer = make_trainer(SHORT, output=folder)
            trainer.model = frozen_but_for(create_model("resnet20", seed=0), "fc")
            trainer.fit(few, resume=True)
        else:
            trainer.fit(few)
        results.append(trainer.model.fc.weight.detach().clone())
        after = statistics(trainer.model)
        assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(*results)


def test_a_pretrained_backbone_keeps_its_accuracy(sample_test: ImageSet, few: ImageSet) -> None:
    """The old head on the trained-around backbone is as good as ever."""
    model = create_model("resnet20", pretrained=True)
    images = sample_test.subset(range(200))
    before = cifarzoo.evaluate(model, images, device="cpu", precision="float32").accuracy
    head = model.fc
    model.fc = nn.Linear(64, 10)
    frozen_but_for(model, "fc")
    trainer = make_trainer(SHORT)
    trainer.model = model
    trainer.fit(few)
    model.fc = head
    after = cifarzoo.evaluate(model, images, device="cpu", precision="float32").accuracy
    assert after == before
