"""The registry: names of models and what is known about each."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from torch import nn

from cifarzoo.display.html import render
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.frozen import LazyDict, freeze, freeze_fields
from cifarzoo.names import (
    check_kind,
    check_name,
    keyword_options,
    near_names,
    one_line,
    unknown_name,
)
from cifarzoo.plain import shorten
from cifarzoo.zoo.about import about, as_text
from cifarzoo.zoo.builds import BUILDERS, load_models

if TYPE_CHECKING:
    from cifarzoo.recipe import Recipe

__all__ = [
    "ModelSpec",
    "WeightsInfo",
    "get_model_info",
    "list_models",
    "register_model",
    "register_source",
]

_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """Says where a set of pretrained weights lies, and what is known about it.

    Args:
        path: The safetensors file. If ``url`` is given, it need not be there yet; a path without a
            folder lies in the user's cache folder.
        sha256: SHA-256 of the file, as hexadecimal text.
        url: Address that the file is fetched from if it is missing.
        pack: Name of the Python package that contains the file, if it is not this one.
        facts: What is known without the file: "seeds", a list with accuracy and time of every
            seed trained like this; "size" in bytes, "data", the image set that it was trained on,
            "val_size", "recipe", "calibration_error", "license", "citation"; "seed_of", the tag of
            the weights that have another seed.
    """

    path: Path
    sha256: str
    url: str | None = None
    pack: str | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", self.sha256.lower())  # some systems print capitals
        freeze_fields(self)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Holds what the zoo knows about a model; nothing in it can be changed.

    Args:
        name: Name that `create_model` takes.
        builder: Function that builds the network.
        description: What the model is, in one sentence.
        source: Citation: authors, year, title, section.
        parameters: Number of parameters with 10 classes.
        macs: Multiply-accumulate operations for one 3x32x32 image with 10 classes.
        image_size: Height and width in pixels that the network needs; None if it takes any size.
        stated_accuracy: Test accuracy in percent that the source states; None if it states none.
        recipes: Training recipes by name; "default" is the one to use.
        weights: Pretrained weights by tag; "default" is the one ``pretrained=True`` loads.
        family: Name of its family of models in the zoo; None if it has none.
    """

    name: str
    builder: Callable[..., nn.Module]
    description: str
    source: str
    parameters: int
    macs: int
    image_size: int | None
    stated_accuracy: float | None
    recipes: Mapping[str, Recipe]
    weights: Mapping[str, WeightsInfo]
    family: str | None = None

    def __post_init__(self) -> None:
        freeze_fields(self)

    @property
    def recipe(self) -> Recipe:
        """The default recipe."""
        return self.get_recipe("default")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the builder besides ``num_classes``, with their defaults."""
        parameters = keyword_options(self.builder)
        return {name: p.default for name, p in parameters.items() if name != "num_classes"}

    def get_recipe(self, name: str) -> Recipe:
        """Return the recipe called ``name``; raises UnknownNameError if there is none."""
        try:
            return self.recipes[name]
        except (KeyError, TypeError):  # a list, say, is no name
            raise unknown_name(f"recipe of {self.name!r}:", name, self.recipes) from None

    def get_weights(self, tag: str) -> WeightsInfo:
        """Return the weights with this tag; raises UnknownNameError if there are none."""
        try:
            return self.weights[tag]
        except (KeyError, TypeError):  # as there
            raise unknown_name(f"weights of {self.name!r}:", tag, self.weights) from None

    def __repr__(self) -> str:
        weights = ", ".join(map(one_line, self.weights)) or "none"
        return (
            f"ModelSpec({one_line(self.name)!r}: {self.parameters:,} parameters, "
            f"{self.macs:,} MACs, weights {weights})"
        )

    def __str__(self) -> str:
        return as_text(self.name, self.description, about(self))

    def _repr_html_(self) -> str:
        return render("spec.html", name=self.name, description=self.description, groups=about(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "name": self.name,
            "family": self.family,
            "description": self.description,
            "source": self.source,
            "parameters": self.parameters,
            "macs": self.macs,
            "image_size": self.image_size,
            "stated_accuracy": self.stated_accuracy,
            "options": {name: _plain(value) for name, value in self.options.items()},
            "recipes": {name: recipe.to_dict() for name, recipe in self.recipes.items()},
            "weights": {tag: info.sha256 for tag, info in self.weights.items()},
        }


def _plain(value: Any) -> Any:
    """A default of an option, as JSON can hold it: classes and functions by their names."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return getattr(value, "__name__", repr(value))
    return value


_SPECS: dict[str, ModelSpec] = {}


class _Source(NamedTuple):
    """Another package's networks."""

    names: Callable[[], list[str]]
    spec: Callable[[str], ModelSpec]


_SOURCES: dict[str, _Source] = {}
_FOREIGN_SPECS: dict[str, ModelSpec] = {}  # of those that were asked for


def _specs(name: str | None = None) -> dict[str, ModelSpec]:
    """The models, ``name`` among them if there is one; all of them for None.

    The zoo's own models register themselves as their modules are imported.
    """
    if name is None or name not in _SPECS:
        load_models(name)
    return _SPECS


def _plain_recipe() -> Recipe:
    from cifarzoo.recipe import Recipe

    return Recipe()


def _sources() -> dict[str, _Source]:
    importlib.import_module("cifarzoo.models.elsewhere")  # which imports this module
    return _SOURCES


def register_source(
    package: str, names: Callable[[], list[str]], spec: Callable[[str], ModelSpec]
) -> None:
    """Let ``create_model("PACKAGE:NAME")`` build the networks of another package.

    Args:
        package: What stands before the colon.
        names: Returns the names of its networks; called when somebody lists them or asks for one.
        spec: Returns what is known of a network, by its name there.

    Raises:
        DuplicateNameError: The package is registered already.
    """
    if package in _SOURCES:
        raise DuplicateNameError(f"the source {package!r} is already registered")
    _SOURCES[package] = _Source(names, spec)


def register_model(
    *,
    description: str,
    source: str,
    parameters: int,
    macs: int,
    image_size: int | None = None,
    stated_accuracy: float | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    weights: Mapping[str, WeightsInfo] | None = None,
    name: str | None = None,
    family: str | None = None,
) -> Callable[[_Builder], _Builder]:
    """Register the decorated builder as a model of the zoo.

    The builder's parameters are all keyword-only: ``num_classes`` and the model's own options.

    Args:
        description: What the model is, in one sentence.
        source: Citation: authors, year, title, section.
        parameters: Number of parameters with 10 classes.
        macs: Multiply-accumulate operations for one 3x32x32 image, as ``summary`` counts them.
        image_size: Height and width in pixels that the network needs; None if it takes any size.
        stated_accuracy: Test accuracy in percent that the source states.
        recipes: Training recipes by name; without any, "default" is ``Recipe()``.
        weights: Pretrained weights by tag.
        name: Name of the model; the function's own name unless given.
        family: Name of its family of models; None if it has none.

    Returns:
        A decorator that returns the builder unchanged.

    Raises:
        DuplicateNameError: The name is taken.
        ArgumentError: The name has a colon, which marks networks of other packages; or the builder
            takes no ``num_classes``, or has positional parameters.
    """

    def register(builder: _Builder) -> _Builder:
        model_name = getattr(builder, "__name__", None) if name is None else name
        if model_name is None:
            raise ArgumentError(f"{shorten(builder)} has no name of its own; pass name=")
        check_name("model", model_name)
        if model_name in _specs(model_name):
            raise DuplicateNameError(f"model {model_name!r} is already registered; choose another")
        if ":" in model_name:
            raise ArgumentError(
                f"the name {model_name!r} has a colon, as only networks of other packages have; "
                "choose another"
            )
        _check_builder(model_name, builder)
        given = freeze({} if recipes is None else recipes)
        BUILDERS[model_name] = builder
        _SPECS[model_name] = ModelSpec(
            name=model_name,
            builder=builder,
            description=description,
            source=source,
            parameters=parameters,
            macs=macs,
            image_size=image_size,
            stated_accuracy=stated_accuracy,
            recipes=LazyDict(lambda: {"default": _plain_recipe(), **given}),
            weights={} if weights is None else weights,
            family=family,
        )
        return builder

    return register


def list_models(pattern: str = "*", *, pretrained: bool | None = None) -> list[str]:
    """List the names of the registered models, sorted.

    Args:
        pattern: Shell-style pattern, such as ``"resnet*"``. Only ``"timm:*"`` and
            ``"torchvision:*"`` list the networks of these packages.
        pretrained: True for models with weights, False for those without, None for all.

    Example:
        >>> list_models("resnet18*")
        ['resnet18', 'resnet18_cifar']
    """
    check_kind("pattern", pattern, str, "list_models('resnet*')")
    package, colon, _ = pattern.partition(":")
    if colon:
        source = _sources().get(package)
        theirs = [] if source is None or pretrained else source.names()
        return sorted(fnmatch.filter((f"{package}:{name}" for name in theirs), pattern))
    specs = _specs()
    return [
        name
        for name in sorted(fnmatch.filter(specs, pattern))
        if pretrained is None or bool(specs[name].weights) == pretrained
    ]


def get_model_info(name: str) -> ModelSpec:
    """Return what the zoo knows about the model called ``name``.

    Args:
        name: A name of ``list_models()``, or ``"timm:NAME"`` or ``"torchvision:NAME"`` for a
            network of these packages, which is then built with a stem for 32 pixels and counted.

    Raises:
        UnknownNameError: No model has this name; the message suggests names like it.
        ArgumentError: The other package's network cannot be adapted to 32 pixels.

    Example:
        >>> get_model_info("simple").parameters
        80090
    """
    package, colon, theirs = name.partition(":") if isinstance(name, str) else ("", "", "")
    if colon and package in _sources():
        return _foreign_spec(package, theirs)
    try:
        return _specs(name)[name]
    except (KeyError, TypeError):
        raise _unknown_model(name) from None


def _unknown_model(name: Any) -> UnknownNameError:
    """The error for a name that no model of the zoo has; other packages may have it."""
    sources, specs = _sources(), _specs()
    theirs = [f"{package}:{name}" for package, source in sources.items() if name in source.names()]
    if theirs:
        near = "".join(f"did you mean {n!r}? " for n in near_names(name, specs, least=0.8)[:1])
        names = " and ".join(map(repr, theirs))
        return UnknownNameError(
            f"unknown model {name!r}; {near}other packages have a network of this name: {names}."
        )
    model, dot, tag = name.partition(".") if isinstance(name, str) else ("", "", "")
    if dot and model in specs and tag in specs[model].weights:
        return UnknownNameError(
            f"unknown model {name!r}; the weights {tag!r} of {model!r} are loaded by "
            f"create_model({model!r}, pretrained={tag!r})"
        )
    return unknown_name("model", name, specs, hint="See list_models().")


def _foreign_spec(package: str, theirs: str) -> ModelSpec:
    name, source = f"{package}:{theirs}", _SOURCES[package]
    if name not in _FOREIGN_SPECS:
        names = source.names()
        if theirs not in names:
            hint = f'See list_models("{package}:*").'
            raise unknown_name(f"model of {package}", theirs, names, hint=hint)
        spec = source.spec(theirs)
        _FOREIGN_SPECS[name] = spec
        BUILDERS[name] = spec.builder
    return _FOREIGN_SPECS[name]


def _check_builder(name: str, builder: Callable[..., nn.Module]) -> None:
    parameters = inspect.signature(builder).parameters
    if "num_classes" not in keyword_options(builder):
        raise ArgumentError(f"builder of model {name!r} must take num_classes as a keyword")
    for parameter in parameters.values():
        has_value = parameter.default is not parameter.empty or parameter.name == "num_classes"
        if parameter.kind is not parameter.KEYWORD_ONLY or not has_value:
            raise ArgumentError(
                f"builder of model {name!r} has the parameter {parameter.name!r}; "
                "all must be keyword-only, with a default"
            )
