"""Pickles that would keep Python busy for ever, or end it, are refused before they are built."""

from __future__ import annotations

import contextlib
import io
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cifarzoo
from cifarzoo.errors import CheckpointError, WeightsError
from cifarzoo.training.checkpoint import read_checkpoint
from cifarzoo.zoo.pickle_graph import check_pickles
from cifarzoo.zoo.torch_files import read_torch_file

SHARED = b")" + b"q\x00h\x00\x86" * 60
"""A tuple of two tuples of two tuples: two to the power of sixty parts."""
LISTS = b"]q\x01" + b"".join(
    b"]q%c(h%ch%ce" % (number, number - 1, number - 1) for number in range(2, 62)
)
"""The same of lists."""
LEGACY = (
    pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    + pickle.dumps(1001, protocol=2)
    + pickle.dumps({"little_endian": True}, protocol=2)
)
ATTACKS = {
    "a shared key": b"}" + SHARED + b"K\x01s.",
    "a deep key": b"})" + b"\x85" * 200_000 + b"K\x01s.",
    "a shared element of a set": b"c__builtin__\nset\n(" + SHARED + b"tR.",
    "a key that is counted": b"ccollections\nCounter\n(](" + SHARED + b"etR.",
    "a call of lists": LISTS + b")R.",
    "a new object of lists": LISTS + b")\x81.",
    "a state that is shown": b"ctorch._utils\n_rebuild_parameter_with_state\n(NK\x01N"
    + LISTS
    + b"\x85tR.",
    "lists that are filled later": b"]q\x00](h\x00h\x00eq\x01h\x00h\x01a.",
    "arguments": b"cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00a" + LISTS + b"sb.",
    "a type of numpy": b"cnumpy\ndtype\n" + LISTS + b"\x85R.",
}


def write(content: bytes, path: Path, *, is_zip: bool) -> Path:
    """A file of torch.save whose content is this pickle."""
    if not is_zip:
        path.write_bytes(LEGACY + b"\x80\x02" + content + pickle.dumps([], protocol=2))
        return path
    whole = io.BytesIO()
    torch.save({}, whole)
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (each for each in parts if each.endswith("data.pkl"))
    parts[name] = b"\x80\x02" + content
    with zipfile.ZipFile(path, "w") as archive:
        for each, part in parts.items():
            archive.writestr(each, part)
    return path


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_without_end_is_refused_at_once(attack: str, is_zip: bool, tmp_path: Path) -> None:
    path = write(ATTACKS[attack], tmp_path / "w.pt", is_zip=is_zip)
    began = time.monotonic()
    for read in (cifarzoo.load_model, cifarzoo.read_metadata):
        with pytest.raises(WeightsError, match=r"w\.pt (is damaged|holds code)"):
            read(path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert time.monotonic() - began < 60


def test_a_second_content_in_the_archive_is_looked_at_too(tmp_path: Path) -> None:
    """Torch may read another one of the same name than Python does."""
    path = write(ATTACKS["a shared key"], tmp_path / "w.pt", is_zip=True)
    with zipfile.ZipFile(path, "a") as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"\x80\x02}.")
    with pytest.raises(WeightsError, match="again and again"):
        read_torch_file(path)


@pytest.mark.parametrize("shape", [b"(" + b"h\x05" * 100_000 + b"t", b"]", b"(\x88t", b"(N\x88t"])
def test_a_shape_that_no_array_has_costs_nothing(shape: bytes, tmp_path: Path) -> None:
    number = b"\x8a\xff" + b"\x7f" * 255 + b"q\x05"  # which all sides of the shape are
    array = b"cnumpy._core.multiarray\n_reconstruct\n)R("
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00i1tR(K\x03X\x01\x00\x00\x00|tb"
    content = b"}(K\x00" + number + b"K\x01" + array + b"K\x01" + shape + dtype + b"\x89"
    content += b"c_codecs\nencode\n(X\x02\x00\x00\x00abX\x06\x00\x00\x00latin1tRtbu."
    began = time.monotonic()
    assert read_torch_file(write(content, tmp_path / "w.pt", is_zip=True))[1] is None
    assert time.monotonic() - began < 20


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=30,
)


@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_python_pickles_is_followed_to_its_end(value: Any, protocol: int) -> None:
    both = pickle.dumps([value, value], protocol) + pickle.dumps(value, protocol) + b"the rest"
    file = io.BytesIO(both)
    check_pickles(file, len(both), count=2)
    assert file.read() == b"the rest"


@given(
    content=st.binary()
    | st.lists(st.sampled_from(b"}]()\x85\x86qh\x00\x01R\x81bsuaet.N0221")).map(bytes)
)
def test_any_bytes_are_followed_or_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        check_pickles(io.BytesIO(content), len(content))


FILLS = {
    "numbers of a number": b"K\x01(K\x02K\x03e",
    "a number of itself": b"K\x01K\x02a",
    "keys of a function": b"c_codecs\nencode\n(K\x01K\x02u",
    "the state of a function": b"c_codecs\nencode\n}b",
    "elements of a short text": b"X\x01\x00\x00\x00a(K\x01\x90",
}


@pytest.mark.parametrize("fill", FILLS)
def test_a_pickle_that_fills_what_holds_nothing_spoils_no_later_one(
    fill: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="is damaged: it fills something that can hold nothing"):
        read_torch_file(write(FILLS[fill] + b".", tmp_path / "w.pt", is_zip=True))
    torch.save({"weight": torch.arange(3)}, tmp_path / "whole.pt")
    assert read_torch_file(tmp_path / "whole.pt")["weight"].tolist() == [0, 1, 2]
