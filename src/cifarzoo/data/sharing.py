"""Sources of batches of one's own in a training of several processes, and epoch after epoch."""

from __future__ import annotations

import logging
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
    """Tell a source, its samplers and its data set that epoch ``number``, from 0, begins.

    Without it, torch's DistributedSampler draws the same order in every epoch.
    """
    for each in (*samplers_of(source), getattr(source, "dataset", None)):
        tell = getattr(each, "set_epoch", None)
        if callable(tell):
            tell(number)


def check_share(source: Any, rank: int, world_size: int, *, may_have_all: bool = False) -> None:
    """See that each process gets a share of its own.

    Args:
        source: A `Loader` or batches of one's own.
        rank: Number of this process.
        world_size: How many there are.
        may_have_all: Whether each process may have all, too, as for a measurement.

    Raises:
        ArgumentError: A Loader makes another share.
    """
    if isinstance(source, Loader):
        share = (source.rank, source.world_size)
        if share == (rank, world_size) or (may_have_all and share == (0, 1)):
            return
        raise ArgumentError(
            f"the Loader makes share {share[0]} of {share[1]}, and this is process {rank} of "
            f"{world_size}: pass the ImageSet, which is divided here, or "
            f"Loader(..., rank={rank}, world_size={world_size})"
        )
    is_whole = isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset)
    if world_size > 1 and rank == 0 and is_whole and not may_have_all and not _is_shared(source):
        _log.warning(
            "each of the %d processes takes all batches of the DataLoader, which has no "
            "DistributedSampler: build it with sampler=DistributedSampler(dataset), or pass an "
            "ImageSet",
            world_size,
        )


def _is_shared(source: Any) -> bool:
    """Whether a DataLoader's sampler, or accelerate's of its batches, knows of other processes."""
    known = ("num_replicas", "num_processes", "world_size")
    return any(hasattr(each, name) for each in samplers_of(source) for name in known)
