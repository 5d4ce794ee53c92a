"""The history of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarzoo import EpochRecord, History
from cifarzoo.errors import InputError

numbers = st.floats(0, 1e6)
records = st.builds(
    EpochRecord,
    epoch=st.integers(1, 1000),
    train_loss=numbers,
    train_accuracy=st.floats(0, 1),
    val_loss=st.none() | numbers,
    val_accuracy=st.none() | st.floats(0, 1),
    learning_rate=numbers,
    seconds=numbers,
    images_per_second=numbers,
)
histories = st.builds(History, st.lists(records, max_size=4).map(tuple))


def make_record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 2.0 / epoch, 0.5, None, None, 0.1, 1.5, 100.0)


@given(history=histories)
def test_a_round_trip_gives_an_equal_history(history: History, tmp_path: Path) -> None:
    assert History.from_list(history.to_list()) == history
    assert History.load(history.save(tmp_path / "history.json")) == history


def test_records_are_counted_indexed_and_summed() -> None:
    history = History((make_record(1), make_record(2)))
    assert len(history) == 2
    assert history[-1].epoch == 2
    assert history.seconds == 3.0
    assert history.column("train_loss") == [2.0, 1.0]
    assert history.column("val_loss") == [None, None]
    assert len(History()) == 0
    assert History().seconds == 0


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    path = History((make_record(1),)).save(tmp_path / "deeper" / "history.json")
    assert json.loads(path.read_text()) == [
        {
            "epoch": 1,
            "train_loss": 2.0,
            "train_accuracy": 0.5,
            "val_loss": None,
            "val_accuracy": None,
            "learning_rate": 0.1,
            "seconds": 1.5,
            "images_per_second": 100.0,
        }
    ]


@pytest.mark.parametrize(
    "content", [None, "", "[1, 2]", "3", '[{"epoch": 1}]', '[{"colour": 1}]', '{"epoch": 1}']
)
def test_another_file_is_refused_by_name(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"cannot read a training history from .*y\.json: ."):
        History.load(path)
