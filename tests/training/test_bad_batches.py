"""Every batch is looked at before it trains or measures anything, not only the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import PLAIN, make_batches, make_trainer, weights
from torch import Tensor

from cifarzoo import ImageSet
from cifarzoo.errors import InputError
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.training.feed import Feed

Batch = tuple[Tensor, Tensor]


def with_label(value: float, dtype: torch.dtype = torch.int64) -> Callable[[Batch], Batch]:
    def change(batch: Batch) -> Batch:
        labels = batch[1].to(dtype).clone()
        labels[7] = value
        return batch[0], labels

    return change


BAD: dict[str, tuple[Callable[[Batch], Batch], str]] = {
    "too high": (with_label(10), r"labels must be in 0\.\.9 .*10"),
    "negative": (with_label(-1), r"labels must be in 0\.\.9 .*-1"),
    "ignored by torch": (with_label(-100), r"labels must be in 0\.\.9 .*-100"),
    "no whole number": (with_label(2.9, torch.float32), "labels must be"),
    "too few": (lambda batch: (batch[0], batch[1][:-1]), "labels"),
    "raw floats": (lambda batch: (batch[0].float(), batch[1]), "must be normalized; .*255"),
    "not a number": (lambda batch: (batch[0] / 0.0 * 0.0, batch[1]), "must be normalized; .*nan"),
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


def test_batches_on_an_accelerator_are_judged_when_the_losses_are_read(few: ImageSet) -> None:
    """Without one at hand: what is noted there, and told later."""
    feed = Feed(
        make_batches(few),
        preprocessing=__import__("cifarzoo").CIFAR10_PREPROCESSING,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    feed.num_classes = 10
    images, labels = make_batches(few)[0]
    feed._late.note(images, labels, 1)
    feed._late.note(images.float() / 255, labels, 2)
    feed.check_late()
    for kind, number in (("too high", 3), ("negative", 4), ("raw floats", 5), ("not a number", 6)):
        feed._late.note(images, labels, number - 1)
        feed._late.note(*BAD[kind][0]((images, labels)), number)
        with pytest.raises(InputError, match=f"batch {number}: "):
            feed.check_late()
    feed.check_late()  # told once
