"""The library's own schedules.

Each is a pure function of the time in epochs, scaled by the optimizer's learning rate, which is the
peak.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cifarzoo.errors import ArgumentError
from cifarzoo.names import whole_number
from cifarzoo.recipe.schedulers.registry import register_scheduler

__all__: list[str] = []  # they are known by name

_LOOKS = 16  # at a schedule, before it is used


def _schedule(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    factor: Callable[[float], float],
    *,
    warmup_epochs: float = 0.0,
) -> LambdaLR:
    """Scale the peak by ``factor(time in epochs)``, rising linearly over the warm-up.

    A group of parameters that is frozen at a fraction of the run passes through all of it by then.
    """
    if not 0 <= warmup_epochs < math.inf:
        raise ArgumentError(f"warmup_epochs must be at least 0; got {warmup_epochs}")
    _check_factor(factor, epochs)

    def at_step(step: int, speed: float) -> float:
        time = step * speed / steps_per_epoch
        # the first step already learns: a rate of exactly 0 would waste it
        warmup = min(1.0, (time + 1 / steps_per_epoch) / warmup_epochs) if warmup_epochs else 1.0
        return warmup * factor(time)

    speeds = [1 / (group.get("freeze_at") or 1.0) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [functools.partial(at_step, speed=speed) for speed in speeds])


def _check_factor(factor: Callable[[float], float], epochs: int) -> None:
    """Refuse options that would stop a run halfway, or let the learning rate go beyond numbers."""
    for time in (epochs * part / _LOOKS for part in range(_LOOKS + 1)):
        try:
            found = factor(time)
        except ArithmeticError as error:
            raise ArgumentError(f"there is no rate after {time:g} epochs: {error}") from error
        if not 0 <= found < math.inf:  # NaN fails too
            raise ArgumentError(f"the rate after {time:g} epochs would be {found:g} of the peak")


def _falling(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    fall: Callable[[float], float],
    warmup_epochs: float,
    final_factor: float,
) -> LambdaLR:
    """From the peak to ``final_factor`` times the peak, as ``fall`` goes from 1 to 0."""

    def factor(time: float) -> float:
        progress = _ramp(time, warmup_epochs, epochs)
        return final_factor + (1 - final_factor) * fall(progress)

    return _schedule(optimizer, epochs, steps_per_epoch, factor, warmup_epochs=warmup_epochs)


def _ramp(time: float, start: float, end: float) -> float:
    """Progress of ``time`` from ``start`` to ``end``, in 0..1."""
    return min(1.0, max(0.0, (time - start) / max(end - start, 1e-12)))


@register_scheduler("constant")
def constant(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, warmup_epochs: float = 0.0
) -> LambdaLR:
    """Keep the peak learning rate to the end."""
    return _schedule(
        optimizer, epochs, steps_per_epoch, lambda time: 1.0, warmup_epochs=warmup_epochs
    )


@register_scheduler("step")
def step(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    every_epochs: float = 30.0,
    gamma: float = 0.1,
    warmup_epochs: float = 0.0,
) -> LambdaLR:
    """Multiply by ``gamma`` every ``every_epochs`` epochs."""
    if every_epochs <= 0:
        raise ArgumentError(f"every_epochs must be positive; got {every_epochs}")
    return _schedule(
        optimizer,
        epochs,
        steps_per_epoch,
        lambda time: float(gamma ** math.floor(time / every_epochs + 1e-9)),
        warmup_epochs=warmup_epochs,
    )


@register_scheduler("multistep")
def multistep(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    warmup_epochs: float = 0.0,
) -> LambdaLR:
    """Multiply by ``gamma`` after each of the ``milestones``, in epochs."""
    times = sorted(float(m) for m in milestones)
    return _schedule(
        optimizer,
        epochs,
        steps_per_epoch,
        lambda time: float(gamma ** sum(time >= m - 1e-9 for m in times)),
        warmup_epochs=warmup_epochs,
    )


@register_scheduler("cosine")
def cosine(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = 0.0,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Fall by half a cosine to ``final_factor`` times the peak (Loshchilov & Hutter 2017)."""

    def fall(progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2

    return _falling(optimizer, epochs, steps_per_epoch, fall, warmup_epochs, final_factor)


@register_scheduler("onecycle")
def onecycle(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    peak_at: float = 0.3,
    initial_factor: float = 0.04,
    final_factor: float = 4e-6,
    anneal: str = "cos",
) -> LambdaLR:
    """Rise to the peak, then fall to almost nothing (Smith & Topin 2018).

    The defaults are those of torch's ``OneCycleLR``, but the momentum does not change.
    """
    if not 0 < peak_at < 1:
        raise ArgumentError(f"peak_at is a fraction of the run in 0..1; got {peak_at}")
    if anneal not in ("cos", "linear"):
        raise ArgumentError(f"anneal must be 'cos' or 'linear'; got {anneal!r}")
    last = epochs * steps_per_epoch - 1
    peak = peak_at * (last + 1) - 1

    def between(start: float, end: float, progress: float) -> float:
        if anneal == "cos":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return start + (end - start) * progress

    def factor(time: float) -> float:
        now = time * steps_per_epoch
        if now <= peak:
            return between(initial_factor, 1.0, _ramp(now, 0, peak))
        return between(1.0, final_factor, _ramp(now, peak, last))

    return _schedule(optimizer, epochs, steps_per_epoch, factor)


@register_scheduler("linear")
def linear(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = 0.0,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Fall in a straight line to ``final_factor`` times the peak; a triangle with warm-up."""

    def fall(progress: float) -> float:
        return 1 - progress

    return _falling(optimizer, epochs, steps_per_epoch, fall, warmup_epochs, final_factor)


@register_scheduler("polynomial")
def polynomial(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    power: float = 2.0,
    warmup_epochs: float = 0.0,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Fall to ``final_factor`` times the peak, by a power of the time that is left."""

    def fall(progress: float) -> float:
        return float((1 - progress) ** power)

    return _falling(optimizer, epochs, steps_per_epoch, fall, warmup_epochs, final_factor)


@register_scheduler("plateau")
def plateau(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    gamma: float = 0.1,
    patience: int = 5,
    min_learning_rate: float = 0.0,
) -> ReduceLROnPlateau:
    """Multiply by ``gamma`` if the loss has not improved for more than ``patience`` epochs."""
    if not 0 < gamma < 1:
        raise ArgumentError(f"gamma of 'plateau' must lie between 0 and 1; got {gamma}")
    if whole_number(patience) is None or patience < 0:
        raise ArgumentError(f"patience must be a whole number of at least 0; got {patience}")
    if not 0 <= min_learning_rate < math.inf:
        raise ArgumentError(f"min_learning_rate must be at least 0; got {min_learning_rate}")
    return ReduceLROnPlateau(optimizer, factor=gamma, patience=patience, min_lr=min_learning_rate)
