"""The last layer of a network, which has an output for each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import InputError
from cifarzoo.zoo.card import unwrap

__all__ = ["find_classifier"]

_SIZES = (32, 224)


def find_classifier(model: nn.Module) -> str:
    """Name of the dense layer, or of the convolution of 1x1, whose output is the logits.

    It is found by a pass of one image, in a twin of the network.

    Raises:
        InputError: There is none, or none that could be told.
    """
    inner = unwrap(model)
    first = next((p for p in inner.parameters() if p.is_floating_point()), None)
    for size in _SIZES:
        if first is None:
            break
        images = torch.zeros(1, 3, size, size, dtype=first.dtype, device=first.device)
        try:
            found = _trace(inner, images)
        except Exception:  # a network for other images
            continue
        if found is not None:
            return found
    raise InputError(
        f"{type(inner).__name__} has no last layer that could be told: its logits are not the "
        "output of an nn.Linear or of an nn.Conv2d"
    )


def _trace(model: nn.Module, images: Tensor) -> str | None:
    outputs: dict[str, Tensor] = {}
    with evaluating(model) as network, torch.no_grad():
        hooks = [
            part.register_forward_hook(
                lambda _, inputs, output, name=name: outputs.__setitem__(name, output)
            )
            for name, part in network.named_modules()
            if isinstance(part, nn.Linear | nn.Conv2d)
        ]
        try:
            logits = network(images)
        finally:
            for hook in hooks:
                hook.remove()
    # what scales the logits, or leaves out dimensions of size 1, comes after the last layer
    for name, output in reversed(outputs.items()):
        if isinstance(output, Tensor) and output.numel() == logits.numel():
            return name
    return None
