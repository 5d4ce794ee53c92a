"""Optimizers by name, through torch and timm, and the parameter groups they work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cifarzoo.errors import ArgumentError
from cifarzoo.frozen import thaw
from cifarzoo.names import check_factory, check_options, unknown_name
from cifarzoo.recipe.muon import MuonSGD

__all__ = [
    "OptimizerFactory",
    "build_optimizer",
    "check_group_options",
    "check_optimizer",
    "list_optimizers",
    "parameter_groups",
]

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""``(parameter groups) -> Optimizer``."""

# torch's and ours, known without importing timm, which takes longer than torch itself
_WITHOUT_TIMM = ("adam", "adamw", "momentum", "muon_sgd", "sgd")

# what a recipe may set for a group of parameters, and what torch calls it
_GROUP_OPTIONS = {
    "learning_rate": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "freeze_at": "freeze_at",
}


def list_optimizers() -> list[str]:
    """Names of all optimizers, sorted: torch's, ours, and those of timm.

    Without "adahessian", which differentiates the gradients again, and those of other packages.
    """
    from timm.optim import list_optimizers as timm_names

    left_out = ["adahessian", "bnb*", "fused*"]
    return sorted({*_WITHOUT_TIMM, *timm_names(exclude_filters=left_out)})


def check_optimizer(name: str) -> None:
    """Raise UnknownNameError when no optimizer is called ``name``."""
    if name not in _WITHOUT_TIMM and name not in list_optimizers():
        raise unknown_name("optimizer", name, list_optimizers(), hint="See list_optimizers().")


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    changes: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """The model's parameters by the role they play, as torch's optimizers take them.

    A model may offer a method ``parameter_groups() -> dict[str, list[Parameter]]``. The groups of
    the others are "weights" (two or more dimensions) and "biases" (the rest, normalization
    parameters among them). Frozen parameters are left out, and a group without members too.

    Args:
        model: The model.
        weight_decay: For groups with a parameter of two or more dimensions; others have none.
        changes: Options of single groups, as in a recipe's ``groups``.

    Raises:
        UnknownNameError: ``changes`` names a group the model does not have.
        ArgumentError: The model's own groups do not hold each of its parameters once.
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
            # written so that NaN fails too
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ArgumentError(f"groups.{name}.{key} must be at least 0; got {value!r}")
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
            "adam", "adamw", "muon_sgd" (`MuonSGD`), any other name of `list_optimizers`, or a
            factory that is given the parameter groups.
        model: Its trainable parameters are optimized.
        learning_rate: The peak learning rate.
        momentum: Momentum of those optimizers that have one.
        weight_decay: For weights only; see `parameter_groups`.
        groups: Options of single groups of parameters, as in a recipe.
        options: Further keyword arguments of the optimizer.

    Raises:
        UnknownNameError: No optimizer has this name.
        ArgumentError: It does not take one of the options, or there is nothing to train.
    """
    parameters = parameter_groups(model, weight_decay, groups)
    if not parameters:
        raise ArgumentError("the model has no trainable parameters; set requires_grad on some")
    if not isinstance(optimizer, str):
        return _call_factory(optimizer, parameters)
    check_optimizer(optimizer)
    build = _build_without_timm if optimizer in _WITHOUT_TIMM else _build_timm
    try:
        return build(optimizer, parameters, learning_rate, momentum, thaw(options or {}))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"optimizer {optimizer!r} cannot be built: {error}") from error


def _call_factory(factory: Any, parameters: list[dict[str, Any]]) -> Optimizer:
    # a class would be called without the recipe's learning rate
    check_factory("an optimizer", factory, "groups", "groups, lr=...")
    built = factory(parameters)
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
        nesterov = name == "sgd" and momentum > 0
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, **options)
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
