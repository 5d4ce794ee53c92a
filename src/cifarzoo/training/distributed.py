"""Several processes under ``torchrun``: who this is, and what they tell each other."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["World", "joined_world"]


@dataclasses.dataclass(frozen=True)
class World:
    """The processes that train together; one alone outside ``torchrun``.

    Args:
        rank: Number of this process.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

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
    """Join the processes that ``torchrun`` started, for as long as the block runs."""
    if dist.is_available() and dist.is_initialized():  # the caller has set it up
        yield World(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    on_gpu = device.type == "cuda"
    # what a collective allocates by itself lies on the GPU of this process
    with torch.cuda.device(device) if on_gpu else contextlib.nullcontext():
        dist.init_process_group("nccl" if on_gpu else "gloo")
        try:
            yield World(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
