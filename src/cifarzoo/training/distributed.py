"""Several processes under ``torchrun``: who this is, and what they tell each other."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError, PeerError

__all__ = ["World", "is_first_process", "joined_world"]

_TIMEOUT = 600.0  # seconds; an epoch's end, where one process alone writes, takes far less
_PATIENCE = 20.0  # seconds; torchrun kills after 30
_GRACE = 5.0  # seconds, in which torch's own error comes, where it has one


def is_first_process() -> bool:
    """Whether this process writes; of those that ``torchrun`` has started, one alone does."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return alone or int(os.environ.get("RANK", "0")) == 0


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that train together; one alone outside ``torchrun``.

    Args:
        rank: Number of this process.
        size: How many there are.
        patience: Seconds for which a signal may wait while this process waits for others; None
            for one process alone.
    """

    rank: int = 0
    size: int = 1
    patience: float | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of all processes, in their order; each may have another number."""
        if self.size == 1:
            return rows
        counts = rows.new_zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        counts = self.sum(counts)
        start = int(counts[: self.rank].sum())
        everything = rows.new_zeros(int(counts.sum()), *rows.shape[1:])
        everything[start : start + len(rows)] = rows
        return self.sum(everything)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` is set in any process."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=device)).item())

    def share(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Average gradients over the processes."""
        if self.size == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def alone(self, network: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Within the block gradients stay with this process, if that is ``wanted``."""
        if self.size == 1 or not wanted:
            return contextlib.nullcontext()
        no_sync: Any = getattr(network, "_orig_mod", network).no_sync
        return no_sync()  # type: ignore[no-any-return]


@contextlib.contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started, for as long as the block runs.

    A process waits for the others at most ten minutes, or ``$CIFARZOO_RANK_TIMEOUT`` seconds.

    Raises:
        PeerError: Another process has ended, or does not answer in time.
        ArgumentError: ``$CIFARZOO_RANK_TIMEOUT`` is no number of seconds.
    """
    if dist.is_available() and dist.is_initialized():  # the caller has set it up
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    timeout = _timeout()
    with _current(device), _peers_named(timeout):
        _meet(device, timeout)
        try:
            yield World(dist.get_rank(), dist.get_world_size(), min(_PATIENCE, timeout / 4))
        finally:
            dist.destroy_process_group()


def _meet(device: torch.device, timeout: float) -> None:
    """Wait until all processes are there.

    They meet through the first one. Where that stands still meanwhile, torch waits without end, so
    it waits in a thread of its own.
    """
    failed: list[BaseException] = []
    is_late = threading.Event()

    def meet() -> None:
        try:
            with _current(device):
                limit = datetime.timedelta(seconds=timeout)
                backend = "nccl" if device.type == "cuda" else "gloo"
                dist.init_process_group(backend, timeout=limit)
            if is_late.is_set():
                dist.destroy_process_group()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=meet, name="meeting", daemon=True)
    thread.start()
    thread.join(timeout + _GRACE)
    if thread.is_alive():
        is_late.set()
        raise dist.DistError("they have not met")
    if failed:
        raise failed[0]


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within the block, what a collective allocates by itself lies on the GPU of this process."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _timeout() -> float:
    text = os.environ.get("CIFARZOO_RANK_TIMEOUT") or str(_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise ArgumentError(f"$CIFARZOO_RANK_TIMEOUT must be a number of seconds; got {text!r}")
    return seconds


@contextlib.contextmanager
def _peers_named(timeout: float) -> Iterator[None]:
    """Tell errors that other processes cause from those of this one."""
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        # the CPU's backend raises plain errors, which name a file of its own
        if not (isinstance(error, dist.DistError) or "gloo" in first):
            raise
        raise PeerError(
            "another process of this run has ended, or has not answered for "
            f"{timeout:g} s ({first}); the last saved checkpoint is whole: look for the error of "
            "that process, then start all of them again with resume=True"
        ) from error
