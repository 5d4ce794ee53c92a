"""Files of torch.save are read without running code; others are called what they are."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cifarzoo
from cifarzoo.errors import WeightsError
from cifarzoo.zoo.torch_files import kind_of_file, read_torch_file


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
    parts[data] = parts[data].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in parts[data]
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


def load_tree(tree: Any, path: Path) -> nn.Module:
    torch.save(tree, path)
    return load(path)


def test_dictionaries_that_hold_themselves_are_refused(theirs: nn.Module, tmp_path: Path) -> None:
    knot: dict[str, Any] = dict(theirs.state_dict())
    knot["again"] = [knot]
    for read in (lambda: load_tree(knot, tmp_path / "knot.pt"), lambda: load_state(knot)):
        with pytest.raises(WeightsError, match=r"nested more than .* or holds itself"):
            read()


def test_a_few_lists_that_hold_each_other_again_and_again_are_refused(tmp_path: Path) -> None:
    level: Any = [torch.zeros(1)]
    for _ in range(40):  # two to the power of forty tensors
        level = [level, level]
    with pytest.raises(WeightsError, match=r"holds more than [\d,]+ parts"):
        load_tree({"model": level}, tmp_path / "many.pt")


def load_state(state: dict[str, Any]) -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=state)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.to_sparse(), "is sparse"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is quantized"),
        (lambda t: t.to("meta"), "without its numbers"),
        (lambda t: t.to(torch.complex64), "of another kind: fc1.weight"),
        (lambda t: t.to(torch.int32), "of another kind: fc1.weight"),
        (lambda t: t > 0, "of another kind: fc1.weight"),
        (lambda t: t[:1, :1].expand(100_000, 100_000), "fewer numbers than places|other shape"),
        (lambda t: [t, t], "missing in the file"),
        (lambda t: "weights", "missing in the file"),
        (lambda t: t.numpy().astype(np.longdouble), "cannot be a tensor|missing in the file"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:.*[Ss]parse")
def test_tensors_of_another_kind_are_named(
    change: Callable[[torch.Tensor], Any], told: str, theirs: nn.Module, tmp_path: Path
) -> None:
    state: dict[str, Any] = dict(theirs.state_dict())
    state["fc1.weight"] = change(state["fc1.weight"])
    for read in (lambda: load_tree(state, tmp_path / "theirs.pt"), lambda: load_state(state)):
        with pytest.raises(WeightsError, match=told):
            read()


@pytest.mark.parametrize("key", [(1, 2), b"fc", 1.5, True])
def test_a_tensor_under_a_key_that_is_no_name_is_refused(key: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="which is no name"):
        load_tree({"model": {key: torch.zeros(1)}}, tmp_path / "theirs.pt")


def test_a_method_that_a_pickle_hangs_on_a_dictionary_is_not_called(
    theirs: nn.Module, tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return OrderedDict, (), {"items": 5}, None, iter(theirs.state_dict().items())

    assert equal(load_tree(Trap(), tmp_path / "theirs.pt"), theirs)


def test_an_archive_that_swells_is_refused(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": theirs.state_dict(), "zeros": torch.zeros(10**6)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match="compressed archive"):
        load(tmp_path / "w.pt")


def test_a_size_in_a_pickle_of_numpy_asks_for_no_memory(theirs: nn.Module, tmp_path: Path) -> None:
    """numpy itself would give an array of 8 TB to whoever asks; nothing is read instead."""

    class Huge:
        def __reduce__(self) -> Any:
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (10**12,), b"d")

    assert equal(load_tree({"net": theirs.state_dict(), "x": Huge()}, tmp_path / "w.pt"), theirs)


@pytest.mark.parametrize("operation", [b"y", b"\x00", b""])
def test_a_pickle_that_breaks_off_is_refused(
    operation: bytes, theirs: nn.Module, tmp_path: Path
) -> None:
    """Its archive is whole, so that torch alone can tell."""
    torch.save({"net": theirs.state_dict(), "config": Config()}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (data,) = [name for name in parts if name.endswith("data.pkl")]
    parts[data] = parts[data][:-40] + operation
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=r"w\.pt (holds code|is damaged)"):
        load(tmp_path / "w.pt")


@given(where=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing(
    where: int, bit: int, theirs: nn.Module, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("flip") / "w.pt"
    torch.save({"fc.weight": torch.arange(64.0), "fc.bias": torch.ones(4)}, path)
    content = bytearray(path.read_bytes())
    before = read_torch_file(path)
    content[where % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(WeightsError):
        assert kind_of_file(path) == "torch"
        after = read_torch_file(path)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
