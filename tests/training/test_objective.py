"""The loss: one's own, shares of classes, parts of a batch, float16."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import PLAIN, InterruptAt, make_trainer, measured, same_state, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from cifarzoo import CIFAR10_PREPROCESSING, ImageSet, create_model
from cifarzoo.errors import ArgumentError, CheckpointError, InputError
from cifarzoo.training import loop

ONE_STEP = PLAIN.replace(epochs=1, batch_size=200, momentum=0, weight_decay=0)


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers are told of every step, so that a run can be stopped after any."""
    monkeypatch.setattr(loop, "_TICK", 0.0)


def test_a_loss_of_ones_own_is_made_smaller(few: ImageSet) -> None:
    """Cross-entropy by another name trains the same network, to the last bit."""
    trainers = [make_trainer(), make_trainer(loss=F.cross_entropy)]
    histories = [trainer.fit(few, few) for trainer in trainers]
    assert same_state(*(weights(trainer.model) for trainer in trainers))
    ours, theirs = (measured(history) for history in histories)
    for one, other in zip(ours, theirs, strict=True):
        assert one == {**other, "val_loss": pytest.approx(one["val_loss"], rel=1e-6)} or (
            other == pytest.approx(one, rel=1e-5)
        )


def test_class_weights_act_and_stay_where_they_are(few: ImageSet) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.eye(10)[3] * 9 + 1)
    plain, weighted = make_trainer(), make_trainer(loss=loss)
    plain.fit(few)
    weighted.fit(few)

    def cats(model: nn.Module) -> int:
        from cifarzoo import probabilities

        return int((probabilities(model, few.images, device="cpu").argmax(1) == 3).sum())

    assert cats(weighted.model) > cats(plain.model)
    assert loss.weight is not None
    assert loss.weight.device.type == "cpu"
    assert loss.training


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss, r"loss is a function .* or an object such as nn.CrossEntropyLoss\("),
        ("focal", "loss is a function of logits and targets"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_trainer(loss=loss)


def test_smoothing_belongs_to_the_recipes_own_loss() -> None:
    with pytest.raises(ArgumentError, match=r"label_smoothing=0\.1 belongs to its own loss"):
        make_trainer(PLAIN.replace(label_smoothing=0.1), loss=F.cross_entropy)


@pytest.mark.parametrize(
    "loss", [lambda x, y: F.cross_entropy(x, y, reduction="none"), lambda x, y: 0.5]
)
def test_a_loss_that_is_no_number_is_refused_before_a_step(loss: Any, few: ImageSet) -> None:
    trainer = make_trainer(loss=loss)
    before = weights(trainer.model)
    with pytest.raises(InputError, match="loss must return one number, the mean over the batch"):
        trainer.fit(few)
    assert same_state(before, weights(trainer.model))


def test_a_dataloader_may_mix_images_and_labels(few: ImageSet) -> None:
    mix = v2.CutMix(num_classes=10)

    def collate(items: list[Any]) -> Any:
        return mix(*default_collate(items))

    loader: DataLoader[Any] = DataLoader(few, batch_size=50, collate_fn=collate)  # type: ignore[arg-type]
    history = make_trainer().fit(loader, few)
    assert history[-1].train_loss < 2.4
    assert history[-1].val_accuracy is not None


def test_a_loss_that_takes_no_shares_is_told_of_mixed_images(few: ImageSet) -> None:
    def own(logits: Tensor, targets: Tensor) -> Tensor:
        return F.nll_loss(logits.log_softmax(1), targets)

    make_trainer(loss=own).fit(few)
    with pytest.raises(
        InputError, match=r"loss cannot take shares of classes \(50, 10\), which mix"
    ):
        make_trainer(PLAIN.replace(mixup_alpha=0.2), loss=own).fit(few)


def test_shares_of_classes_train_as_their_labels_do(few: ImageSet) -> None:
    """Rows that say the same as the labels, but for a hair, give the same network."""
    shares = F.one_hot(few.labels, 10).float() * 0.9998 + 0.00002
    plain, soft = make_trainer(ONE_STEP), make_trainer(ONE_STEP)
    plain.fit([(few.images, few.labels)])
    soft.fit([(few.images, shares)])
    for one, other in zip(plain.model.parameters(), soft.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


def test_shares_are_taken_by_the_names_of_the_classes(few: ImageSet) -> None:
    """A loader that numbers classes from the end trains the network as in order."""
    from cifarzoo import load_sample

    class Named(list[Any]):
        classes = load_sample("test").classes[::-1]

    shares = F.one_hot(few.labels, 10).float() * 0.9 + 0.01
    in_order, reversed_ = make_trainer(ONE_STEP), make_trainer(ONE_STEP)
    in_order.fit([(few.images, shares)])
    reversed_.fit(Named([(few.images, shares.flip(1))]))
    assert same_state(weights(in_order.model), weights(reversed_.model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[:, :9] / rows[:, :9].sum(1, keepdim=True),
            "need 10 columns, one for each class; got 9",
        ),
        (lambda rows: rows * 2, "rows with one 1"),
        (lambda rows: rows - 0.2, "rows with one 1"),
    ],
)
def test_rows_that_are_no_shares_are_refused(change: Any, message: str, few: ImageSet) -> None:
    rows = change(torch.full((50, 10), 0.1))
    with pytest.raises(InputError, match=message):
        make_trainer().fit([(few.images[:50], rows)])


def test_validation_takes_no_shares(few: ImageSet) -> None:
    rows = torch.full((200, 10), 0.1)
    with pytest.raises(InputError, match="labels must be one number for each image"):
        make_trainer().fit(few, [(few.images, rows)])


def without_normalization() -> nn.Module:
    return create_model("simple", seed=0)


@pytest.mark.parametrize("parts", [2, 3, 200])
def test_parts_of_a_batch_add_up_to_its_gradient(parts: int, few: ImageSet) -> None:
    for module in without_normalization().modules():
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm)
    whole = make_trainer(ONE_STEP)
    cut = make_trainer(ONE_STEP.replace(accumulate=parts))
    one, other = whole.fit(few), cut.fit(few)
    for a, b in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert one[0].train_loss == pytest.approx(other[0].train_loss, rel=1e-5)
    assert one[0].train_accuracy == other[0].train_accuracy


def test_parts_see_fewer_images_at_once(few: ImageSet) -> None:
    trainer = make_trainer(PLAIN.replace(batch_size=100, accumulate=4))
    seen: list[int] = []
    trainer.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    trainer.fit(few)
    assert max(seen) == 25


HALF = PLAIN.replace(batch_size=10)


@pytest.fixture
def tiny(few: ImageSet) -> ImageSet:
    """40 images: convolutions of float16 are slow on CPUs."""
    return few.subset(range(40))


def test_float16_makes_the_loss_large_before_its_gradients(tiny: ImageSet) -> None:
    trainer = make_trainer(HALF.replace(epochs=4), precision="float16")
    scales: list[Tensor] = []
    head = trainer.model.get_parameter("fc3.weight")
    head.register_hook(lambda grad: scales.append(grad.abs().max()))
    history = trainer.fit(tiny)
    assert history[-1].train_loss < history[0].train_loss < 3
    assert float(torch.stack(scales).max()) > 100  # scaled; the step used small ones
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


def test_float16_goes_on_where_it_stopped(tiny: ImageSet, tmp_path: Path) -> None:
    recipe = HALF.replace(epochs=3)
    whole = make_trainer(recipe, precision="float16")
    whole.fit(tiny)
    stopped = make_trainer(
        recipe, precision="float16", output=tmp_path / "run", loggers=[InterruptAt(2, 4)]
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(tiny)
    again = make_trainer(recipe, precision="float16", output=tmp_path / "run")
    again.fit(tiny, resume=True)
    assert same_state(weights(whole.model), weights(again.model))


def test_a_run_whose_steps_were_all_skipped_goes_on(tiny: ImageSet, tmp_path: Path) -> None:
    """Adam takes its number of steps back where a gradient was too large for float16."""

    def steep(logits: Tensor, targets: Tensor) -> Tensor:
        return 1000 * F.cross_entropy(logits, targets)

    options: dict[str, Any] = {"precision": "float16", "loss": steep, "output": tmp_path / "run"}
    recipe = HALF.replace(optimizer="adam", learning_rate=1e-3)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe, loggers=[InterruptAt(1, 1)], **options).fit(tiny)
    whole = make_trainer(recipe, **{**options, "output": None})
    whole.fit(tiny)
    again = make_trainer(recipe, **options)
    again.fit(tiny, resume=True)
    assert same_state(weights(whole.model), weights(again.model))


def uneven(few: ImageSet) -> list[tuple[Tensor, Tensor]]:
    """Batches of one class, then of all others."""
    order = few.labels.ne(0).int().argsort(stable=True)
    first = int((few.labels == 0).sum())
    return [(few.images[part], few.labels[part]) for part in (order[:first], order[first:])]


@pytest.mark.parametrize("first", [5.0, 0.0])
def test_a_weighted_loss_is_validated_over_all_images_at_once(first: float, few: ImageSet) -> None:
    """The mean of its batches is another number, and none where a batch has no weight."""
    weight = torch.ones(10)
    weight[0] = first
    trainer = make_trainer(ONE_STEP, loss=nn.CrossEntropyLoss(weight=weight))
    history = trainer.fit(few, uneven(few))
    with torch.no_grad():
        logits = trainer.model.eval()(CIFAR10_PREPROCESSING.normalize(few.images))
    expected = float(F.cross_entropy(logits, few.labels, weight=weight))
    assert history[-1].val_loss == pytest.approx(expected, rel=1e-4)


class Balanced(nn.Module):
    """Weights classes by how often it has met them."""

    def __init__(self, kind: str = "in place") -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("seen", None if kind == "made later" else torch.ones(10))
        self.register_buffer("met", torch.zeros(0, dtype=torch.int64))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        now = torch.bincount(targets, minlength=10)
        if self.kind == "in place":
            self.seen = self.get_buffer("seen").add_(now)
        elif self.kind == "growing":
            self.met = torch.cat((self.get_buffer("met"), targets))
            self.seen = torch.bincount(self.met, minlength=10) + 1.0
        else:
            self.seen = now + (torch.ones(10) if self.seen is None else self.seen)
        return F.cross_entropy(logits, targets, weight=self.seen.sum() / self.seen / 10)


@pytest.mark.parametrize("kind", ["in place", "made anew", "made later", "growing"])
def test_what_a_loss_keeps_goes_on_and_is_of_training_images(
    kind: str, few: ImageSet, tmp_path: Path
) -> None:
    whole = make_trainer(PLAIN, loss=Balanced(kind))
    whole.fit(few)
    halves: dict[str, Any] = {"output": tmp_path / "run", "loss": Balanced(kind)}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(PLAIN, loggers=[InterruptAt(2, 1)], **halves).fit(few, uneven(few))
    again = make_trainer(PLAIN, **halves)
    again.fit(few, uneven(few), resume=True)
    assert same_state(weights(whole.model), weights(again.model))


@pytest.mark.parametrize(
    "other", [nn.CrossEntropyLoss(weight=torch.ones(10)), nn.CrossEntropyLoss(), None, Balanced()]
)
def test_a_run_does_not_go_on_with_another_loss(
    other: nn.Module | None, few: ImageSet, tmp_path: Path
) -> None:
    """Of losses with buffers, as weights of the classes, this is known."""
    loss = nn.CrossEntropyLoss(weight=torch.arange(1.0, 11.0))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(loss=loss, loggers=[InterruptAt(2, 1)], output=tmp_path / "run").fit(few)
    trainer = make_trainer(loss=other, output=tmp_path / "run")
    before = weights(trainer.model)
    with pytest.raises(CheckpointError, match="the loss differs from the one that the run began"):
        trainer.fit(few, resume=True)
    assert same_state(before, weights(trainer.model))
    make_trainer(loss=loss, output=tmp_path / "run").fit(few, resume=True)


def test_a_loss_is_told_how_labels_were_numbered(
    few: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights stand in the network's order, and the images may number classes otherwise."""
    turned = dataclasses.replace(few, labels=9 - few.labels, classes=few.classes[::-1])
    make_trainer(ONE_STEP).fit(turned)
    make_trainer(ONE_STEP, loss=F.cross_entropy).fit(few)
    assert not caplog.text
    make_trainer(ONE_STEP, loss=F.cross_entropy).fit(turned)
    assert "the loss sees the network's numbers: labels were taken by the names" in caplog.text
    assert "(0 is truck, 1 is ship," in caplog.text
