"""What a builder would build: names, shapes, the last layer, found without any memory for it."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import itertools
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import ArgumentError
from cifarzoo.frozen import FrozenDict, freeze
from cifarzoo.names import keyword_options
from cifarzoo.zoo.card import ModelCard, get_card, names_of_outputs, unwrap

__all__ = [
    "BUILDERS",
    "Builder",
    "Plan",
    "changed_part",
    "check_outputs",
    "describe",
    "find_builder",
    "load_models",
    "other_sizes",
    "own_options",
    "plan",
    "sketch",
    "variants",
]

Builder = Callable[..., nn.Module]

_OPERATIONS = 200_000
_KIND = ""  # in place of an attribute's name
_PLAIN = (bool, int, float, str, type(None))
# what changes no answer in evaluation mode
_DROPS = frozenset({"DropPath", "DropBlock2d", "StochasticDepth"})
_WRITING = frozenset({torch.arange, torch.linspace, torch.logspace, torch.tensor})
_SAME_ANSWERS = frozenset(
    {"training", "inplace", "momentum", "fused_attn", "grad_checkpointing", "memory_efficient"}
)

BUILDERS: dict[str, Builder] = {}
"""The builders of the models that were registered so far; the registry fills it."""


def load_models(name: str | None = None) -> None:
    """Let the zoo's model called ``name`` register itself; all of them for None."""
    importlib.import_module("cifarzoo.models").load(name)  # which imports this module


def find_builder(name: str) -> Builder | None:
    """The builder of a registered model; None where no model has this name."""
    if name not in BUILDERS:
        load_models(name)
    return BUILDERS.get(name)


class Plan(NamedTuple):
    """A network that was planned, not built.

    Args:
        model: The network on the device "meta", with 10 classes.
        head: Names of the tensors that have an entry for each class.
        structure: What its layers do beside their tensors, for any number of classes.
    """

    model: nn.Module
    head: frozenset[str]
    structure: Mapping[tuple[str, str], Any]

    def is_structure_of(self, model: nn.Module) -> bool:
        """Whether no layer of ``model`` does something else, such as a convolution's stride."""
        found = _structure(model)
        kinds = [{key for key in each if key[1] == _KIND} for each in (found, self.structure)]
        same = found.items() >= self.structure.items()
        return same and kinds[0] == kinds[1]

    def count_classes(self, tensors: Mapping[str, Tensor]) -> int | None:
        """How many classes ``tensors`` tell apart; None where they are of another network."""
        expected = self.model.state_dict()
        if tensors.keys() - expected.keys() or not self.head <= tensors.keys():
            return None
        sizes = {len(tensors[name]) if tensors[name].ndim else 0 for name in self.head}
        as_planned = all(
            tensor.shape[name in self.head :] == expected[name].shape[name in self.head :]
            for name, tensor in tensors.items()
        )
        return sizes.pop() if as_planned and len(sizes) == 1 else None


def plan(builder: Builder, options: Mapping[str, Any]) -> Plan | None:
    """Plan a network; None for builders that cannot do without memory."""
    try:
        return _plan(builder, FrozenDict(options))
    except TypeError:  # an option has no hash
        return _plan.__wrapped__(builder, FrozenDict(options))


@functools.lru_cache(maxsize=64)
def _plan(builder: Builder, options: FrozenDict) -> Plan | None:
    """`plan`, once for each network: loading weights asks several times."""
    try:
        models = [sketch(builder, num_classes=count, **options) for count in (10, 11)]
        states = [model.state_dict() for model in models]
        head = [name for name, ten in states[0].items() if ten.shape != states[1][name].shape]
        ten, eleven = map(_structure, models)
    except Exception:  # a builder may do whatever it likes
        return None
    same = {key: value for key, value in ten.items() if eleven.get(key) == value}
    return Plan(models[0], frozenset(head), same)


def _structure(model: nn.Module) -> dict[tuple[str, str], Any]:
    """What tensors do not tell: the kind of each layer, and its plain attributes, as a stride.

    Layers and attributes that change no answer in evaluation mode are left out, as dropout.
    """
    found: dict[tuple[str, str], Any] = {}
    for name, layer in model.named_modules():
        kind = type(layer).__qualname__
        if isinstance(layer, nn.Identity | _DropoutNd) or kind in _DROPS:
            continue
        # one for several GPUs normalizes in the same way
        found[name, _KIND] = "BatchNorm" if isinstance(layer, _BatchNorm) else kind
        for attribute, value in vars(layer).items():
            if attribute in _SAME_ANSWERS or "drop" in attribute or attribute.startswith("_"):
                continue
            if inspect.isfunction(value) or inspect.isbuiltin(value):  # an activation, say
                value = f"{value.__module__}.{value.__qualname__}"
            parts = value if isinstance(value, tuple) else (value,)
            if all(isinstance(part, _PLAIN) for part in parts):
                found[name, attribute] = value
    return found


def sketch(builder: Builder, **options: Any) -> nn.Module:
    """The network on the device "meta", which takes no memory; raises whatever the builder does."""
    try:
        with torch.device("meta"), _NoDrawing():
            return builder(**options)
    except RuntimeError:  # it may read numbers, as a dropout rate for each layer
        with torch.device("meta"), _NoDrawing(keeps_numbers=True):
            return builder(**options)


def variants(builder: Builder, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``options``, then with the choices that a builder's options list as Literal."""
    yield dict(options)
    try:
        hints = typing.get_type_hints(builder)
    except (NameError, TypeError):  # types that are known to a type checker only
        return
    parameters = keyword_options(builder)
    choices = {
        name: typing.get_args(hints[name])
        for name in parameters
        if name not in options and typing.get_origin(hints.get(name)) is typing.Literal
    }
    defaults = {name: parameters[name].default for name in choices}
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        if chosen != defaults:
            yield {**options, **chosen}


def describe(model: nn.Module) -> ModelCard:
    """The card of ``model``, corrected where the network itself says otherwise.

    A last layer that was replaced by hand tells its own number of classes. A network that its
    builder could not have built, as after a change of a stride, is one made elsewhere: it has the
    name of its class.
    """
    card, inner = get_card(model), unwrap(model)
    planned, builder = None, find_builder(card.name)
    if builder is not None:
        planned = plan(builder, card.options)
        if planned is not None and not planned.head:
            return card
    tensors = {n: t for n, t in inner.state_dict().items() if isinstance(t, Tensor)}
    count = None
    if planned is not None:
        count = planned.count_classes(tensors)
        lacks = planned.model.state_dict().keys() - tensors.keys()
        if count is None or lacks or not planned.is_structure_of(inner):
            card = dataclasses.replace(card, name=type(inner).__name__, options={})
            count = None
    if count is None:
        count = _count_outputs(inner, tensors)
    if count is None or count == card.num_classes:
        return card
    classes = names_of_outputs(card.classes, count)
    return dataclasses.replace(card, num_classes=count, classes=classes)


def own_options(builder: Builder, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that differ from the builder's defaults."""
    defaults = {name: freeze(each.default) for name, each in keyword_options(builder).items()}

    def is_default(name: str, value: Any) -> bool:
        return name in defaults and type(value) is type(defaults[name]) and value == defaults[name]

    return {name: value for name, value in options.items() if not is_default(name, value)}


def changed_part(model: nn.Module) -> str:
    """In what a network is another than its builder makes, for a message.

    It is one whose card names a registered model, and to which `describe` gives another name.
    """
    card = get_card(model)
    builder = find_builder(card.name)
    planned = plan(builder, card.options) if builder is not None else None
    assert planned is not None  # otherwise it would have kept its name
    found = _structure(unwrap(model))
    for (layer, attribute), made in planned.structure.items():
        now = found.get((layer, attribute))
        if attribute != _KIND and now is not None and now != made:
            name = f"{layer}.{attribute}" if layer else attribute
            return (
                f"{name} is {now!r}, and its builder makes {made!r}; what training changes belongs "
                "in a buffer, by register_buffer"
            )
    return "its layers are others than its builder makes"


def check_outputs(builder: Builder, model: nn.Module, card: ModelCard) -> None:
    """Refuse a new network whose builder has left ``num_classes`` unheeded."""
    tensors = model.state_dict()
    if any(t.ndim and len(t) == card.num_classes for t in tensors.values()):
        return
    planned = plan(builder, card.options)
    if planned is not None and planned.head:
        return
    found = _count_outputs(model, tensors)
    if found is not None and found != card.num_classes:
        raise ArgumentError(
            f"the builder of {card.name!r} must return a network of num_classes outputs; for "
            f"num_classes={card.num_classes} it returned one of {found}"
        )


def other_sizes(builder: Builder) -> dict[str, int]:
    """Numbers of parameters with 10 classes that differ from the default's, by the options."""
    chosen = [*variants(builder, {})]
    if len(chosen) == 1:
        return {}  # that is the default, and planning it takes long
    sizes = {}
    for options in chosen:
        planned = plan(builder, options)
        if planned is not None:
            text = ", ".join(f"{name}={value!r}" for name, value in options.items())
            sizes[text] = sum(parameter.numel() for parameter in planned.model.parameters())
    default = sizes.pop("", None)
    return {text: size for text, size in sizes.items() if size != default}


class _NoDrawing(TorchFunctionMode):
    """Leaves out the random numbers, for which the device "meta" imports torch's compiler.

    A network of more operations than any has is given up: a file may ask for a billion layers.

    Args:
        keeps_numbers: Let the numbers that a builder writes down lie in memory, so that it can read
            them again.
    """

    def __init__(self, *, keeps_numbers: bool = False) -> None:
        super().__init__()
        self._left, self._keeps_numbers = _OPERATIONS, keeps_numbers

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it takes more than {_OPERATIONS:,} operations to build")
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        kwargs = kwargs or {}
        if self._keeps_numbers and func in _WRITING:
            kwargs = {**kwargs, "device": kwargs.get("device") or "cpu"}
        return func(*args, **kwargs)


def _count_outputs(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """Number of logits for an image of 32x32 pixels; None where there is none to be had."""
    first = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), None)
    if first is None:
        return None
    image = torch.zeros(1, 3, 32, 32, dtype=first.dtype, device=first.device)
    try:
        with evaluating(model) as network, torch.no_grad():
            logits = network(image)
    except Exception:  # a network for other images
        return None
    fits = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == 1
    return int(logits.shape[1]) if fits else None
