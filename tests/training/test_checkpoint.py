"""Checkpoint files: whole or not at all, and never run as code."""

from __future__ import annotations

import errno
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifarzoo.errors import CheckpointError, InputError, OutputError
from cifarzoo.training.checkpoint import (
    CHECKPOINT_NAME,
    check_same,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

STATE: dict[str, Any] = {"step": 3, "rate": 0.5, "none": None, "rows": [{"a": (1, 2)}, "b"]}


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / CHECKPOINT_NAME
    values = torch.randn(3, 4)
    assert write_checkpoint(path, {**STATE, "values": values}) == path
    for place in (path, str(path), path.parent):
        state = read_checkpoint(place)
        assert torch.equal(state.pop("values"), values)
        assert state == {"format": 1, **STATE}


def test_numpys_numbers_come_back_as_pythons(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_NAME
    write_checkpoint(path, {"lr": np.float64(0.25), "groups": [{"n": np.int64(3)}, (np.True_,)]})
    state = read_checkpoint(path)
    assert (state["lr"], state["groups"]) == (0.25, [{"n": 3}, (True,)])
    assert type(state["lr"]) is float


def test_what_could_not_be_read_again_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / CHECKPOINT_NAME, STATE)
    with pytest.raises(InputError, match=r"cannot be saved: .* more than tensors and plain"):
        write_checkpoint(path, {"order": np.arange(3)})
    assert read_checkpoint(path) == {"format": 1, **STATE}


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_tensor_is_noticed(place: int, bit: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("flip") / CHECKPOINT_NAME
    write_checkpoint(path, {**STATE, "values": torch.zeros(1000)})
    content = bytearray(path.read_bytes())
    start = content.index(bytes(4000))  # the only run of zeros that long is the tensor's
    content[start + place % 4000] ^= 1 << bit
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="is damaged: the checksum of"):
        read_checkpoint(path)


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*checkpoint\.pt; start the run wit"):
        find_checkpoint(tmp_path)
    write_checkpoint(tmp_path / CHECKPOINT_NAME, STATE)
    assert find_checkpoint(tmp_path) == tmp_path / CHECKPOINT_NAME


@given(content=st.binary(max_size=64))
def test_any_other_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bytes.pt"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wonders at pickle protocols that do not exist
        with pytest.raises(CheckpointError, match=r"checkpoint .*bytes\.pt (is|holds) "):
            read_checkpoint(path)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "c.pt", {**STATE, "values": torch.zeros(500)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"c\.pt is (empty|truncated|damaged)"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"format": 2}, torch.zeros(2)])
def test_files_of_another_kind_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is not a checkpoint of this version"):
        read_checkpoint(tmp_path / "other.pt")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(writer: str, tmp_path: Path) -> None:
    target, path = tmp_path / "made", tmp_path / "bomb.pt"
    state = {"format": 1, "bomb": Bomb(target)}
    if writer == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(
        CheckpointError, match=r"bomb\.pt holds code beside tensors: .*mkdir; nothing of it was run"
    ):
        read_checkpoint(path)
    assert not target.exists()
    # the file is a real one: read without care, it would have gone off
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert target.exists()


def test_without_space_the_older_checkpoint_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoint(tmp_path / "c.pt", {"step": 1})

    def is_full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", is_full)
    with pytest.raises(OutputError, match=r"cannot write .*c\.pt: no space left on device"):
        write_checkpoint(path, {"step": 2})
    assert read_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_differs_is_named() -> None:
    check_same("recipe", {"a": 1, "b": [2]}, {"b": [2], "a": 1})
    expected = (
        "the checkpoint belongs to another recipe: a was 1, is now 3; c was None, is now 'x'; "
        "resume with the same one, or start a new run in another folder"
    )
    with pytest.raises(CheckpointError) as caught:
        check_same("recipe", {"a": 1, "b": 2}, {"a": 3, "b": 2, "c": "x"})
    assert str(caught.value) == expected
