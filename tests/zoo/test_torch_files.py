"""Files of torch.save are read without running code; others are called what they are."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo.errors import WeightsError


def equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return cifarzoo.create_model("simple", seed=3)


def load(path: Path) -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=path)


def in_memory(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def tar(buffer: io.BytesIO) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))


def zipped(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("folder/readme.txt", "hello")


def script(buffer: io.BytesIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to give it up
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)


KINDS: dict[str, bytes | Callable[[io.BytesIO], object]] = {
    "is an HTML page.*the server sent a page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "is an XML page": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "is a Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha",
    "is a JSON text": json.dumps({"architecture": "resnet18"}, indent=2).encode(),
    "is a text.*it begins with 'Not Found'": b"Not Found",
    "is a gzip archive": gzip.compress(b"weights"),
    "is a tar archive": tar,
    r"zip archive that torch.save did not write \(it holds readme.txt\)": zipped,
    "is a numpy array": lambda file: np.save(file, np.zeros(3)),
    r"archive of numpy arrays.*dict\(numpy.load": lambda file: np.savez(file, a=np.zeros(3)),
    r"TorchScript archive.*torch.jit.load\(path\).state_dict": script,
    "is an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "is a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "is empty": b"",
    "begins with b'.x00": b"\x00\x01" * 50,
}


@pytest.mark.parametrize("told", KINDS)
def test_a_file_that_is_no_weights_file_is_called_what_it_is(told: str, tmp_path: Path) -> None:
    content = KINDS[told]
    path = tmp_path / "weights.pt"
    path.write_bytes(content if isinstance(content, bytes) else in_memory(content))
    for read in (load, cifarzoo.read_metadata, cifarzoo.load_model):
        with pytest.raises(WeightsError, match=told):
            read(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_numbers_arrays_and_arguments_may_stand_beside_the_tensors(
    is_zip: bool, theirs: nn.Module, tmp_path: Path
) -> None:
    content = {
        "model": theirs.state_dict(),
        "args": argparse.Namespace(lr=0.1, betas=(0.9, np.float32(0.99)), name="mine"),
        "best": np.float64(93.1),
        "epoch": np.int64(3),
        "curve": np.arange(3.0),
        "names": np.array(["cat", "dog"]),
    }
    torch.save(content, tmp_path / "theirs.pt", _use_new_zipfile_serialization=is_zip)
    before = {*torch.serialization.get_safe_globals()}
    assert equal(load(tmp_path / "theirs.pt"), theirs)
    assert {*torch.serialization.get_safe_globals()} == before


def test_names_of_numpy_before_version_2_are_known(theirs: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    torch.save({"net": theirs.state_dict(), "acc": np.float64(93.1)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (data,) = [name for name in parts if name.endswith("data.pkl")]
    assert b"numpy._core.multiarray" in parts[data]
    parts[data] = parts[data].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert equal(load(path), theirs)


def test_what_the_user_allowed_stays_allowed(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        load(tmp_path / "theirs.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()


class Config:
    """What trainers leave in their checkpoints."""


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_class_that_is_refused_is_named(is_zip: bool, theirs: nn.Module, tmp_path: Path) -> None:
    content = {"model": theirs.state_dict(), "config": Config()}
    torch.save(content, tmp_path / "theirs.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=r"code beside tensors: test_torch_files\.Config; noth"):
        load(tmp_path / "theirs.pt")


@pytest.mark.parametrize("how", [pickle.dump, torch.save])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, how: Any) -> None:
    with (tmp_path / "evil.pt").open("wb") as file:
        how({"state_dict": Attack(tmp_path / "executed")}, file)
    with pytest.raises(WeightsError, match=rf"code beside tensors: {os.name}\.mkdir; nothing"):
        load(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("nest", [True, False])
def test_a_whole_pickled_module_is_called_by_its_class(
    is_zip: bool, nest: bool, theirs: nn.Module, tmp_path: Path
) -> None:
    content = {"epoch": 1, "model": theirs} if nest else theirs
    torch.save(content, tmp_path / "whole.pt", _use_new_zipfile_serialization=is_zip)
    told = r"whole pickled module of the class cifarzoo\.models\.simple\.Simple.*weights_only=False"
    with pytest.raises(WeightsError, match=told):
        load(tmp_path / "whole.pt")


def test_a_pickle_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"epoch": 3}))
    with pytest.raises(WeightsError, match=r"is a pickle that torch\.save did not write"):
        load(tmp_path / "plain.pt")


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match=r"holds no state dict: .*\(epoch\)"):
        load(tmp_path / "empty.pt")


def test_a_damaged_torch_file_is_refused(theirs: nn.Module, tmp_path: Path) -> None:
    """Torch itself does not compare the checksums of its archives."""
    path = tmp_path / "theirs.pt"
    torch.save(theirs.state_dict(), path)
    whole = path.read_bytes()
    middle = whole.index(theirs.get_parameter("fc1.weight").detach().numpy().tobytes()[:64])
    path.write_bytes(whole[:middle] + b"\xff" + whole[middle + 1 :])
    with pytest.raises(WeightsError, match=r"is damaged: the checksum of .* differs"):
        load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="is truncated or damaged"):
        load(path)
