"""Sources of batches of one's own in a training of several processes, and epoch after epoch."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from cifarzoo.data.loader import Loader
from cifarzoo.errors import ArgumentError

__all__ = ["check_share", "samplers_of", "set_epoch"]

_log = logging.getLogger("cifarzoo")


def samplers_of(source: Any) -> list[Any]:
    """``source`` and whatever a DataLoader draws its batches by, each once."""
    outer = (source, getattr(source, "sampler", None), getattr(source, "batch_sampler", None))
    found = [each for one in outer for each in (one, getattr(one, "sampler", None))]
    return [*{id(each): each for each in found if each is not None}.values()]


def set_epoch(source: Any, number: int) -> None:
    """Tell a source, its samplers and its data set that pass ``number``, from 0, begins.

    Without it, torch's DistributedSampler draws the same order in every epoch. Methods that take
    something else are others of this name.
    """
    for each in (*samplers_of(source), getattr(source, "dataset", None)):
        tell = getattr(each, "set_epoch", None)
        if callable(tell) and _takes(tell, number):
            tell(number)


def _takes(function: Callable[..., Any], argument: Any) -> bool:
    try:
        inspect.signature(function).bind(argument)
    except (TypeError, ValueError):
        return False
    return True


def check_share(source: Any, rank: int, world_size: int, *, may_have_all: bool = False) -> None:
    """See that each process gets a share of its own.

    Args:
        source: A `Loader` or batches of one's own.
        rank: Number of this process.
        world_size: How many there are.
        may_have_all: Whether each process may have all, too, as for a measurement.

    Raises:
        ArgumentError: A Loader makes the share of another process.
    """
    if isinstance(source, Loader) and (source.rank, source.world_size) != (rank, world_size):
        if source.world_size > 1:
            raise ArgumentError(
                f"the Loader makes share {source.rank} of {source.world_size}, and this is process "
                f"{rank} of {world_size}: pass the ImageSet, which is divided here, or "
                f"Loader(..., rank={rank}, world_size={world_size})"
            )
    elif not isinstance(source, DataLoader) or _is_shared(source):
        return
    if world_size > 1 and rank == 0 and not may_have_all:
        _log.warning(
            "each of the %d processes takes all batches of its %s, which is right only if each "
            "has images of its own: otherwise pass an ImageSet, which is divided here, or give a "
            "DataLoader sampler=DistributedSampler(dataset)",
            world_size,
            type(source).__name__,
        )


def _is_shared(source: Any) -> bool:
    """Whether a DataLoader's sampler, or accelerate's of its batches, knows of other processes.

    Of a stream nothing is known.
    """
    known = ("num_replicas", "num_processes", "world_size")
    has_shares = any(hasattr(each, name) for each in samplers_of(source) for name in known)
    return has_shares or isinstance(source.dataset, IterableDataset)
