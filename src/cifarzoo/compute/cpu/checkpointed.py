"""Whether what is computed will be computed once more, by a checkpoint."""

from __future__ import annotations

import sys
import types

import torch
import torch.utils.checkpoint

__all__ = ["is_in_checkpoint"]

_FILE = torch.utils.checkpoint.__file__
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def is_in_checkpoint() -> bool:
    """Whether a checkpoint is at work that computes once more what it did not keep.

    By the second time, a map from before it may have been used elsewhere. So what is computed in it
    must not depend on who else has met a map: torch pairs the tensors of both passes by their
    order alone. Other hooks for saved tensors count as well.
    """
    if torch.compiler.is_compiling():  # which has a way of its own for them, and reads this code
        return False
    if _top_hooks is not None:
        return _top_hooks(True) is not None
    frame: types.FrameType | None = sys._getframe()  # before torch 2.8, only the calls tell
    while frame is not None:
        if frame.f_code.co_filename == _FILE:
            return True
        frame = frame.f_back
    return False
