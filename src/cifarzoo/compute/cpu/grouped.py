"""Convolutions of groups of few channels, several of which are computed as one.

The blocks of numbers that oneDNN multiplies have 16 channels. In bfloat16, groups of fewer take up
to four times as long as larger groups with zeros between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["grouped_conv2d", "groups_at_once"]

_BLOCK = 16  # channels
_MOST = 64  # channels; of more, the zeros cost more than the blocks gain


def groups_at_once(layer: nn.Conv2d) -> int:
    """How many groups make one of 16 channels or more; 1 where that does not pay."""
    channels = max(layer.in_channels, layer.out_channels) // layer.groups
    counts = range(1, layer.groups + 1)
    divisors = [count for count in counts if layer.groups % count == 0]
    count = next((n for n in divisors if n * channels >= _BLOCK), layer.groups)
    return count if count * channels <= _MOST else 1


def grouped_conv2d(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """What ``layer`` computes of ``x`` (B, C, H, W), several of its groups as one."""
    count = groups_at_once(layer)
    weight = _merged(layer.weight, layer.groups, count)
    groups = layer.groups // count
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, groups)


def _merged(weight: Tensor, groups: int, count: int) -> Tensor:
    """The filters of fewer groups, which have zeros where they see channels of another one."""
    own = torch.eye(count, dtype=weight.dtype)[:, None, :, None, None, None]
    filters = weight.view(groups // count, count, len(weight) // groups, 1, *weight.shape[1:])
    return (filters * own).flatten(3, 4).flatten(0, 2)
