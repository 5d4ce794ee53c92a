"""A network that takes milliseconds to train, to save and to read."""

from __future__ import annotations

from torch import nn

from cifarzoo import list_models, register_model

__all__ = ["register_small"]


def small(*, num_classes: int = 10) -> nn.Module:
    """A network for images of any size, with all the layers that recipes speak of."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def register_small() -> None:
    """Make it known by the name "small"."""
    if "small" not in list_models():
        about = {"description": "Small.", "source": "here", "parameters": 1, "macs": 1}
        register_model(name="small", **about)(small)
