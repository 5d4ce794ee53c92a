"""The listing of a network as the report prints it."""

from __future__ import annotations

import re

from torch import nn

__all__ = ["plain_listing"]

_NEWER = re.compile(r"(BatchNorm\dd\([^)]*), bias=(?:True|False)")


def plain_listing(network: nn.Module) -> str:
    """What ``print(network)`` shows, without what newer versions of torch add to the report's.

    Example:
        >>> plain_listing(nn.BatchNorm2d(20, affine=False))
        'BatchNorm2d(20, eps=1e-05, momentum=0.1, affine=False, track_running_stats=True)'
    """
    return _NEWER.sub(r"\1", nn.Module.__repr__(network))
