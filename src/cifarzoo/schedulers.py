"""Learning-rate schedules: a name, or any factory of a torch ``LRScheduler``.

A factory is called with ``(optimizer, epochs, steps_per_epoch)``. The Trainer calls ``step()`` of
what it returns after every optimizer step; a ``ReduceLROnPlateau`` is stepped once an epoch with
the validation loss (the training loss when there is no validation set).

Every schedule here is a pure function of the time in epochs, scaled by the optimizer's learning
rate, which is the peak. Names beginning with ``timm.`` are timm's schedulers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from cifarzoo import timm_schedulers
from cifarzoo.errors import ArgumentError, DuplicateNameError
from cifarzoo.frozen import thaw
from cifarzoo.names import check_factory, check_options, keyword_options, unknown_name

__all__ = [
    "SchedulerFactory",
    "build_scheduler",
    "check_scheduler",
    "list_schedulers",
    "register_scheduler",
]

SchedulerFactory = Callable[..., LRScheduler]
"""``(optimizer, epochs, steps_per_epoch, *, options) -> LRScheduler``."""

_Factory = TypeVar("_Factory", bound=SchedulerFactory)
_FACTORIES: dict[str, SchedulerFactory] = {}


def register_scheduler(name: str) -> Callable[[_Factory], _Factory]:
    """Make a factory available by ``name`` in recipes and on the command line.

    Args:
        name: The name; must be new.

    Returns:
        A decorator that returns the factory unchanged. The factory's keyword-only parameters are
        the options that a recipe may set in ``scheduler_options``.

    Raises:
        DuplicateNameError: The name is taken.

    Example:
        >>> @register_scheduler("halving")
        ... def halving(optimizer, epochs, steps_per_epoch, *, every=1.0):
        ...     return LambdaLR(optimizer, lambda s: 0.5 ** (s / steps_per_epoch // every))
        >>> "halving" in list_schedulers()
        True
    """

    def register(factory: _Factory) -> _Factory:
        if name in _FACTORIES or name.startswith("timm."):
            raise DuplicateNameError(f"scheduler {name!r} is already registered; choose another")
        _FACTORIES[name] = factory
        return factory

    return register


def list_schedulers() -> list[str]:
    """Names of all schedulers, sorted."""
    return sorted([*_FACTORIES, *(f"timm.{name}" for name in timm_schedulers.NAMES)])


def check_scheduler(name: str, options: Mapping[str, Any]) -> None:
    """Raise when ``name`` is unknown or takes no such ``options``, before any work is done."""
    if name not in list_schedulers():
        raise unknown_name("scheduler", name, list_schedulers(), hint="See list_schedulers().")
    if options:
        allowed = (
            set(keyword_options(_FACTORIES[name]))
            if name in _FACTORIES
            else timm_schedulers.list_options()
        )
        check_options(f"scheduler {name!r}", options, allowed)


def build_scheduler(
    scheduler: str | SchedulerFactory,
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    options: Mapping[str, Any] | None = None,
) -> LRScheduler:
    """Build the scheduler named ``scheduler``, or call it when it is a factory.

    Args:
        scheduler: A name of `list_schedulers` or a factory.
        optimizer: Its learning rates are the schedule's peak.
        epochs: Length of the run in epochs.
        steps_per_epoch: Optimizer steps in one epoch.
        options: Keyword options of the factory.

    Raises:
        UnknownNameError: No scheduler has this name.
        ArgumentError: An option does not exist, or the factory returned something else.
    """
    options = thaw(options or {})
    if isinstance(scheduler, str):
        check_scheduler(scheduler, options)
        built = _build_named(scheduler, optimizer, epochs, steps_per_epoch, options)
    else:
        check_factory("a scheduler", scheduler, "optimizer, epochs, steps", "optimizer, ...")
        built = scheduler(optimizer, epochs, steps_per_epoch, **options)
    if not isinstance(built, LRScheduler | ReduceLROnPlateau):
        raise ArgumentError(
            f"a scheduler factory must return a torch LRScheduler; got {type(built).__name__}"
        )
    return built


def _build_named(
    name: str,
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    options: Mapping[str, Any],
) -> LRScheduler:
    try:
        if name.startswith("timm."):
            return timm_schedulers.TimmScheduler(
                optimizer, name[5:], epochs, steps_per_epoch, options
            )
        return _FACTORIES[name](optimizer, epochs, steps_per_epoch, **options)
    except ArgumentError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        raise ArgumentError(f"scheduler {name!r} cannot be built: {error}") from error


def _schedule(
    optimizer: Optimizer,
    steps_per_epoch: int,
    factor: Callable[[float], float],
    *,
    warmup_epochs: float = 0.0,
) -> LambdaLR:
    """Scale the peak by ``factor(time in epochs)``, rising linearly over the warm-up.

    A group of parameters that is frozen at a fraction of the run passes through all of it by then.
    """
    if warmup_epochs < 0:
        raise ArgumentError(f"warmup_epochs must be at least 0; got {warmup_epochs}")

    def at_step(step: int, speed: float) -> float:
        time = step * speed / steps_per_epoch
        # the first step already learns: a rate of exactly 0 would waste it
        warmup = min(1.0, (time + 1 / steps_per_epoch) / warmup_epochs) if warmup_epochs else 1.0
        return warmup * factor(time)

    speeds = [1 / (group.get("freeze_at") or 1.0) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [functools.partial(at_step, speed=speed) for speed in speeds])


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

    return _schedule(optimizer, steps_per_epoch, factor, warmup_epochs=warmup_epochs)


def _ramp(time: float, start: float, end: float) -> float:
    """Progress of ``time`` from ``start`` to ``end``, in 0..1."""
    return min(1.0, max(0.0, (time - start) / max(end - start, 1e-12)))


@register_scheduler("constant")
def constant(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, warmup_epochs: float = 0.0
) -> LambdaLR:
    """The peak learning rate throughout."""
    return _schedule(optimizer, steps_per_epoch, lambda time: 1.0, warmup_epochs=warmup_epochs)


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
    """Half a cosine from the peak to ``final_factor`` times the peak (Loshchilov & Hutter 2017)."""

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

    Defaults are those of torch's ``OneCycleLR``, with the momentum left alone.
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

    return _schedule(optimizer, steps_per_epoch, factor)


@register_scheduler("linear")
def linear(
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = 0.0,
    final_factor: float = 0.0,
) -> LambdaLR:
    """A straight line from the peak to ``final_factor`` times the peak; triangular with warm-up."""

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
    """From the peak to ``final_factor`` times the peak by a power of the time that is left."""

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
    """Multiply by ``gamma`` when the loss has not improved for ``patience`` epochs."""
    return ReduceLROnPlateau(optimizer, factor=gamma, patience=patience, min_lr=min_learning_rate)
