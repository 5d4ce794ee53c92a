"""What was read of a file, or of a state dict in memory, before any network is filled from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError, WeightsError
from cifarzoo.names import texts
from cifarzoo.plain import shorten
from cifarzoo.zoo.card import ModelCard
from cifarzoo.zoo.foreign import Reading, read_names

__all__ = ["Content", "check_reading", "list_some", "not_finite", "parse_card"]

_SOME = 5  # names in a message


class Content(NamedTuple):
    """What a file holds, or a state dict in memory, and how to look at it.

    Args:
        name: What to call it in a message.
        tensors: All of its tensors, by their dotted names.
        facts: What `read_metadata` returns; empty for files of others.
        key: Where in it the weights lie.
        rename: Names in it, or their beginnings, and what the network calls them.
        is_intact: Whether the whole file was compared with a checksum already.
    """

    name: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = MappingProxyType({})
    key: str | None = None
    rename: Mapping[str, str] = MappingProxyType({})
    is_intact: bool = False

    @property
    def card(self) -> ModelCard | None:
        """The card in it; None for files of others."""
        if not self.facts:
            return None
        return parse_card(self.facts["card"], self.name, is_intact=self.is_intact)

    def read(self, network: nn.Module) -> Reading:
        """Find ``network`` in it by its names.

        Raises:
            WeightsError: Nothing lies under ``key``, ``rename`` names nothing, or there are several
                such networks.
        """
        found = self.tensors
        if self.key is not None:
            beginning = f"{self.key.removesuffix('.')}."
            found = {each: t for each, t in self.tensors.items() if each.startswith(beginning)}
            if not found:
                keys = list(dict.fromkeys(each.partition(".")[0] for each in self.tensors))
                raise WeightsError(
                    f"{self.name} holds no tensors under key={self.key!r}; it has {list_some(keys)}"
                )
        expected = [n for n, value in network.state_dict().items() if isinstance(value, Tensor)]
        layouts = getattr(type(network), "layouts", ())
        reading = read_names(found, expected, layouts, self.rename, origin=self.name)
        unused = [
            old
            for old in self.rename
            if not any(f".{old.removesuffix('.')}." in f".{each}." for each in found)
        ]
        if unused:
            raise WeightsError(f"rename names {list_some(unused)}, which {self.name} does not hold")
        return reading


def parse_card(data: Any, name: str, *, is_intact: bool = False) -> ModelCard:
    """The card in a file's facts; raises WeightsError when it is none."""
    try:
        return ModelCard.from_dict(data, is_intact=is_intact)
    except ArgumentError as error:
        raise WeightsError(f"{name} is damaged: its card cannot be read: {error}") from error


def check_reading(key: Any, rename: Any) -> None:
    """Raise ArgumentError when nothing can lie under ``key``, or ``rename`` renames nothing."""
    if key is not None and not isinstance(key, str):
        raise ArgumentError(f"key must be a text, as in key='model_ema'; got {shorten(key)}")
    is_table = isinstance(rename, Mapping) and texts([*rename, *rename.values()]) is not None
    if rename is not None and not is_table:
        raise ArgumentError(
            "rename must be a dict of texts, as in rename={'backbone': 'features'}; got "
            f"{shorten(rename)}"
        )


def list_some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are, for a message."""
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more


def not_finite(tensors: Mapping[str, Tensor], parameters: Set[str]) -> list[str]:
    """Names of the tensors that hold a number which no network can have."""
    bad = []
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            # a buffer may mark something by infinity, but running statistics do not
            is_finite = name in parameters or ".running_" in name
            extremes = [extreme.item() for extreme in torch.aminmax(tensor)]  # NaN, where one is
            if not all(math.isfinite(e) if is_finite else not math.isnan(e) for e in extremes):
                bad.append(name)
    return bad
