"""Every batch is looked at before it trains or measures anything, not only the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import PLAIN, make_batches, make_trainer, weights
from torch import Tensor

from cifarzoo import CIFAR10_PREPROCESSING, ImageSet, Loader, create_model
from cifarzoo.data.checks import Checks
from cifarzoo.errors import InputError
from cifarzoo.training.checkpoint import read_checkpoint

Batch = tuple[Tensor, Tensor]


def with_label(value: float, dtype: torch.dtype = torch.int64) -> Callable[[Batch], Batch]:
    def change(batch: Batch) -> Batch:
        labels = batch[1].to(dtype).clone()
        labels[7] = value
        return batch[0], labels

    return change


def in_rows(columns: int) -> Callable[[Batch], Batch]:
    return lambda batch: (batch[0], torch.eye(columns)[batch[1] % min(columns, 10)])


BAD: dict[str, tuple[Callable[[Batch], Batch], str]] = {
    "too high": (with_label(10), r"labels must be in 0\.\.9 .*10"),
    "negative": (with_label(-1), r"labels must be in 0\.\.9 .*-1"),
    "ignored by torch": (with_label(-100), r"labels must be in 0\.\.9 .*-100"),
    "no whole number": (with_label(2.9, torch.float32), "labels must be"),
    "too few": (lambda batch: (batch[0], batch[1][:-1]), "labels"),
    "raw floats": (lambda batch: (batch[0].float(), batch[1]), "must be normalized; .*255"),
    "whole numbers": (lambda batch: (batch[0].int(), batch[1]), "uint8 in 0..255, .*torch.int32"),
    "0 to 1": (lambda batch: (batch[0] / 255, batch[1]), "must be normalized"),
    "not a number": (lambda batch: (batch[0] / 0.0 * 0.0, batch[1]), "must be normalized; .*nan"),
    "too narrow": (in_rows(7), "labels that are rows .*10.*7"),
    "too wide": (in_rows(12), "labels that are rows .*10.*12"),
    "one channel": (lambda batch: (batch[0][:, :1], batch[1]), r"\(batch, 3, height, width\)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_batch_is_refused_by_its_number_before_it_trains(
    kind: str, few: ImageSet, tmp_path: Path
) -> None:
    change, message = BAD[kind]
    good = make_batches(few)
    expected = make_trainer(PLAIN.replace(epochs=1), output=tmp_path / "good")
    expected.fit(good[:2], steps_per_epoch=2)
    trainer = make_trainer(output=tmp_path / "bad")
    with pytest.raises(InputError, match=f"batch 3: .*{message}"):
        trainer.fit([*good[:2], change(good[2]), good[3]])
    after_two = weights(expected.model)
    assert all(torch.equal(after_two[n], value) for n, value in weights(trainer.model).items())
    assert not (tmp_path / "bad" / "checkpoint.pt").exists()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_batch_of_validation_is_refused(kind: str, few: ImageSet) -> None:
    change, message = BAD[kind]
    good = make_batches(few)
    with pytest.raises(InputError, match=f"batch 2: .*{message}"):
        make_trainer().fit(few, [good[0], change(good[1])])


def test_a_bad_batch_of_a_later_epoch_keeps_the_checkpoint(few: ImageSet, tmp_path: Path) -> None:
    class Worse:
        """Good in the first epoch."""

        def __init__(self) -> None:
            self.epoch = 0

        def __len__(self) -> int:
            return 4

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.epoch += 1
            good = make_batches(few)
            yield from good if self.epoch == 1 else [good[0], with_label(12)(good[1]), *good[2:]]

    with pytest.raises(InputError, match="batch 2"):
        make_trainer(output=tmp_path).fit(Worse())
    assert len(read_checkpoint(tmp_path)["records"]) == 1


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_first_batch_is_refused(kind: str, few: ImageSet) -> None:
    change, message = BAD[kind]
    good, trainer = make_batches(few), make_trainer()
    before = weights(trainer.model)
    with pytest.raises(InputError, match=message):
        trainer.fit([change(good[0]), *good[1:]])
    assert all(torch.equal(before[name], value) for name, value in weights(trainer.model).items())


def test_labels_of_a_loader_are_checked_as_a_whole(few: ImageSet) -> None:
    """Its batches are not looked at one by one."""
    sorted_by_label = few.subset(few.labels.argsort(stable=True))
    loader, low = Loader(sorted_by_label, batch_size=20), few.subset(few.labels < 3)
    for train, val in ((loader, None), (make_batches(low, 20), loader)):
        trainer = make_trainer()
        trainer.model = create_model("simple", num_classes=3, seed=0)
        before = weights(trainer.model)
        with pytest.raises(InputError, match=r"labels must be in 0\.\.2 .* got 0\.\.9"):
            trainer.fit(train, val)
        assert all(torch.equal(before[n], value) for n, value in weights(trainer.model).items())


def test_batches_on_an_accelerator_are_judged_when_the_losses_are_read(few: ImageSet) -> None:
    """Without one at hand: what is noted there, and told later."""
    checks = Checks(torch.device("cpu"), CIFAR10_PREPROCESSING, takes_soft=False, needs_labels=True)
    checks.num_labels = 10
    images, labels = make_batches(few)[0]
    checks.note(images, labels, 1)
    checks.note(CIFAR10_PREPROCESSING.normalize(images), labels, 2)
    checks.check_noted()
    late = ("too high", "negative", "raw floats", "0 to 1", "not a number")
    for number, kind in enumerate(late, start=3):
        checks.note(images, labels, number - 1)
        checks.note(*BAD[kind][0]((images, labels)), number)
        with pytest.raises(InputError, match=f"batch {number}: "):
            checks.check_noted()
    checks.check_noted()  # told once
