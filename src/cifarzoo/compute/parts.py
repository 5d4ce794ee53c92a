"""What a class, a function or an object leads to, as far as Python tells."""

from __future__ import annotations

import dis
import functools
import itertools
import types
from collections.abc import Iterator
from typing import Any

from torch import nn

__all__ = ["KNOWN_PACKAGES", "function_of", "globals_of", "parts_of"]

# classes and functions of these packages refer to no module but their own
KNOWN_PACKAGES = frozenset({"torch", "torchvision", "timm", "cifarzoo"})


def function_of(attribute: Any) -> Any:
    """The function that an attribute of a class stands for; else the attribute itself."""
    if isinstance(attribute, property):
        return attribute.fget
    return attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute


def globals_of(function: types.FunctionType) -> Iterator[Any]:
    """What a function finds by global names: ``NET``, or ``networks.NET`` where that is a module.

    Nothing for functions of known packages.
    """
    scope = function.__globals__
    if str(scope.get("__name__")).partition(".")[0] in KNOWN_PACKAGES:
        return
    for name, attribute in _global_names(function.__code__):
        found = scope.get(name)
        if isinstance(found, types.ModuleType):
            found = vars(found).get(attribute)
            if not isinstance(found, nn.Module):
                continue
        yield found


@functools.lru_cache(maxsize=10_000)
def _global_names(code: types.CodeType) -> frozenset[tuple[str, str]]:
    """Global names that code reads, also in functions within it, and what comes after each."""
    steps = [(step.opname, str(step.argval)) for step in dis.get_instructions(code)]
    found = {
        (name, follower)
        for (kind, name), (_, follower) in itertools.pairwise([*steps, ("", "")])
        if kind in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found |= _global_names(inner)
    return frozenset(found)


def parts_of(value: Any) -> list[Any]:
    """What an object of a class we do not know holds."""
    parts = list(getattr(value, "__dict__", {}).values())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        parts += [getattr(value, name) for name in names if hasattr(value, name)]
    return parts
