"""Blocks used by two or more model families."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import InputError

__all__ = ["BatchNorm1d", "BatchNorm2d", "check_images"]


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """torch's batch normalization, except in two points.

    It lists itself the same way under every version of torch (newer ones add to the listing), and
    in training a batch with a single value per channel, which has no variance, is normalized by
    the running statistics instead of being refused.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, ...), keeping the shape."""
        if self.training and self.track_running_stats and x.numel() == x.shape[1]:
            self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """Batch normalization of (B, C) with torch's parameters and defaults."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization of (B, C, H, W) with torch's parameters and defaults."""


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
