"""What a run sees, and how it computes, beside its recipe: chosen once, by the Trainer."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import nn

from cifarzoo.compute.place import Place
from cifarzoo.data.feed import Source
from cifarzoo.data.loader import Transform
from cifarzoo.recipe.optimizers import OptimizerFactory
from cifarzoo.recipe.schedulers import SchedulerFactory
from cifarzoo.training.distributed import World
from cifarzoo.training.objective import Loss

__all__ = ["Data", "Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the steps of a run are made with.

    Args:
        place: Where, and in which precision; parameters stay float32.
        world: The processes that average their gradients.
        optimizer: A name or a factory.
        scheduler: A name or a factory.
        loss: In place of the recipe's cross-entropy.
        teacher: A trained network to learn from as well, in evaluation mode and on the device.
        compile: Let torch.compile fuse the network; "auto" where the run is long enough.
        kernels: Let layers compute as they are fastest on a CPU, see `cpu_kernels`.
    """

    place: Place
    world: World
    optimizer: str | OptimizerFactory
    scheduler: str | SchedulerFactory
    loss: Loss | None = None
    teacher: nn.Module | None = None
    compile: bool | Literal["auto"] = False
    kernels: bool = True


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run sees.

    Args:
        train: To learn from.
        val: To measure after every epoch; None for nothing.
        steps_per_epoch: Optimizer steps in an epoch, for a source without a length.
        transform: A change of uint8 batches of an ImageSet, after the recipe's own.
    """

    train: Source
    val: Source | None = None
    steps_per_epoch: int | None = None
    transform: Transform | None = None
