"""timm's learning-rate schedules behind torch's interface; timm is imported when one is used."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifarzoo.errors import ArgumentError

__all__ = ["NAMES", "TimmScheduler", "list_options"]

NAMES = ("cosine", "multistep", "poly", "rsqrt", "step", "tanh", "wsd")
# set by us from epochs and steps, or belonging to the plateau schedule that torch serves better
_OURS = {
    "optimizer",
    "sched",
    "num_epochs",
    "step_on_epochs",
    "updates_per_epoch",
    "plateau_mode",
    "patience_epochs",
    "cooldown_epochs",
    "warmup_prefix",
}


def list_options() -> set[str]:
    """Keyword options that a recipe may give to them."""
    from timm.scheduler import create_scheduler_v2

    return set(inspect.signature(create_scheduler_v2).parameters) - _OURS


class TimmScheduler(LRScheduler):
    """A timm scheduler behind torch's interface; its rate depends on the step number alone."""

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        epochs: int,
        steps_per_epoch: int,
        options: Mapping[str, Any],
    ) -> None:
        import timm
        from timm.scheduler import create_scheduler_v2

        # torch's own __init__ would already take a step; timm keeps all the state there is
        self.optimizer = optimizer
        self._schedule, _ = create_scheduler_v2(
            optimizer,
            sched=name,
            num_epochs=epochs,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
            **options,
        )
        if self._schedule is None:  # timm's answer to a name it does not know
            raise ArgumentError(
                f"timm {timm.__version__} has no schedule {name!r}; upgrade timm, or take another"
            )
        for step in (
            *range(0, epochs * steps_per_epoch, max(1, epochs * steps_per_epoch // 16)),
            0,
        ):
            self._move_to(step)  # an option of another kind is not looked at before
            if not all(0 <= rate < math.inf for rate in self.get_last_lr()):
                raise ArgumentError(
                    f"the learning rate at step {step} would be infinite, negative or NaN"
                )

    def _move_to(self, step: int) -> None:
        self.last_epoch = step
        self._schedule.step_update(step)

    def step(self, epoch: int | None = None) -> None:
        """Move to the next optimizer step."""
        self._move_to(self.last_epoch + 1 if epoch is None else epoch)

    def get_last_lr(self) -> list[Any]:
        """The current learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The step number."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the step in ``state_dict``."""
        self._move_to(state_dict["last_epoch"])
