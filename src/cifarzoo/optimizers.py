"""Optimizers by name, through torch and timm, and the parameter groups they work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cifarzoo.errors import ArgumentError
from cifarzoo.names import unknown_name

__all__ = [
    "OptimizerFactory",
    "build_optimizer",
    "check_optimizer",
    "list_optimizers",
    "parameter_groups",
]

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""``(parameter groups) -> Optimizer``."""

# torch's own, known without importing timm, which takes longer than torch itself
_TORCH = ("adam", "adamw", "momentum", "sgd")


def list_optimizers() -> list[str]:
    """Names of all optimizers, sorted: torch's and every one timm knows."""
    from timm.optim import list_optimizers as timm_names

    return sorted({*_TORCH, *timm_names()})


def check_optimizer(name: str) -> None:
    """Raise UnknownNameError when no optimizer is called ``name``."""
    if name not in _TORCH and name not in list_optimizers():
        raise unknown_name("optimizer", name, list_optimizers(), hint="See list_optimizers().")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights with ``weight_decay``; biases and normalization parameters without.

    A weight is a parameter of two or more dimensions. Frozen parameters are left out, and a
    group without members too.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    optimizer: str | OptimizerFactory,
    model: nn.Module,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Build the optimizer named ``optimizer`` for ``model``, or call it when it is a factory.

    Args:
        optimizer: "sgd" (with Nesterov momentum), "momentum" (SGD with classical momentum),
            "adam", "adamw", any other name of `list_optimizers`, or a factory that is given the
            parameter groups.
        model: Its trainable parameters are optimized.
        learning_rate: The peak learning rate.
        momentum: Momentum of those optimizers that have one.
        weight_decay: For weights only; see `parameter_groups`.
        options: Further keyword arguments of the optimizer.

    Raises:
        UnknownNameError: No optimizer has this name.
        ArgumentError: It does not take one of the options, or there is nothing to train.
    """
    groups = parameter_groups(model, weight_decay)
    if not groups:
        raise ArgumentError("the model has no trainable parameters; set requires_grad on some")
    if not isinstance(optimizer, str):
        return optimizer(groups)
    check_optimizer(optimizer)
    build = _build_torch if optimizer in _TORCH else _build_timm
    try:
        return build(optimizer, groups, learning_rate, momentum, dict(options or {}))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"optimizer {optimizer!r} cannot be built: {error}") from error


def _build_torch(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float, options: dict[str, Any]
) -> Optimizer:
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
