from __future__ import annotations

import pytest

import cifarzoo
from cifarzoo import EpochRecord, History
from cifarzoo.errors import InputError


def history(epochs: int, *, val: bool = True) -> History:
    return History(
        tuple(
            EpochRecord(
                epoch=i + 1,
                train_loss=1 / (i + 1),
                train_accuracy=0.5,
                val_loss=2 / (i + 1) if val else None,
                val_accuracy=0.4 if val else None,
                learning_rate=0.1,
                seconds=1.0,
                images_per_second=10.0,
            )
            for i in range(epochs)
        )
    )


def test_confusion_matrix_writes_every_count() -> None:
    figure = cifarzoo.plot_confusion_matrix([[5, 1], [0, 7]], ("cat", "dog"), title="pets")
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "5", "7"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert axes.get_title() == "pets"
    assert axes.images[0].get_array().tolist() == [[5 / 6, 1 / 6], [0, 1]]


def test_confusion_matrix_must_fit_the_classes() -> None:
    with pytest.raises(InputError, match="confusion must be 2x2"):
        cifarzoo.plot_confusion_matrix([[1]], ("cat", "dog"))


def test_history_draws_training_and_validation() -> None:
    figure = cifarzoo.plot_history(history(3))
    loss, accuracy, rate = figure.axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    assert list(loss.lines[1].get_ydata()) == [2.0, 1.0, 2 / 3]
    assert list(accuracy.lines[0].get_ydata()) == [50.0] * 3
    assert list(rate.lines[0].get_xdata()) == [1, 2, 3]


def test_runs_are_compared_in_one_picture() -> None:
    runs = {"deep": history(3), "shallow": history(1, val=False)}
    loss = cifarzoo.plot_history(runs, title="both").axes[0]
    assert [line.get_label() for line in loss.lines] == ["deep train", "deep val", "shallow train"]
    assert loss.lines[0].get_color() != loss.lines[2].get_color()


def test_nothing_cannot_be_drawn() -> None:
    for empty in ({}, History(), {"run": History()}):
        with pytest.raises(InputError, match="at least one epoch"):
            cifarzoo.plot_history(empty)
