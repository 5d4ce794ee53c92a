"""Changes that bits, disks and strangers make to files: a seed decides which."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["ODD", "change_bytes", "change_header", "change_tree", "rewrite_pickle"]


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def _knot() -> dict[str, Any]:
    found: dict[str, Any] = {"weight": torch.zeros(2)}
    found["again"] = [found]
    return found


ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: "text",
    lambda: "\ud800",
    lambda: "x" * 10_000,
    lambda: 0,
    lambda: -1,
    lambda: 1.5,
    lambda: 10**400,
    lambda: 2**63,
    lambda: math.nan,
    lambda: -math.inf,
    list,
    dict,
    lambda: [1, "2", None],
    lambda: {"a": {"b": 1}},
    lambda: _nested(300),
)
"""What JSON and pickles can hold in the place of anything."""

_ODD_TENSORS: tuple[Callable[[], Any], ...] = (
    lambda: torch.zeros(1),
    lambda: torch.zeros(0),
    lambda: torch.zeros(()),
    lambda: torch.zeros(3, 5),
    lambda: torch.full((2, 2), math.nan),
    lambda: torch.zeros(4, dtype=torch.int64),
    lambda: torch.zeros(4, dtype=torch.bool),
    lambda: torch.zeros(4, dtype=torch.complex64),
    lambda: torch.zeros(4, dtype=torch.uint8),
    lambda: torch.eye(2).to_sparse(),
    lambda: torch.zeros(3, device="meta"),
    lambda: torch.zeros(1).expand(100_000, 100_000),
    _knot,
)


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flipped bits, lost and repeated pieces, zeros and noise, somewhere; the start more often."""
    found = bytearray(content)
    end = min(len(found), 4096) if draw.random() < 0.5 else len(found)
    place = draw.randrange(end)
    size = min(draw.choice((1, 4, 64, 4096)), len(found) - place)
    kind = draw.randrange(6)
    if kind <= 1:
        for _ in range(1 if kind == 0 else 8):
            found[draw.randrange(end)] ^= 1 << draw.randrange(8)
    elif kind == 2:
        del found[place:]
    elif kind == 3:
        del found[place : place + size]
    elif kind == 4:
        found[place : place + size] = bytes(size)
    else:
        found[place:place] = draw.randbytes(size)
    return bytes(found)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(part, (*path, key))


def change_tree(tree: Any, draw: random.Random, *, tensors: bool) -> tuple[Any, ...]:
    """Replace, remove, exchange or add something somewhere in nested data; returns where."""
    path = draw.choice([*_places(tree)])
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    odd = draw.choice((*ODD, *_ODD_TENSORS) if tensors else ODD)
    kind = draw.randrange(8)
    if kind == 0:
        del holder[path[-1]]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(["more", "0", 0, "items", "step", "\udfff"])] = odd()
    elif kind == 2:
        other = draw.choice([*holder] if isinstance(holder, dict) else [*range(len(holder))])
        holder[path[-1]] = holder[other]
    else:
        holder[path[-1]] = odd()
    return path


def change_header(content: bytes, draw: random.Random, sign: Callable[..., str]) -> bytes:
    """A safetensors file with other facts, and checksums that agree with them half of the time."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    texts = header["__metadata__"]
    facts = {key: json.loads(text) for key, text in texts.items()}
    if draw.random() < 0.8:
        change_tree(facts, draw, tensors=False)
    else:
        change_tree(header, draw, tensors=False)
    if header.get("__metadata__") is texts:
        texts = {str(key): json.dumps(value) for key, value in facts.items()}
        if draw.random() < 0.5:
            texts.pop("facts_sha256", None)
            texts["facts_sha256"] = json.dumps(sign(texts))
        header["__metadata__"] = texts
    changed = json.dumps(header).encode(errors="surrogatepass")
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def rewrite_pickle(content: bytes, draw: random.Random) -> bytes:
    """An archive of torch.save with other bytes in its pickle, and the checksum of these."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (each for each in parts if each.endswith("data.pkl"))
    parts[name] = change_bytes(parts[name], draw)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for each, part in parts.items():
            archive.writestr(each, part)
    return written.getvalue()
