"""Plain data from elsewhere: parsed, kept within bounds, compared with what it should be.

What a stranger wrote may be nested a hundred thousand times, hold itself, name characters that no
file can hold, or have a text where a number belongs. All of it is found out here, once, on reading.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

__all__ = ["Real", "bounds_problem", "flatten", "parse_json", "problem_of", "shorten"]

_DEPTH = 64  # levels; what reads nested data by recursion needs several calls for each
_PARTS = 500_000
_VALUES = 50_000_000
_NUMBERS = (int, float, bool, type(None))
_BREAKS = re.compile(r"\s*\n\s*")  # of networks and arrays


class _OneNumber:
    """Lets a schema take Python's numbers alone; pydantic takes tensors and arrays as well."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(self._check, handler(source))

    @staticmethod
    def _check(value: Any) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError("should be a number")
        return value


Real = Annotated[float, _OneNumber()]
"""A whole number or a fraction, in a schema."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or has a key twice.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
            ...
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under names with dots.

    Example:
        >>> flatten({"seed": 0, "augmentation": {"flip": "random"}})
        {'seed': 0, 'augmentation.flip': 'random'}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def bounds_problem(value: Any) -> str:
    """Why nested dicts, lists and tuples cannot be worked with; empty when they can.

    Example:
        >>> knot = []
        >>> knot.append(knot)
        >>> bounds_problem(knot)
        'it is nested more than 64 times, or holds itself'
    """
    too_many = f"it holds more than {_PARTS:,} parts, or {_VALUES:,} numbers"
    waiting, parts, values = [(value, 0)], 0, 0
    while waiting:
        value, depth = waiting.pop()
        parts += 1
        if parts > _PARTS:
            return too_many
        if depth > _DEPTH:
            return f"it is nested more than {_DEPTH} times, or holds itself"
        if type(value) is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"it holds the text {shorten(value)}, which is no Unicode"
            continue
        if not isinstance(value, dict | list | tuple | Mapping):
            continue
        values += len(value)
        # a few lists that hold each other again and again are enough for that
        if values > _VALUES:
            return too_many
        held: Iterable[Any] = value
        if isinstance(value, Mapping):  # a pickle may hang an "items" of its own on a dict
            pairs = dict.items(value) if isinstance(value, dict) else value.items()
            held = itertools.chain.from_iterable(pairs)
        waiting += ((part, depth + 1) for part in held if type(part) not in _NUMBERS)
    return ""


def problem_of(value: Any, schema: Any) -> str:
    """Where ``value`` is not as ``schema`` says, in words; empty when it is.

    Args:
        value: Plain data; a number is no text here, and a truth value no number.
        schema: A type: a TypedDict, a list of something, a number within bounds.

    Example:
        >>> problem_of({"epochs": ["2", 3]}, dict[str, list[int]])
        "epochs.0 should be a valid integer; got '2'"
    """
    from pydantic import ValidationError

    if problem := bounds_problem(value):
        return problem
    try:
        _checker(schema).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        if first["type"] == "missing":
            return f"{place} is missing"
        said = str(first["msg"]).removeprefix("Input ").removeprefix("Value error, ")
        return f"{place} {said[:1].lower()}{said[1:]}; got {shorten(first['input'])}"
    return ""


def shorten(value: Any) -> str:
    """``repr(value)``, of no more than about a line."""
    try:
        return _BREAKS.sub(" ", _shortened.repr(value))
    except ValueError:  # a whole number of more digits than Python writes
        return f"a {type(value).__name__} of many digits"


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; without this, the last value of a key would hide the others."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {shorten(key)} twice")
        found[key] = value
    return found


@functools.cache
def _checker(schema: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxlevel = 2
