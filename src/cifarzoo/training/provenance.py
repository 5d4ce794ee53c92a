"""What a run is made of, beside its recipe: model, data, precision, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifarzoo.compute.machine import library_versions
from cifarzoo.data import ImageSet
from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten
from cifarzoo.runs import network_sha256
from cifarzoo.training.loggers import EarlyStopping
from cifarzoo.zoo.card import get_card

if TYPE_CHECKING:
    from cifarzoo.data.feed import Source
    from cifarzoo.training.setup import Data
    from cifarzoo.training.trainer import Trainer

__all__ = ["checksums", "describe_run"]

_KNOWN = ("model", "data_name", "data_images", "val_name", "val_images")  # better than by metadata


def checksums(data: Data, known: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the sets of images in ``data``; what is ``known`` is not computed again."""
    return {
        name: str(known[name]) if name in known else images.sha256()
        for name, images in (("data_sha256", data.train), ("val_sha256", data.val))
        if isinstance(images, ImageSet)
    }


def describe_run(trainer: Trainer, data: Data, found: Mapping[str, str]) -> dict[str, Any]:
    """The facts about a run that are kept in its folder, as plain data.

    ``resuming`` tells whether the command line can build it again: the network is compared by its
    checksum, and what a program alone can provide is named.

    Args:
        trainer: The Trainer.
        data: What it trains on and measures.
        found: The `checksums` of it.

    Raises:
        ArgumentError: The Trainer's metadata says something else of them.
    """
    train, val = data.train, data.val
    card = get_card(trainer.model)
    alone = {
        f"training data that is a {type(train).__name__}": not isinstance(train, ImageSet),
        f"validation data that is a {type(val).__name__}": not isinstance(val, ImageSet | None),
        "a stated number of steps_per_epoch": data.steps_per_epoch is not None,
        "an optimizer of its own": not isinstance(trainer.optimizer, str),
        "a scheduler of its own": not isinstance(trainer.scheduler, str),
        "a teacher": trainer.teacher is not None,
        "a loss of its own": trainer.loss is not None,
        "a transform of its own": trainer.transform is not None,
        "the best epoch to keep": trainer.keep == "best",
        "early stopping": any(isinstance(each, EarlyStopping) for each in trainer.loggers),
    }
    facts = {
        "model": card.name,
        **_describe_images("data", train),
        **_describe_images("val", val),
        **found,
        "precision": trainer.place.precision_name,
        "compile": trainer.compile,
        "versions": library_versions(),
        "resuming": {
            "card": card.to_dict(),
            "network_sha256": network_sha256(trainer.model),
            "only_in_python": [name for name, is_so in alone.items() if is_so],
        },
    }
    for name in _KNOWN:
        if name in facts and trainer.metadata.get(name, facts[name]) != facts[name]:
            raise ArgumentError(
                f"metadata says that {name} is {shorten(trainer.metadata[name])}, and it is "
                f"{facts[name]!r}; give your fact another name"
            )
    return {**facts, **trainer.metadata}


def _describe_images(role: str, images: Source | None) -> dict[str, Any]:
    """Name and number of a set."""
    if not isinstance(images, ImageSet):
        return {}
    return {f"{role}_name": images.name, f"{role}_images": len(images)}
