"""What is known of the library's own models, read from ``index/*.toml`` and ``recipes/*.toml``.

A file of ``index`` holds a family: the ``modules`` of `cifarzoo.models` that build it, and a table
for each model with its facts, its ``sizes``, which are what the family's builder makes it from, and
the names of its recipes. A recipe may begin with another one, its ``base``, and state what differs.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from cifarzoo.frozen import LazyDict
from cifarzoo.zoo.packs import indexed_weights
from cifarzoo.zoo.registry import register_model

if TYPE_CHECKING:
    from cifarzoo.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["known", "modules_of", "read_recipe", "register_family"]

_FOLDER = Path(__file__).parent
_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])


def known(model: str) -> dict[str, Any]:
    """The facts about ``model``, its recipes and its weights, as `register_model` takes them."""
    family = _families()[model]
    facts = {**_read_family(family)[model], "family": family}
    files = facts.pop("recipes", {})
    recipes = LazyDict(lambda: {name: read_recipe(file) for name, file in files.items()})
    return {**facts, "recipes": recipes, "weights": indexed_weights(model)}


def modules_of(model: str | None) -> list[str]:
    """Names of the modules that register ``model``; all of them for None, none for another name."""
    families = _families()
    wanted = families.values() if model is None else filter(None, [families.get(model)])
    named = (module for family in wanted for module in _read_family(family)["modules"])
    return list(dict.fromkeys(named))


def register_family(family: str) -> Callable[[_Builder], _Builder]:
    """Register the decorated builder for every model of the file ``index/FAMILY.toml``.

    Args:
        family: Name of the file. The ``sizes`` of a model there are arguments of the builder; what
            else the builder takes are the model's options.

    Returns:
        A decorator that returns the builder unchanged.
    """

    def register(builder: _Builder) -> _Builder:
        for name, of in _families().items():
            if of == family:
                facts = known(name)
                build = _sized(builder, name, facts.pop("sizes"))
                register_model(name=name, **facts)(build)
        return builder

    return register


def _sized(builder: _Builder, name: str, sizes: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """``builder`` with its sizes given, and without them in its signature."""

    @functools.wraps(builder)
    def build(**options: Any) -> nn.Module:
        return builder(**sizes, **options)

    signature = inspect.signature(builder)
    left = [each for each in signature.parameters.values() if each.name not in sizes]
    build.__name__ = name
    build.__dict__["__signature__"] = signature.replace(parameters=left)
    return build


@functools.cache
def read_recipe(name: str) -> Recipe:
    """The recipe of the file ``recipes/NAME.toml``."""
    from cifarzoo.recipe import Recipe

    data = _read(_FOLDER / "recipes" / f"{name}.toml")
    base = data.pop("base", None)
    return Recipe.from_dict(data) if base is None else read_recipe(base).replace(**data)


@functools.cache
def _families() -> dict[str, str]:
    """The family of each model. The tables' names are looked for: to parse all takes a while."""
    return {
        name: file.stem
        for file in sorted((_FOLDER / "index").glob("*.toml"))
        for name in re.findall(r"^\[(\w+)\]$", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


@functools.cache
def _read_family(family: str) -> dict[str, Any]:
    return _read(_FOLDER / "index" / f"{family}.toml")


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return data
