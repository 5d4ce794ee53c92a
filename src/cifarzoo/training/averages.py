"""Averages of the weights over a run: an exponential one beside the network, and lookahead."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.recipe import Recipe
from cifarzoo.zoo.card import attach_card, get_card, unwrap

__all__ = ["Lookahead", "build_ema", "keep_extra_state"]

_EVERY = 5  # steps


def build_ema(model: nn.Module, recipe: Recipe) -> Any:
    """Timm's average of weights and buffers; None when the recipe wants none."""
    if not recipe.ema_decay:
        return None
    from timm.utils import ModelEmaV3

    class Average(ModelEmaV3):  # type: ignore[misc]  # timm is half typed
        def apply_update_(self, model: nn.Module, decay: float) -> None:
            """Each tensor once: tied ones stand twice in a state, and would move twice."""
            pairs = zip(_tensors(self.module), _tensors(model), strict=True)
            once = {(a.data_ptr(), a.shape, a.stride()): (a, now) for a, now in pairs}
            moving = [pair for pair in once.values() if pair[0].is_floating_point()]
            if moving:
                averages, live = (list(each) for each in zip(*moving, strict=True))
                torch._foreach_lerp_(averages, live, weight=1 - decay)
            for average, now in once.values():
                if not average.is_floating_point():
                    average.copy_(now)

    try:
        ema = Average(unwrap(model), decay=recipe.ema_decay, use_warmup=True)
    except RuntimeError as error:
        if "deepcopy protocol" not in str(error):
            raise
        raise ArgumentError(
            "ema_decay averages a copy of the network, and this one cannot be copied: it holds "
            "tensors that are computed from others, as torch.nn.utils.prune and weight_norm keep "
            "them; prune.remove(module, name) makes pruning permanent, and "
            "torch.nn.utils.parametrizations.weight_norm can be copied"
        ) from error
    # timm evaluates it, and a class with a train() of its own may then hold other tensors
    ema.module.train()
    attach_card(ema.module, get_card(model))
    return ema


def keep_extra_state(average: nn.Module, model: nn.Module) -> None:
    """Give an average what modules of ``model`` keep beside tensors: of that there is no mean."""
    mine = dict(average.named_modules())  # without what a first pass has added to the model
    for name, live in model.named_modules():
        if name in mine and type(live).get_extra_state is not nn.Module.get_extra_state:
            mine[name].set_extra_state(copy.deepcopy(live.get_extra_state()))


class Lookahead:
    """Slow weights, to which the network is set back every five steps.

    Source: Zhang et al. 2019, arXiv:1907.08610, with the growing decay of Jordan 2024,
    arXiv:2404.00498, section 3.4: the slow weights follow at once in the beginning, and average
    over more and more steps later.

    Args:
        model: Whose parameters and buffers are averaged.
        decay: Decay per step at the end of the run; it grows with the cube of the progress.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self.slow = [tensor.clone() for tensor in self._live()]

    def update(self, steps: int, progress: float) -> None:
        """After ``steps`` steps, at the fraction ``progress`` of the run."""
        if steps % _EVERY == 0:
            follow = 1 - self._decay**_EVERY * progress**3
            torch._foreach_lerp_(self.slow, self._live(), follow)
            self.take()

    def take(self) -> None:
        """Set the network to the slow weights."""
        torch._foreach_copy_(self._live(), self.slow)

    @torch.no_grad()
    def hold(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave parameters as they are now, as long as nobody changes them."""
        held = {parameter.data_ptr() for parameter in parameters}
        for slow, live in zip(self.slow, self._live(), strict=True):
            if live.data_ptr() in held:
                slow.copy_(live)

    def _live(self) -> list[Tensor]:
        return [t for t in _tensors(self._model) if t.is_floating_point()]


def _tensors(model: nn.Module) -> list[Tensor]:
    """Those of its state, which may hold other things that a module wants to be kept."""
    return [value for value in model.state_dict().values() if isinstance(value, Tensor)]
