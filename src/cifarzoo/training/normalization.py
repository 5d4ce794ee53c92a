"""Batch normalization during a run: which of them stand still, and how others are measured anew."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from cifarzoo.compute.modes import Modes

__all__ = ["frozen_normalizations", "measure_normalizations"]


def frozen_normalizations(model: nn.Module) -> list[str]:
    """Names of the normalizations in the frozen part of ``model``: all their parameters are frozen.

    In training mode they would move their statistics, and the frozen part would not stay what it
    is. One without parameters belongs to its neighbour: the nearest module with parameters before
    it in the module that holds both, or else after it, or else the neighbour of their holder.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        >>> _ = model[:2].requires_grad_(False)
        >>> frozen_normalizations(model)
        ['1']
    """
    norms = [name for name, module in model.named_modules() if isinstance(module, _NormBase)]
    return [name for name in norms if _is_frozen(model, name)]


def _is_frozen(model: nn.Module, name: str) -> bool:
    """Whether the parameters of the module called ``name``, or of its neighbour, are all frozen."""
    module = model.get_submodule(name)
    while not any(True for _ in module.parameters()):
        if not name:
            return False  # nothing in the model has parameters
        holder, _, own = name.rpartition(".")
        siblings = [*model.get_submodule(holder).named_children()]
        place = [child for child, _ in siblings].index(own)
        near = [each for _, each in (*siblings[:place][::-1], *siblings[place + 1 :])]
        module = next((each for each in near if [*each.parameters()]), module)
        name = holder
    return not any(parameter.requires_grad for parameter in module.parameters())


@torch.no_grad()
def measure_normalizations(
    model: nn.Module, images: Iterator[Tensor], *, still: Collection[str] = ()
) -> None:
    """Let batch normalizations count their statistics anew.

    The average of running statistics is not what they are with averaged weights, least of all when
    the weights still move (Izmailov et al. 2018, arXiv:1803.05407, section 3.2).

    Args:
        model: Its modes stay as they are.
        images: Normalized batches (B, 3, H, W); without any nothing is changed.
        still: Names of those that stay as they are.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    first = next(images, None) if norms else None
    if first is None:
        return
    modes = Modes(model.modules())
    model.train()
    for name in still:
        model.get_submodule(name).eval()
    # a model's own train() may leave some of them as they are
    moving = [norm for norm in norms if norm.training and norm.track_running_stats]
    before = [(copy.deepcopy(dict(norm.named_buffers())), norm.momentum) for norm in moving]
    for norm in moving:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    try:
        model(first)
        for batch in images:
            model(batch)
    finally:
        for norm, (buffers, momentum) in zip(moving, before, strict=True):
            norm.momentum = momentum
            if not norm.num_batches_tracked:  # no batch has passed it
                norm.load_state_dict(buffers, strict=False)
        modes.restore()
