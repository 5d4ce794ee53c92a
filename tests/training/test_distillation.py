from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo import ImageSet, ModelCard, Preprocessing, Recipe, Trainer
from cifarzoo.compute.place import Place
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.training.distillation import Distillation

LEARNS = Recipe(
    epochs=1,
    batch_size=50,
    learning_rate=0.01,
    teacher="simple",
    distillation_weight=0.5,
    distillation_temperature=2.0,
)


@pytest.fixture
def model() -> nn.Module:
    return cifarzoo.create_model("simple", seed=0)


@pytest.fixture
def teacher() -> nn.Module:
    return cifarzoo.create_model("simple", seed=1)


def test_the_loss_is_hintons(teacher: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 32, 32, generator=generator)
    logits = torch.randn(6, 10, generator=generator)
    with torch.no_grad():
        taught = (teacher(images) / 2).softmax(1)
    ours = (logits / 2).softmax(1)
    by_hand = 0.5 * 1.25 + 0.5 * 4 * (taught * (taught / ours).log()).sum(1).mean()
    part = Distillation(teacher, LEARNS, Place(torch.device("cpu")))
    loss = part.blend(torch.tensor(1.25), logits, images)
    torch.testing.assert_close(loss, by_hand)


def test_no_gradient_reaches_the_teacher(
    model: nn.Module, teacher: nn.Module, few: ImageSet
) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    Trainer(model, LEARNS, teacher=teacher, device="cpu").fit(few)
    assert all(torch.equal(before[name], t) for name, t in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_alone_pulls_the_student_to_itself(teacher: nn.Module, few: ImageSet) -> None:
    """With no weight on the labels, one's own copy is a teacher with nothing to teach."""
    recipe = LEARNS.replace(distillation_weight=1.0)
    twin = cifarzoo.create_model("simple", seed=1)
    history = Trainer(twin, recipe, teacher=teacher, device="cpu", precision="float32").fit(few)
    assert history[0].train_loss == pytest.approx(0, abs=1e-6)
    other = cifarzoo.create_model("simple", seed=0)
    longer = recipe.replace(epochs=6)
    history = Trainer(other, longer, teacher=teacher, device="cpu", precision="float32").fit(few)
    assert history[-1].train_loss < history[0].train_loss


def test_resume_with_a_teacher_is_exact(few: ImageSet, teacher: nn.Module, tmp_path: Path) -> None:
    recipe = LEARNS.replace(epochs=2, scheduler="constant")
    whole = cifarzoo.create_model("simple", seed=0)
    Trainer(whole, recipe, teacher=teacher, device="cpu", output=tmp_path / "a").fit(few)

    class Stop(cifarzoo.ConsoleLogger):
        def on_epoch(self, record: object) -> None:
            raise RuntimeError("stop")

    half = cifarzoo.create_model("simple", seed=0)
    with pytest.raises(RuntimeError, match="stop"):
        Trainer(
            half, recipe, teacher=teacher, device="cpu", output=tmp_path / "b", loggers=[Stop()]
        ).fit(few)
    again = cifarzoo.create_model("simple", seed=5)
    Trainer(again, recipe, teacher=teacher, device="cpu", output=tmp_path / "b").fit(
        few, resume=True
    )
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_teacher_and_recipe_must_agree(model: nn.Module, teacher: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="the recipe learns from 'simple'; pass teacher="):
        Trainer(model, LEARNS)
    with pytest.raises(ArgumentError, match="the recipe names none"):
        Trainer(model, Recipe(), teacher=teacher)
    with pytest.raises(ArgumentError, match=r"learns from 'simple', and the teacher is 'resnet20'"):
        Trainer(model, LEARNS, teacher=cifarzoo.create_model("resnet20"))
    tagged = LEARNS.replace(teacher="simple.cifar100")
    Trainer(model, tagged, teacher=teacher)
    with pytest.raises(ArgumentError, match=r"create_model\('simple', pretrained='cifar100'\)"):
        Trainer(model, tagged)
    with pytest.raises(ArgumentError, match=r"holds float16: teacher\.float\(\)"):
        Trainer(model, LEARNS, teacher=cifarzoo.create_model("simple").half())
    other = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    cifarzoo.attach_card(teacher, ModelCard("simple", preprocessing=other))
    with pytest.raises(ArgumentError, match="they must agree"):
        Trainer(model, LEARNS, teacher=teacher)


def test_a_teacher_of_other_classes_is_refused(model: nn.Module, few: ImageSet) -> None:
    teacher = cifarzoo.create_model("simple", num_classes=7)
    with pytest.raises(ArgumentError, match="teacher has 7 classes, and the model has 10"):
        Trainer(model, LEARNS, teacher=teacher, device="cpu").fit(few)


def test_a_teacher_that_cannot_take_a_size_of_the_recipe_is_refused(
    few: ImageSet, teacher: nn.Module
) -> None:
    recipe = LEARNS.replace(epochs=2, image_sizes=[[0, 32], [0.75, 24]])
    student = cifarzoo.create_model("resnet20", seed=0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(ArgumentError, match="trains at 24 pixels, which the teacher cannot take"):
        Trainer(student, recipe, teacher=teacher, device="cpu").fit(few)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_a_teacher_is_a_name() -> None:
    with pytest.raises(ArgumentError, match="teacher must be a model's name"):
        Recipe(teacher=3)  # type: ignore[arg-type]
    assert Recipe().override("teacher", "simple").teacher == "simple"


def test_a_network_is_no_teacher_of_its_own_parameters(model: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=r"holds parameters of the model.*copy\.deepcopy"):
        Trainer(model, LEARNS, teacher=model)
    Trainer(model, LEARNS, teacher=copy.deepcopy(model))
    shares_a_frozen_part = copy.deepcopy(model)
    shares_a_frozen_part.conv1 = model.get_submodule("conv1").requires_grad_(False)
    Trainer(model, LEARNS, teacher=shares_a_frozen_part)


def test_a_teacher_that_returns_two_things_is_refused(
    model: nn.Module, teacher: nn.Module, few: ImageSet
) -> None:
    teacher.register_forward_hook(lambda _, args, logits: (logits, logits))
    with pytest.raises(InputError, match=r"a teacher must return logits \(1, classes\).* tuple"):
        Trainer(model, LEARNS, teacher=teacher, device="cpu").fit(few)
