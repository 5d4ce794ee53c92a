"""Packages whose names are imported when somebody first asks for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: Its full name.
        homes: For each of its modules, the public names that are defined there.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        """A public name, or a module of the package, at its first use."""
        if name in modules:
            value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def list_names() -> list[str]:
        import pkgutil

        here = vars(sys.modules[package])
        inside = {each.name for each in pkgutil.iter_modules(here["__path__"])}
        return sorted({*here, *modules, *inside})

    return find, list_names
