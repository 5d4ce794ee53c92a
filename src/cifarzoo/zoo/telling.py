"""What users are told of a file that was read: what it holds, and what it leaves open."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from cifarzoo.zoo.builds import find_builder
from cifarzoo.zoo.card import ModelCard
from cifarzoo.zoo.content import Content
from cifarzoo.zoo.foreign import Reading, is_average

__all__ = ["left_over", "tell", "warn_of_another", "written_call"]

_log = logging.getLogger("cifarzoo")


def warn_of_another(name: str, made_by: ModelCard, card: ModelCard) -> None:
    """Log that a network computes something else than the one the file was made from."""
    made = written_call(made_by.name, made_by.options)
    if find_builder(card.name) is not None:
        what = "computes something else"
    else:
        what = (
            f"({card.name}) has layers of other kinds or settings, such as strides or pooling, and "
            "may compute something else"
        )
    _log.warning(
        "%s was made by create_model(%s), and this network %s: train it further, or build that",
        *(name, made, what),
    )


def left_over(content: Content, reading: Reading) -> list[str]:
    """What else a file holds: the beginnings of the names that were not read."""
    used = {
        name[:end]
        for name in reading.read
        for end in (i for i, letter in enumerate(name) if letter == ".")
    }
    left: dict[str, None] = {}  # in order, each once
    for name in content.tensors:
        if name not in reading.read:
            parts = name.split(".")
            beginnings = (".".join(parts[: end + 1]) for end in range(len(parts)))
            left[next((each for each in beginnings if each not in used), name)] = None
    return list(left)


def tell(content: Content, reading: Reading, card: ModelCard, *, is_said: bool) -> None:
    """Log what was decided that the file does not say."""
    parts, is_sure = [], is_said
    made_by = content.card
    if made_by is not None and made_by.name != card.name and find_builder(made_by.name) is None:
        is_sure = False
        parts.append(
            f"made from {made_by.name!r}, which the zoo did not build: names and shapes fit "
            f"{card.name!r}, but whether strides, activations and the like are the same is not "
            "in it"
        )
    if reading.prefix and (made_by is None or is_average(reading.prefix, content.tensors)):
        parts.append(f"found under {reading.prefix.removesuffix('.')!r}")
    if is_average(reading.prefix, content.tensors):
        is_sure = False
        parts.append("an average, taken before the plain weights")
    elif content.key is None:
        for each in left_over(content, reading):
            if is_average(f"{each}.", content.tensors):
                is_sure = False
                parts.append(f"{each!r} is no whole network, and was left")
    if reading.renamed:
        peer = f" as {reading.layout.peer} has them" if reading.layout else ""
        parts.append(f"{len(reading.renamed)} names translated{peer}")
    if not is_said:
        mean, std = card.preprocessing.mean, card.preprocessing.std
        parts.append(
            f"how its images were normalized is not in it: mean {mean} and std {std} are assumed, "
            "unless you say it by preprocessing="
        )
    if parts:
        level = logging.INFO if is_sure else logging.WARNING
        _log.log(level, "%s: %s", content.name, "; ".join(parts))


def written_call(name: str, options: Mapping[str, Any]) -> str:
    """The arguments of `create_model` that build a network."""
    return ", ".join((repr(name), *(f"{key}={value!r}" for key, value in options.items())))
