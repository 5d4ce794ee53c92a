"""The two parts that image sets are published in."""

from __future__ import annotations

from typing import Any, Literal

from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten

__all__ = ["Split", "check_split"]

Split = Literal["train", "test"]


def check_split(split: Any) -> None:
    """Raise ArgumentError unless ``split`` is one of them."""
    if split not in ["train", "test"]:  # a list: what cannot be looked up may be asked for
        raise ArgumentError(f"split must be 'train' or 'test'; got {shorten(split)}")
