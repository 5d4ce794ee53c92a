"""What the layers share that stand in for torch's own."""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar

from torch import nn

__all__ = ["NOTES", "StandIn"]

NOTES = ("keeps_contiguous", "waits_for")
"""What is noted on a layer for the time of a block, and is nothing of its copies'."""


class StandIn:
    """A layer of the class ``stock`` that computes in another way; copies and pickles are stock."""

    stock: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # what object does in protocol 0, which names the class where later ones look at the object
        own = {name: value for name, value in self.__dict__.items() if name not in NOTES}
        return copyreg._reconstructor, (self.stock, object, None), own  # type: ignore[attr-defined]
