"""The networks of the zoo, and of each kind the one with the least arithmetic.

Networks of a family that are made of the same classes differ by their sizes only: what takes long
is tested on one of them, and on a shorter one of its family where it is long itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo.models.input import check_input

__all__ = [
    "KINDS",
    "MODELS",
    "create_short",
    "each_kind",
    "each_kind_slowly",
    "each_model",
    "each_model_slowly",
    "hollow",
]

MODELS = cifarzoo.list_models()

KINDS = [
    "airbench94",
    "cct_7_3x1",
    "convmixer256_8",
    "deep_bn",
    "densenet_bc40_k12",
    "mobilenetv2_x0_5",
    "preresnet164",
    "preresnet20",
    "pyramidnet110_a48",
    "repvgg_a0",
    "resnet18",
    "resnet18_cifar",
    "resnet20",
    "resnet50_cifar",
    "resnet9",
    "resnext29_32x4d",
    "seresnet20",
    "shakeshake26_2x32d",
    "shufflenetv2_x0_5",
    "simple",
    "tiniest",
    "vgg11_bn",
    "vit_tiny_patch4",
    "wrn40_1",
]
"""A test of theirs compares the list with the registry."""

_FEW = ("airbench94", "resnet20", "simple")

each_model = pytest.mark.parametrize("name", MODELS)
each_model_slowly = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in MODELS]
)
"""One of each kind in ``make test``, all in ``make test-all``."""
each_kind = pytest.mark.parametrize("name", KINDS)
each_kind_slowly = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in _FEW else pytest.mark.slow) for n in KINDS]
)
"""Three of them in ``make test``, all in ``make test-all``."""

_SHORT: dict[str, dict[str, Any]] = {
    "cct_7_3x1": {"depth": 2, "width": 64, "heads": 2, "hidden": 128},
    "convmixer256_8": {"width": 64, "depth": 2},
    "densenet_bc40_k12": {"depth": 22, "growth": 12},
    "mobilenetv2_x0_5": {"width": 0.25},
    "preresnet164": {"blocks": [2, 1, 1], "channels": [16, 16, 32, 64], "block": "bottleneck"},
    "pyramidnet110_a48": {"depth": 20, "growth": 48},
    "repvgg_a0": {"depths": [2, 2, 2, 1], "channels": [16, 16, 32, 64, 128]},
    "resnet50_cifar": {"depths": [2, 1, 1, 1], "block": "bottleneck", "stem": "cifar"},
    "resnext29_32x4d": {"blocks": 1, "groups": 32, "group_width": 1},
    "seresnet20": {"blocks": 1},
    "shakeshake26_2x32d": {"blocks": 2, "width": 16},
    "tiniest": {"width": 16, "wide": 32},
    "vit_tiny_patch4": {"depth": 2, "width": 48, "heads": 3, "patch": 4},
    "wrn40_1": {"depth": 16, "width": 1},
}


def hollow(name: str, **options: Any) -> nn.Module:
    """A network of zeros, which is made without drawing a number."""
    with torch.device("meta"):
        model = cifarzoo.create_model(name, **options)
    # passes on "meta" itself take longer: torch computes their shapes in Python
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    return model


def create_short(name: str, *, seed: int = 0) -> nn.Module:
    """A network of a kind, with fewer layers or channels where it has many."""
    if name not in _SHORT:
        return cifarzoo.create_model(name, seed=seed)
    spec = cifarzoo.get_model_info(name)
    builder: Callable[..., nn.Module] = spec.builder.__wrapped__  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = builder(**_SHORT[name])
    check_input(model, spec.image_size)
    return model
