"""What holds on a processor holds on a GPU: these run where there is one.

$CIFARZOO_TEST_DEVICE names another device, to see that the tests themselves are right.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cifarzoo
from cifarzoo import (
    Augmentation,
    EpochRecord,
    ImageSet,
    Loader,
    Logger,
    Recipe,
    Trainer,
    create_model,
    embeddings,
    evaluate,
    export_onnx,
    list_models,
    predict,
    probabilities,
)
from cifarzoo.recipe.muon import orthogonalize

DEVICE = os.environ.get("CIFARZOO_TEST_DEVICE", "cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"
    ),
]

SHORT = Recipe(
    epochs=2,
    batch_size=50,
    learning_rate=0.02,
    scheduler="constant",
    augmentation=Augmentation(flip="random", crop_padding=2, policies=["trivial_augment"]),
)


def train(
    images: ImageSet, recipe: Recipe = SHORT, *, model: str = "simple", **options: Any
) -> Any:
    resume = options.pop("resume", False)
    trainer = Trainer(create_model(model, seed=0), recipe, device=DEVICE, **options)
    return trainer, trainer.fit(images, images, resume=resume)


def state(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in trainer.model.state_dict().items()}


@pytest.mark.parametrize("name", list_models())
def test_every_network_answers_as_on_the_processor(name: str, few: ImageSet) -> None:
    model = create_model(name, seed=0)
    there, here = (
        probabilities(model, few.images[:8], device=device, precision="float32")
        for device in (DEVICE, "cpu")
    )
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("name", list_models())
def test_every_network_learns(name: str, few: ImageSet) -> None:
    recipe = SHORT.replace(epochs=1, learning_rate=0.01)
    trainer, history = train(few, recipe, model=name)
    assert history[-1].train_loss == history[-1].train_loss
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    assert {p.device.type for p in trainer.model.parameters()} == {torch.device(DEVICE).type}


def test_a_report_is_that_of_the_processor(sample_test: ImageSet) -> None:
    model = create_model("resnet20", pretrained=True)
    there = evaluate(model, sample_test, device=DEVICE, precision="float32", tta="flip_shift")
    here = evaluate(model, sample_test, device="cpu", precision="float32", tta="flip_shift")
    assert abs(there.accuracy - here.accuracy) <= 0.002
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
    moved = model.to(DEVICE)
    assert evaluate(moved, sample_test, precision="float32", tta="flip_shift") == there
    assert embeddings(moved, sample_test.images[:4]).device.type == "cpu"
    assert predict(moved, sample_test.images[0]).label in cifarzoo.CIFAR10_CLASSES


def test_what_is_left_on_the_gpu_can_be_exported(few: ImageSet, tmp_path: Path) -> None:
    trainer, _ = train(few)
    evaluate(trainer.model, few)
    export_onnx(trainer.model.cpu(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 0


@pytest.mark.parametrize("name", ["simple", "deep_bn", "resnet20"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    name: str, few: ImageSet, tmp_path: Path
) -> None:
    class Stop(Logger):
        def on_epoch(self, record: EpochRecord) -> bool:
            return record.epoch == 1

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        whole, _ = train(few, model=name)
        train(few, model=name, output=tmp_path / "run", loggers=[Stop()])
        again, history = train(few, model=name, output=tmp_path / "run", resume=True)
    assert len(history) == 2
    ours, theirs = state(whole), state(again)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_learns(precision: Any, few: ImageSet) -> None:
    _, history = train(few, SHORT.replace(epochs=4), precision=precision)
    assert history[-1].train_loss < history[0].train_loss


def test_batches_are_those_of_the_processor(few: ImageSet) -> None:
    def batches(device: str) -> list[Tensor]:
        augmentation = Augmentation(flip="random", crop_padding=2, cutout=8)
        generator = torch.Generator().manual_seed(0)
        loader = Loader(
            few, batch_size=64, augmentation=augmentation, device=device, generator=generator
        )
        return [images.cpu() for images, _ in loader]

    for there, here in zip(batches(DEVICE), batches("cpu"), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)


def test_a_set_on_the_gpu_is_divided_as_on_the_processor(few: ImageSet) -> None:
    there = ImageSet(few.images.to(DEVICE), few.labels.to(DEVICE), few.classes)
    for one, other in zip(few.split(50), there.split(50), strict=True):
        assert one.sha256() == other.sha256()


def test_muon_moves_as_on_the_processor() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(5, 32, 72, generator=generator)
    there = orthogonalize(matrices.to(DEVICE), 5).cpu()
    torch.testing.assert_close(there, orthogonalize(matrices, 5), rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_a_compiled_network_takes_all_sizes_of_a_recipe(few: ImageSet) -> None:
    sizes = [[0, 16], [0.2, 20], [0.4, 24], [0.6, 28], [0.8, 32]]
    recipe = SHORT.replace(epochs=5, image_sizes=sizes, learning_rate=0.01)
    compiled, history = train(few, recipe, model="resnet20", compile=True, precision="float32")
    plain, other = train(few, recipe, model="resnet20", precision="float32")
    assert history[-1].train_loss == pytest.approx(other[-1].train_loss, rel=0.05)
    assert type(compiled.model) is type(plain.model)
