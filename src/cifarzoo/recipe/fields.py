"""Fields of frozen values: numbers of any library, and plain data, kept as Python's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cifarzoo.errors import ArgumentError
from cifarzoo.frozen import FrozenDict, FrozenList
from cifarzoo.names import real_number, whole_number
from cifarzoo.plain import bounds_problem, shorten

__all__ = ["freeze_plain", "take_number"]

_INTEGERS = 2**63  # those of TOML


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
        raise ArgumentError(
            f"{name} must be {kind} in [{low:g}, {high:g}{bracket}; got {shorten(given)}"
        )
    object.__setattr__(owner, name, value)


def freeze_plain(value: Any, name: str) -> Any:
    """Freeze nested data, tuples and arrays as lists; refuse what JSON and TOML cannot hold."""
    if problem := bounds_problem(value):
        raise ArgumentError(f"{name} cannot be kept: {problem}")
    return _freeze(value, name)


def _freeze(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict({str(key): _freeze(item, name) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return FrozenList(_freeze(item, name) for item in value)
    if isinstance(value, bool | str):
        return value
    number = real_number(value)
    if number is not None:
        is_whole = isinstance(number, int)
        # NaN would not be equal to itself
        if number != number or (is_whole and not -_INTEGERS <= number < _INTEGERS):
            raise ArgumentError(f"{name} holds numbers of 64 bits; got {shorten(number)}")
        return number
    if hasattr(value, "tolist"):  # an array or a tensor
        return _freeze(value.tolist(), name)
    raise ArgumentError(f"{name} holds plain numbers, strings and lists; got {shorten(value)}")
