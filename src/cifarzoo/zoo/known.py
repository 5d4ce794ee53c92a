"""What is known of the library's own models, read from ``index/*.toml`` and ``recipes/*.toml``.

A file of ``index`` holds a family, a table for each model: its facts, and the names of its recipes.
A recipe may begin with another one, its ``base``, and state what differs.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from cifarzoo.recipe import Recipe
from cifarzoo.zoo.locate import shipped_weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["known", "read_recipe"]

_FOLDER = Path(__file__).parent


def known(model: str) -> dict[str, Any]:
    """The facts about ``model``, its recipes and its weights, as `register_model` takes them."""
    facts = dict(_index()[model])
    recipes = {name: read_recipe(file) for name, file in facts.pop("recipes", {}).items()}
    return {**facts, "recipes": recipes, "weights": shipped_weights(model)}


@functools.cache
def read_recipe(name: str) -> Recipe:
    """The recipe of the file ``recipes/NAME.toml``."""
    data = _read(_FOLDER / "recipes" / f"{name}.toml")
    base = data.pop("base", None)
    return Recipe.from_dict(data) if base is None else read_recipe(base).replace(**data)


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((_FOLDER / "index").glob("*.toml")):
        found |= _read(file)
    return found


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return data
