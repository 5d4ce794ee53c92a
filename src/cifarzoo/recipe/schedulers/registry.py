"""Learning-rate schedules: a name, or any factory of a torch ``LRScheduler``.

A factory is called with ``(optimizer, epochs, steps_per_epoch)``. The Trainer calls ``step()`` of
what it returns after every optimizer step; a ``ReduceLROnPlateau`` is stepped once an epoch with
the validation loss (the training loss when there is no validation set).

Names beginning with ``timm.`` are timm's schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cifarzoo.errors import ArgumentError
from cifarzoo.frozen import thaw
from cifarzoo.names import check_factory, check_options, keyword_options, registering, unknown_name
from cifarzoo.recipe.schedulers import timm

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
        name: Name of the scheduler; must be new.

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
    return registering(_FACTORIES, "scheduler", name, is_free=not str(name).startswith("timm."))


def list_schedulers() -> list[str]:
    """List the names of all schedulers, sorted."""
    return sorted([*_FACTORIES, *(f"timm.{name}" for name in timm.NAMES)])


def check_scheduler(name: str, options: Mapping[str, Any]) -> None:
    """Raise when ``name`` is unknown or takes no such ``options``, before any work is done."""
    if name not in list_schedulers():
        raise unknown_name("scheduler", name, list_schedulers(), hint="See list_schedulers().")
    if options:
        allowed = (
            set(keyword_options(_FACTORIES[name])) if name in _FACTORIES else timm.list_options()
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
    """Build the scheduler named ``scheduler``, or call ``scheduler`` if it is a factory.

    Args:
        scheduler: A name of `list_schedulers`, or a factory
            ``(optimizer, epochs, steps_per_epoch) -> LRScheduler``.
        optimizer: Optimizer, whose learning rates are the highest of the schedule.
        epochs: Length of the run in epochs.
        steps_per_epoch: Number of optimizer steps in one epoch.
        options: Keyword options of the factory.

    Raises:
        UnknownNameError: No scheduler has this name.
        ArgumentError: An option does not exist, or the factory does not return a scheduler.
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
            return timm.TimmScheduler(optimizer, name[5:], epochs, steps_per_epoch, options)
        return _FACTORIES[name](optimizer, epochs, steps_per_epoch, **options)
    except ArgumentError:
        raise
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
        raise ArgumentError(f"scheduler {name!r} cannot be built: {error}") from error
