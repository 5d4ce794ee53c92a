"""Files of torch.save, read without running code; and what a file is that is none."""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cifarzoo.errors import WeightsError
from cifarzoo.plain import bounds_problem
from cifarzoo.zoo.numpy_pickles import ArrayPickle, stand_ins
from cifarzoo.zoo.pickle_graph import check_pickles

__all__ = ["kind_of_file", "odd_kind", "read_torch_file"]

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # of torch.save before version 1.6
_AGAIN = "copy or fetch it again"
_UNPACK = "unpack it first"
# what a file begins with, what it is, and what to do
_BEGINNINGS = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"(\xb5/\xfd", "a Zstandard archive", _UNPACK),
    (
        b"\x93NUMPY",
        "a numpy array",
        "a network has many: pass load_weights a dict of them, by its names",
    ),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", "export its tensors under torch's names"),
    (b"\x89PNG", "a picture", "name the weights file"),
    (b"\xff\xd8\xff", "a picture", "name the weights file"),
)
_TEXTS = (
    (
        "version https://git-lfs",
        "a Git LFS pointer, not the file it stands for",
        "run git lfs pull, or download the file itself",
    ),
    ("<!doctype html", "an HTML page", "the server sent a page; download the file itself"),
    ("<html", "an HTML page", "the server sent a page; download the file itself"),
    ("<?xml", "an XML page", "the server sent its error as a page; download the file itself"),
    ("{", "a JSON text", "name the weights file"),
    ("[", "a JSON text", "name the weights file"),
)
_SPREAD = 1 << 20  # bytes
_loading = threading.Lock()


def kind_of_file(path: Path) -> Literal["safetensors", "torch"]:
    """Which of the two kinds of weights file this is.

    Raises:
        WeightsError: It is something else; the message says what, as far as that is known.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise WeightsError(f"{path} is empty; {_AGAIN}")
    _refuse_text(path, start, size)
    # safetensors begin with a length of eight bytes, which may look like anything, then a brace
    if start[8:9] == b"{":
        if int.from_bytes(start[:8], "little") <= size - 8:
            return "safetensors"
        raise WeightsError(f"{path} is a truncated safetensors file; {_AGAIN}")
    for beginning, kind, advice in _BEGINNINGS:
        if start.startswith(beginning):
            raise WeightsError(f"{path} is {kind}, not a weights file; {advice}")
    if start[257:262] == b"ustar":
        raise WeightsError(f"{path} is a tar archive, not a weights file; {_UNPACK}")
    if start.startswith(b"PK"):
        _check_archive(path)
        return "torch"
    if start.startswith(b"\x80"):
        return "torch"
    raise WeightsError(
        f"{path} is truncated, or not a safetensors file and none of torch.save either: it begins "
        f"with {start[:8]!r}; {_AGAIN}"
    )


def odd_kind(tensor: Tensor) -> str:
    """What a tensor is that is no plain block of numbers; empty for one that is.

    Example:
        >>> odd_kind(torch.eye(2).to_sparse()), odd_kind(torch.eye(2))
        ('sparse', '')
    """
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested:
        return "nested"
    if tensor.device.type == "meta":
        return "without its numbers"
    return "" if tensor.layout == torch.strided else "sparse"


def read_torch_file(path: Path) -> Any:
    """What torch.save wrote; nothing but tensors and plain data is read, and no code is run.

    Returns:
        Plain dicts, lists and tuples, each tensor with its numbers at hand.

    Raises:
        WeightsError: It holds more than that, or is damaged.
    """
    try:
        _check_pickles(path)
    except ValueError as error:
        raise _refusal(path, error) from error
    try:
        with _loading, warnings.catch_warnings(), _harmless_allowed():
            warnings.simplefilter("ignore")  # what torch finds odd it then refuses, or it is fine
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly anything
        raise _refusal(path, error) from error
    sizes: dict[int, int] = {}
    try:
        if problem := bounds_problem(tree):
            raise ValueError(problem)
        tree = _plain(tree, "", sizes)
    except ValueError as error:
        raise WeightsError(f"{path} cannot be used: {error}") from None
    if sum(sizes.values()) > path.stat().st_size:
        raise WeightsError(f"{path} cannot be used: its tensors have more numbers than it holds")
    return tree


def _check_pickles(path: Path) -> None:
    """Refuse what would keep Python busy for ever, or end it, before torch begins to read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        if not start.startswith(b"PK"):
            file.seek(0)
            # three facts, the content, and the names of its memory
            check_pickles(file, size, count=5 if start == _MAGIC else 1)
            return
        with zipfile.ZipFile(file) as archive:
            for part in archive.infolist():
                if part.filename.endswith("data.pkl"):
                    check_pickles(io.BytesIO(archive.read(part)), size)


def _plain(value: Any, name: str, sizes: dict[int, int]) -> Any:
    """``value`` without what a pickle can hang on dicts and tensors, such as a method "items".

    Args:
        value: What torch has read.
        name: Where it lies.
        sizes: Receives the bytes of each piece of memory.

    Raises:
        ValueError: A tensor has no number for each of its places.
    """
    if isinstance(value, Tensor):
        whole = _whole_tensor(value, name.removeprefix("."))
        storage = whole.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return whole
    if isinstance(value, ArrayPickle):
        return value.value
    if type(value) in (dict, OrderedDict):
        pairs = dict.items(value)
        return {key: _plain(item, f"{name}.{key}", sizes) for key, item in pairs}
    if type(value) in (list, tuple):
        items = (_plain(item, f"{name}.{number}", sizes) for number, item in enumerate(value))
        return type(value)(items)
    return value


def _whole_tensor(tensor: Tensor, name: str) -> Tensor:
    """``tensor``, if it holds a number for each of its places."""
    if odd := odd_kind(tensor):
        raise ValueError(f"its tensor {name!r} is {odd}; save a dense one")
    spread = Tensor.numel(tensor) * Tensor.element_size(tensor)
    if spread > max(_SPREAD, Tensor.untyped_storage(tensor).nbytes()):
        raise ValueError(
            f"its tensor {name!r} of shape {tuple(tensor.shape)} has fewer numbers than places; "
            "save its clone()"
        )
    return Tensor.detach(tensor)


def _refuse_text(path: Path, start: bytes, size: int) -> None:
    try:
        # the last character may be cut off in the middle
        text = (start if size <= len(start) else start[:-3]).decode(errors="strict")
    except UnicodeDecodeError:
        return
    if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text):
        return
    text = text.lstrip("\ufeff \t\r\n")
    for beginning, kind, advice in _TEXTS:
        if text.lower().startswith(beginning):
            raise WeightsError(f"{path} is {kind}, not a weights file; {advice}")
    raise WeightsError(
        f"{path} is a text, not a weights file: it begins with {text[:40]!r}; name the weights file"
    )


def _check_archive(path: Path) -> None:
    """Refuse zip archives that torch.save did not write, or whose contents were altered."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
            is_torch = "data.pkl" in names
            # torch.save compresses nothing: more than the file's size would be a trap
            swollen = sum(part.file_size for part in archive.infolist()) > path.stat().st_size
            # torch itself does not check
            damaged = archive.testzip() if is_torch and not swollen else None
    except Exception as error:  # every kind of compression has its own
        raise WeightsError(f"{path} is truncated or damaged: {error}; {_AGAIN}") from error
    if "constants.pkl" in names:
        raise WeightsError(
            f"{path} is a TorchScript archive: a program with its weights. If you trust it, pass "
            f"the tensors alone: load_weights(model, torch.jit.load(path).state_dict())"
        )
    if any(name.endswith(".npy") for name in names):
        raise WeightsError(
            f"{path} is an archive of numpy arrays, not a weights file; "
            "pass them: load_weights(model, dict(numpy.load(path)))"
        )
    if not is_torch:
        some = ", ".join([*names[:3], "..."][: len(names)])
        raise WeightsError(
            f"{path} is a zip archive that torch.save did not write (it holds {some}); {_UNPACK}"
        )
    if swollen:
        raise WeightsError(
            f"{path} is a compressed archive, as torch.save writes none; unpack it, and pack it "
            "again without compression"
        )
    if damaged is not None:
        raise WeightsError(
            f"{path} is damaged: the checksum of {damaged} differs; {_AGAIN}. If it was written "
            "without checksums: load_weights(model, torch.load(path, weights_only=True))"
        )


def _harmless_allowed() -> Any:
    """Let torch read what trainers keep beside the tensors: numpy's numbers, parsed arguments."""
    known = torch.serialization.get_safe_globals()
    # what the user allowed is to stay allowed afterwards
    return torch.serialization.safe_globals([each for each in stand_ins() if each not in known])


def _refusal(path: Path, error: Exception) -> WeightsError:
    """Why torch did not read a file, with the names of the code in it."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    names = [named[1]] if named else []
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    is_other = start.startswith(b"\x80") and start != _MAGIC
    if is_other:
        names = _globals_of_pickle(path)
    elif named and start == _MAGIC:
        names += [n for n in _globals_of_pickle(path) if n.startswith("torch.nn.modules.")]
    elif named:
        with contextlib.suppress(Exception):  # an older torch, or more that is damaged
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            names += sorted({*refused} - {*names})
    if any(name.startswith("torch.nn.modules.") for name in names):
        return WeightsError(
            f"{path} is a whole pickled module of the class {names[0]}, with code; nothing of it "
            "was run. If you trust it, load it where that class is known and save the tensors "
            "alone: torch.save(torch.load(path, weights_only=False).state_dict(), new_path)"
        )
    if names:
        return WeightsError(
            f"{path} holds code beside tensors: {', '.join(names)}; nothing of it was run. Save "
            "the bare state_dict() of that model again and load that, or, if you trust these "
            "names, allow them by torch.serialization.add_safe_globals"
        )
    if is_other:
        return WeightsError(
            f"{path} is a pickle that torch.save did not write; load it where it was made, and "
            "save its state_dict() by torch.save"
        )
    reason = str(error).partition("\n")[0] or type(error).__name__
    return WeightsError(f"{path} is damaged: {reason}; {_AGAIN}")


def _globals_of_pickle(path: Path) -> list[str]:
    """What pickles would import, in the order of their first mention; nothing is run."""
    found: dict[str, None] = {}
    texts: list[str] = []
    with path.open("rb") as file, contextlib.suppress(Exception):  # damaged in any way
        for _ in range(4):  # torch.save wrote three facts before the content
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    found[str(argument).replace(" ", ".")] = None
                elif operation.name == "STACK_GLOBAL":
                    found[".".join(texts[-2:])] = None
                elif isinstance(argument, str):
                    texts.append(argument)
    return list(found)
