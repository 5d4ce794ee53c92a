"""Optimizers by name, through torch and timm, and the parameter groups they work on."""

from __future__ import annotations

import copy
import fnmatch
import functools
import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from cifarzoo.compute.seeding import own_generator
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.frozen import thaw
from cifarzoo.names import check_name, check_options, real_number, unknown_name
from cifarzoo.recipe.muon import MuonSGD

__all__ = [
    "OptimizerFactory",
    "build_optimizer",
    "check_group_options",
    "check_optimizer",
    "first_state",
    "list_optimizers",
    "parameter_groups",
    "register_optimizer",
]

OptimizerFactory = Callable[..., Optimizer]
"""An optimizer's class, a partial of it, or a function of the parameter groups."""

_Factory = TypeVar("_Factory", bound=OptimizerFactory)
_FACTORIES: dict[str, OptimizerFactory] = {}

# torch's and ours, known without importing timm, which takes longer than torch itself
_WITHOUT_TIMM = ("adam", "adamw", "momentum", "muon_sgd", "sgd")

# of timm, but of no use here, and why
_LEFT_OUT = {
    "adahessian": "it differentiates the gradients again, which no layer here is made for",
    "kron*": "a layer of 3,072 inputs, as that of 'simple', takes it 22 GB of memory and more",
    "bnb*": "it is of another package, bitsandbytes; register_optimizer takes any",
    "fused*": "it is of another package, apex; register_optimizer takes any",
}

# fields of a recipe that torch's optimizers take, and what they call them
_FIELDS = {"learning_rate": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}
# what a recipe may set for a group of parameters
_GROUP_OPTIONS = {**_FIELDS, "freeze_at": "freeze_at"}


def register_optimizer(name: str) -> Callable[[_Factory], _Factory]:
    """Make an optimizer available by ``name`` in recipes and on the command line.

    Args:
        name: Name of the optimizer; must be new.

    Returns:
        A decorator that returns the factory unchanged. The factory is an optimizer's class, or
        a function of the parameter groups. It receives ``lr``, and ``momentum`` if it has such
        a parameter. A recipe may set its other keywords in ``optimizer_options``.

    Raises:
        DuplicateNameError: The name is taken.

    Example:
        >>> @register_optimizer("sign_sgd")
        ... class SignSGD(torch.optim.SGD):
        ...     def step(self, closure=None):
        ...         for group in self.param_groups:
        ...             for parameter in group["params"]:
        ...                 parameter.grad.sign_()
        ...         return super().step(closure)
        >>> "sign_sgd" in list_optimizers()
        True
    """
    check_name("optimizer", name)

    def register(factory: _Factory) -> _Factory:
        if name in list_optimizers() or not re.fullmatch(r"[\w.-]+", name):
            raise DuplicateNameError(
                f"optimizer {name!r} is already registered, or no name; choose another"
            )
        _FACTORIES[name] = factory
        return factory

    return register


def list_optimizers() -> list[str]:
    """List the names of all optimizers, sorted: torch's, ours, timm's and the registered ones.

    Some of timm's names are left out: "adahessian", which differentiates the gradients again,
    "kron", which takes gigabytes for a small network, and the optimizers of other packages.
    """
    from timm.optim import list_optimizers as timm_names

    return sorted({*_WITHOUT_TIMM, *_FACTORIES, *timm_names(exclude_filters=[*_LEFT_OUT])})


def check_optimizer(name: str) -> None:
    """Raise UnknownNameError when no optimizer is called ``name``.

    Of one that is named by where it is imported from, "module:name", only the form is checked.
    """
    if _is_path(name) or name in _WITHOUT_TIMM or name in _FACTORIES:
        return
    if name not in list_optimizers():
        for pattern, reason in _LEFT_OUT.items():
            if fnmatch.fnmatch(name, pattern):
                raise UnknownNameError(
                    f"optimizer {name!r} is left out: {reason}. See list_optimizers()."
                )
        raise unknown_name("optimizer", name, list_optimizers(), hint="See list_optimizers().")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    changes: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Group the model's parameters by their role, as torch's optimizers take them.

    A model may have a method ``parameter_groups() -> dict[str, list[Parameter]]``. Other models
    have the groups "weights" (parameters of two or more dimensions) and "biases" (all others, also
    those of normalizations). Frozen parameters and empty groups are left out.

    Args:
        model: The model.
        weight_decay: Weight decay of groups with a parameter of two or more dimensions; other
            groups have none.
        changes: Options of single groups, as in a recipe's ``groups``.

    Raises:
        UnknownNameError: ``changes`` names a group that the model does not have.
        ArgumentError: The model's own groups do not hold each of its parameters exactly once.
    """
    groups = _named_parameters(model)
    changes = changes or {}
    for name in changes:
        if name not in groups:
            raise unknown_name("parameter group", name, groups)
    return [
        {
            "name": name,
            "params": members,
            "weight_decay": weight_decay if any(p.ndim >= 2 for p in members) else 0.0,
            **{_GROUP_OPTIONS[key]: value for key, value in changes.get(name, {}).items()},
        }
        for name, members in groups.items()
        if members
    ]


def check_group_options(changes: Mapping[str, Mapping[str, float]]) -> None:
    """Raise when a recipe sets something for a group of parameters that cannot be set."""
    for name, options in changes.items():
        if not isinstance(options, Mapping):
            raise ArgumentError(f"groups.{name} must hold options by name; got {options!r}")
        check_options(f"recipe.groups.{name}", options, _GROUP_OPTIONS)
        for key, value in options.items():
            number = real_number(value)
            if number is None or not 0 <= number < math.inf:  # so that NaN fails too
                raise ArgumentError(
                    f"groups.{name}.{key} must be a finite number of at least 0; got {value!r}"
                )
            if key == "momentum" and number >= 1:
                raise ArgumentError(f"groups.{name}.momentum must be below 1; got {value!r}")
        if not options.get("freeze_at", 0.5) < 1:
            raise ArgumentError(
                f"groups.{name}.freeze_at is a fraction of the run in [0, 1); got "
                f"{options['freeze_at']}"
            )


def _named_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    declare = getattr(model, "parameter_groups", None)
    if declare is None:
        return {
            "weights": [p for p in trained if p.ndim >= 2],
            "biases": [p for p in trained if p.ndim < 2],
        }
    groups = {name: [p for p in ps if p.requires_grad] for name, ps in declare().items()}
    members = [id(p) for ps in groups.values() for p in ps]
    if sorted(members) != sorted(id(p) for p in trained):
        raise ArgumentError(
            f"parameter_groups() of {type(model).__name__} must hold each trained parameter once: "
            f"it holds {len(members)}, the model has {len(trained)}"
        )
    return groups


def build_optimizer(
    optimizer: str | OptimizerFactory,
    model: nn.Module,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    groups: Mapping[str, Mapping[str, float]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Build the optimizer named ``optimizer`` for ``model``, or call it when it is a factory.

    Args:
        optimizer: "sgd" (with Nesterov momentum), "momentum" (SGD with classical momentum),
            "adam", "adamw", "muon_sgd" (`MuonSGD`), or any other name of `list_optimizers`;
            "module:name", which is imported; or an optimizer's class, a partial of one, or a
            function from the parameter groups to an optimizer.
        model: Model whose trainable parameters are optimized. Its method ``output_divisors``, if it
            has one, says by what it divides the output of a group's layer; SGD makes up for that.
        learning_rate: Highest learning rate of the schedule.
        momentum: Momentum, for the optimizers that have one.
        weight_decay: Weight decay of weights only; see `parameter_groups`.
        groups: Options of single groups of parameters, as in a recipe.
        options: Further keyword arguments of the optimizer.

    Raises:
        UnknownNameError: No optimizer has this name.
        ArgumentError: The optimizer does not take an option, or no parameter can be trained.
    """
    if isinstance(optimizer, functools.partial):  # the groups' own would win
        weight_decay = optimizer.keywords.get("weight_decay", weight_decay)
    parameters = parameter_groups(model, weight_decay, groups)
    if optimizer in ("sgd", "momentum"):  # whose steps are as large as the gradients
        _make_up_for_divisors(model, parameters, learning_rate, groups or {})
    if not parameters:
        raise ArgumentError("the model has no trainable parameters; set requires_grad on some")
    if all("freeze_at" in group for group in parameters):
        raise ArgumentError(
            "every group of parameters is frozen at some time, and nothing would be left to train; "
            "leave freeze_at out of one of groups"
        )
    given = thaw(options or {})
    for field, key in _FIELDS.items():
        if key in given:
            raise ArgumentError(
                f"optimizer_options.{key} and the recipe's {field} would both say it; set {field}"
            )
    if isinstance(optimizer, str):
        check_optimizer(optimizer)
    try:
        if not isinstance(optimizer, str):  # the recipe's options belong to the one that it names
            built = _call_factory(optimizer, parameters, learning_rate, momentum, {})
        elif _is_path(optimizer) or optimizer in _FACTORIES:
            factory = _FACTORIES.get(optimizer) or _import(optimizer)
            built = _call_factory(factory, parameters, learning_rate, momentum, given)
        else:
            build = _build_without_timm if optimizer in _WITHOUT_TIMM else _build_timm
            built = build(optimizer, parameters, learning_rate, momentum, given)
            if given:  # most are not looked at before the first step
                first_state(built)
        for name, changed in (groups or {}).items():
            if "momentum" in changed and "momentum" not in built.defaults:
                raise ArgumentError(
                    f"groups.{name}.momentum: {type(built).__name__} has no momentum; leave it out"
                )
        return built
    except ArgumentError:
        raise
    except Exception as error:  # whatever an option of another kind leads to
        raise ArgumentError(f"optimizer {optimizer!r} cannot be built: {error}") from error


def _make_up_for_divisors(
    model: nn.Module,
    parameters: list[dict[str, Any]],
    learning_rate: float,
    groups: Mapping[str, Mapping[str, float]],
) -> None:
    """Raise the rate of layers whose output the network divides by a number, and so their gradient.

    A recipe with options for the group decides itself. Without this, the last layer of an airbench
    network stays nearly as it is at the rates that fit its other layers.
    """
    declare = getattr(model, "output_divisors", None)
    divisors: dict[str, float] = declare() if declare is not None else {}
    for group in parameters:
        divisor = divisors.get(group["name"])
        if divisor is not None and group["name"] not in groups:
            group["lr"] = learning_rate * divisor
            group["weight_decay"] /= divisor  # SGD multiplies it by the rate


def first_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What an optimizer keeps for each of its parameters after a step, found by that of a twin.

    Raises whatever the step does; torch's generators and the parameters stay as they are.
    """
    twin = copy.deepcopy(optimizer)
    parameters = [p for group in twin.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    with own_generator(0):
        twin.step()
    return [dict(twin.state[parameter]) for parameter in parameters]


def _is_path(name: str) -> bool:
    return re.fullmatch(r"[\w.]+:[\w.]+", name) is not None


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"optimizer {path!r} cannot be imported: {error}") from error


def _call_factory(
    factory: Any,
    groups: list[dict[str, Any]],
    lr: float,
    momentum: float,
    options: dict[str, Any],
) -> Optimizer:
    """Build by a class, a partial, or a function, which is given what it has parameters for.

    One that takes any keyword is given the rate; and the momentum, if a class that it derives from
    names it.
    """
    if not callable(factory):
        raise ArgumentError(
            f"an optimizer is a name, a class, or a function of parameters; got {factory!r}"
        )
    parameters = inspect.signature(factory).parameters
    kept = factory.keywords if isinstance(factory, functools.partial) else {}
    known = {"lr": lr, "momentum": momentum}
    takes = {*parameters}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        called = factory.func if isinstance(factory, functools.partial) else factory
        for base in inspect.getmro(called) if isinstance(called, type) else ():
            takes |= {*inspect.signature(base).parameters} if base is not object else set()
        takes.add("lr")
    arguments = {k: v for k, v in known.items() if k in takes and k not in kept}
    built = factory(groups, **{**arguments, **options})
    if not isinstance(built, Optimizer):
        raise ArgumentError(
            f"an optimizer factory must return a torch Optimizer; got {type(built).__name__}"
        )
    return built


def _build_without_timm(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, options: dict[str, Any]
) -> Optimizer:
    if name == "muon_sgd":
        return MuonSGD(groups, lr=lr, momentum=momentum, **options)
    device = groups[0]["params"][0].device.type
    # one kernel over all parameters instead of one or more for each
    options = {"fused": device in ("cpu", "cuda"), **options}
    if name in ("sgd", "momentum"):
        if "nesterov" in options:
            raise ArgumentError(
                "optimizer 'sgd' has Nesterov's momentum, and 'momentum' is without it; leave "
                "nesterov out of optimizer_options, and choose one of the two"
            )
        nesterov = name == "sgd" and momentum > 0
        sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, **options)
        for group in sgd.param_groups:  # which may have a momentum of its own
            group["nesterov"] = name == "sgd" and group["momentum"] > 0
        return sgd
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, **options)
    return torch.optim.AdamW(groups, lr=lr, **options)


def _build_timm(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, options: dict[str, Any]
) -> Optimizer:
    from timm.optim import create_optimizer_v2

    built = create_optimizer_v2(groups, opt=name, lr=lr, momentum=momentum, **options)
    assert isinstance(built, Optimizer)
    return built
