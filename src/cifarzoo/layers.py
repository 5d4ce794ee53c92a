"""Blocks used by two or more model families."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cifarzoo.errors import InputError

__all__ = ["BatchNorm1d", "BatchNorm2d", "check_images"]


class _PlainRepr:
    """Lists a normalization the same way under every version of torch; newer ones add to it."""

    num_features: int
    eps: float
    momentum: float | None
    affine: bool
    track_running_stats: bool

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_PlainRepr, nn.BatchNorm1d):
    """torch's, with the listing of the documents."""


class BatchNorm2d(_PlainRepr, nn.BatchNorm2d):
    """torch's, with the listing of the documents."""


def check_images(images: Tensor, weight: Tensor, size: int | None = None) -> None:
    """Raise InputError when a network cannot take ``images``, and say what it expects.

    Args:
        images: What was given to ``forward``.
        weight: A parameter of the first layer; its dtype is the network's.
        size: Height and width the network is bound to; None when it takes any.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(
            f"expected images of shape (batch, 3, height, width); got {tuple(images.shape)}"
        )
    if size is not None and (images.shape[2] != size or images.shape[3] != size):
        raise InputError(
            f"this network's dense head needs {size}x{size} images; "
            f"got {images.shape[2]}x{images.shape[3]}: resize them, or use a network with "
            "global pooling such as 'resnet18_cifar'"
        )
    if images.dtype == weight.dtype:
        return
    if not images.is_floating_point():
        raise InputError(
            f"expected normalized images of dtype {weight.dtype}; got {images.dtype}: "
            "normalize them first, or use evaluate() or predict(), which do"
        )
    if not torch.is_autocast_enabled(images.device.type):
        raise InputError(
            f"expected images of the network's dtype {weight.dtype}; got {images.dtype}: "
            "convert one of them, or run under torch.autocast"
        )
