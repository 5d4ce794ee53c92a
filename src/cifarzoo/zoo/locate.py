"""Where weights lie: in the package, with an index of them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from cifarzoo.zoo.registry import WeightsInfo

__all__ = ["FOLDER", "shipped_seeds", "shipped_weights"]

FOLDER = Path(__file__).parents[1] / "pretrained"


def shipped_weights(model: str) -> dict[str, WeightsInfo]:
    """The weights of ``model`` that come with the package, by tag."""
    return {
        tag: WeightsInfo(path=FOLDER / entry["file"], sha256=entry["sha256"])
        for tag, entry in _index().get(model, {}).items()
    }


def shipped_seeds(model: str, tag: str) -> list[dict[str, Any]]:
    """Accuracy and time of every seed trained like these weights.

    Empty when only the metadata of the file tells of them.
    """
    seeds: list[dict[str, Any]] = _index().get(model, {}).get(tag, {}).get("seeds", [])
    return seeds


@functools.cache
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return index
