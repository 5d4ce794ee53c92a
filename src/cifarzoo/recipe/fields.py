"""Fields of frozen values: numbers of any library, checked and kept as Python's own."""

from __future__ import annotations

from typing import Any

from cifarzoo.errors import ArgumentError
from cifarzoo.names import real_number, whole_number

__all__ = ["take_number"]


def take_number(
    owner: Any,
    name: str,
    low: float,
    high: float,
    *,
    whole: bool = False,
    below: bool = False,
) -> None:
    """Let a field hold Python's own number; raise ArgumentError when it is none in its range."""
    given = getattr(owner, name)
    value = whole_number(given) if whole else real_number(given)
    # written so that NaN fails too
    if value is None or not low <= value <= high or (below and value == high):
        kind = "a whole number" if whole else "a number"
        bracket = ")" if below else "]"
        raise ArgumentError(f"{name} must be {kind} in [{low:g}, {high:g}{bracket}; got {given!r}")
    object.__setattr__(owner, name, value)
