"""What a network says when it is given something else than its images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import is_scripting  # type: ignore[attr-defined]  # torch does not export it

from cifarzoo.errors import InputError

__all__ = ["check_input"]

_SIZE = "_image_size"


def check_input(network: nn.Module, size: int | None) -> None:
    """Let ``network`` refuse images of a wrong shape or dtype, and say what it expects.

    The check is a hook: the network itself stays traceable, and a traced, scripted or exported copy
    has no check.

    Args:
        network: Takes normalized images (B, 3, H, W) in the dtype of its parameters.
        size: Height and width it is bound to; None when it takes any.
    """
    network.__dict__[_SIZE] = size
    network.register_forward_pre_hook(_check)


def _check(module: nn.Module, input: tuple[Tensor]) -> None:  # noqa: A002  (torch's own word)
    if not is_scripting():
        _check_images(module, input)


def _check_images(network: nn.Module, given: tuple[Any, ...]) -> None:
    if not given:  # by name: they are torch's to refuse
        return
    images = given[0]
    if not isinstance(images, Tensor):
        raise InputError(
            f"expected a tensor of images (batch, 3, height, width); got a {type(images).__name__}"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"expected images of shape (batch, 3, height, width); got {tuple(images.shape)}"
        )
    size = network.__dict__[_SIZE]
    if size is not None and (images.shape[2] != size or images.shape[3] != size):
        raise InputError(
            f"this network's dense head needs {size}x{size} images; "
            f"got {images.shape[2]}x{images.shape[3]}: resize them, or use a network with "
            "global pooling such as 'resnet18_cifar'"
        )
    parameter = next(network.parameters(), None)
    if parameter is None or images.dtype == parameter.dtype:
        return
    dtype = parameter.dtype
    if not images.is_floating_point():
        raise InputError(
            f"expected normalized images of dtype {dtype}; got {images.dtype}: "
            "normalize them first, or use evaluate() or predict(), which do"
        )
    if not torch.is_autocast_enabled(images.device.type):
        raise InputError(
            f"expected images of the network's dtype {dtype}; got {images.dtype}: "
            "model.float() makes it float32; or convert the images, or run under torch.autocast"
        )
