"""The network of the best epoch, kept beside the one that is trained."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn

from cifarzoo.training.restoring import BestState, take_like
from cifarzoo.zoo.card import unwrap

__all__ = ["Best"]


class Best:
    """What a network was when the validation images liked it most; the first one of equals."""

    def __init__(self) -> None:
        self.epoch = 0
        self.accuracy = -math.inf
        self._state: dict[str, Any] = {}

    def see(self, network: nn.Module, epoch: int, accuracy: float) -> None:
        """Keep ``network`` as it is, if no epoch before was as good."""
        if accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self._state = copy.deepcopy({**network.state_dict()})

    def hand_over(self, model: nn.Module) -> None:
        """Give ``model`` what was kept."""
        unwrap(model).load_state_dict(self._state)

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain data; `from_dict` reads it back."""
        return {"epoch": self.epoch, "accuracy": self.accuracy, "state": self._state}

    @classmethod
    def from_dict(cls, data: BestState | None, network: nn.Module) -> Best:
        """Read what `to_dict` wrote of ``network``; a run that did not keep any has none.

        Raises:
            CheckpointError: It is of another network.
        """
        found = cls()
        if data is not None:
            found.epoch, found.accuracy = data["epoch"], data["accuracy"]
            found._state = take_like(data["state"], network.state_dict(), "best.state")
        return found
