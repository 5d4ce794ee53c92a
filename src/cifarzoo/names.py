"""Errors for names and options that do not exist: what was given, what is near, where to look."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cifarzoo.errors import ArgumentError, UnknownNameError

__all__ = ["check_factory", "check_options", "keyword_options", "unknown_name"]


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
