"""What users write by hand: names and options that do not exist, numbers of any library."""

from __future__ import annotations

import difflib
import inspect
import numbers
import operator
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError

__all__ = [
    "check_factory",
    "check_options",
    "keyword_options",
    "one_line",
    "printable",
    "real_number",
    "registering",
    "unknown_name",
    "whole_number",
]

_Item = TypeVar("_Item")
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UnknownNameError:
    """Build the error for an unknown ``name``; the caller raises it.

    Example:
        >>> str(unknown_name("model", "deepbn", ["deep_bn", "simple"], hint="See list_models()."))
        "unknown model 'deepbn'; did you mean 'deep_bn'? See list_models()."
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    suggestion = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
    return UnknownNameError(f"unknown {kind} {name!r}; {suggestion} {hint}".rstrip())


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of ``function``: the options a user may set by name."""
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(kind: str, options: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise ArgumentError when ``options`` holds a name outside ``allowed``."""
    allowed = sorted(allowed)
    for name in options:
        if name not in allowed:
            names = ", ".join(allowed) if allowed else "none"
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ArgumentError(f"unknown option {name!r} of {kind}; {hint}allowed: {names}")


def registering(
    table: dict[str, Any], kind: str, name: str, *, is_free: bool = True
) -> Callable[[_Item], _Item]:
    """A decorator that puts what it decorates into ``table`` under ``name``, unchanged.

    Args:
        table: Of all that is registered.
        kind: What such things are called, for the message.
        name: Must be new.
        is_free: Whether nothing outside ``table`` has the name.

    Raises:
        DuplicateNameError: The name is taken; when the decorator is applied.
    """

    def register(item: _Item) -> _Item:
        if name in table or not is_free:
            raise DuplicateNameError(f"{kind} {name!r} is already registered; choose another")
        table[name] = item
        return item

    return register


def check_factory(kind: str, factory: Any, parameters: str, arguments: str) -> None:
    """Raise ArgumentError when ``factory`` cannot be called as a factory, or is a class.

    A class can be called, but means something else by its arguments.

    Args:
        kind: What it makes, with its article.
        factory: What was given instead of a name.
        parameters: What a factory is given.
        arguments: What a class is given, in the lambda that is proposed.
    """
    if isinstance(factory, type) or not callable(factory):
        made = factory if isinstance(factory, type) else type(factory)
        raise ArgumentError(
            f"{kind} is a name or a factory, not {factory!r}; write "
            f"lambda {parameters}: {made.__name__}({arguments})"
        )


def printable(text: str) -> str:
    r"""``text`` with escapes for what a terminal would act on: names may come from anybody's file.

    Example:
        >>> print(printable("cat\x1b[2J"))
        cat\x1b[2J
    """
    return "".join(c if c in "\n\t" or not _acts(c) else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """``text`` as `printable` writes it, for a table: every white space is one blank."""
    return printable(" ".join(text.split()))


def _acts(character: str) -> bool:
    """Whether it is a control, half of a surrogate pair, or turns the direction of writing."""
    turns = unicodedata.bidirectional(character) in _TURNING
    return turns or unicodedata.category(character) in ("Cc", "Cs")


def whole_number(value: Any) -> int | None:
    """``value`` as Python's int, or None when it is no whole number.

    Integers of numpy and torch are whole numbers; booleans and 2.0 are none.

    Example:
        >>> import numpy
        >>> whole_number(numpy.int64(10)), whole_number(True), whole_number(2.0)
        (10, None, None)
    """
    value = _unpacked(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real_number(value: Any) -> int | float | None:
    """``value`` as Python's int or float, or None when it is no number; booleans are none."""
    value = _unpacked(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    except OverflowError:  # a fraction of numbers beyond those of a float
        return None


def _unpacked(value: Any) -> Any:
    """What a scalar of numpy, or an array or tensor without dimensions, holds."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
