"""Where weights lie: in the package, at an address, in a file or a run's folder.

Here alone is decided whether what somebody wrote is a path, a model, or a tag of its weights.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from os import PathLike
from pathlib import Path
from typing import Any

from cifarzoo.errors import ArgumentError, WeightsError
from cifarzoo.files.downloads import addresses, download
from cifarzoo.files.paths import user_path
from cifarzoo.files.progress import byte_bar
from cifarzoo.files.writing import cache_directory, file_digest
from cifarzoo.zoo.registry import ModelSpec, WeightsInfo, get_model_info, list_models
from cifarzoo.zoo.weights import find_weights

__all__ = [
    "FOLDER",
    "SUFFIXES",
    "Found",
    "find_any",
    "find_of_model",
    "locate_weights",
    "shipped_seeds",
    "shipped_weights",
    "split_tag",
]

FOLDER = Path(__file__).parents[1] / "pretrained"
"""Of the weights that come with the package, and their index."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".th")
"""Of weights files."""


@dataclasses.dataclass(frozen=True)
class Found:
    """Weights, and what is known about them.

    Args:
        path: The file.
        model: The name of the zoo they were asked for by; empty for a file.
        tag: Which of that model's weights.
        is_intact: Whether the file was compared with the checksum in the registry.
    """

    path: Path
    model: str = ""
    tag: str = ""
    is_intact: bool = False


def find_any(text: str | PathLike[str]) -> Found:
    """The weights that a command is about: a file, a run's folder, MODEL or MODEL.TAG.

    Raises:
        WeightsError: There is no such file.
        UnknownNameError: It looks like a name, and is none.
    """
    path = user_path(text)
    name, tag = split_tag(str(text))
    if not path.exists() and path.suffix not in SUFFIXES and name in list_models():
        return find_of_model(get_model_info(name), tag or True)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return Found(find_weights(path))
    return find_of_model(get_model_info(str(text)), True)  # says which names it may mean


def find_of_model(spec: ModelSpec, text: bool | str | PathLike[str]) -> Found:
    """The weights that ``create_model(spec.name, pretrained=text)`` is about.

    Args:
        spec: The model.
        text: True for its default weights, a tag of them, or a path.

    Raises:
        ArgumentError: It has no such weights, and there is no such file.
        WeightsError: They are missing or damaged.
    """
    tag = "default" if text is True else str(text)
    if tag in spec.weights:
        return Found(locate_weights(spec, tag), spec.name, tag, is_intact=True)
    path = user_path(tag)
    if text is not True and (path.exists() or path.suffix or len(path.parts) > 1):
        return Found(find_weights(path))
    if not spec.weights:
        raise ArgumentError(
            f"model {spec.name!r} has no pretrained weights"
            + ("" if text is True else f" and there is no file {tag!r}")
            + "; see list_models(pretrained=True)"
        )
    if text is True:
        raise ArgumentError(
            f"model {spec.name!r} has no default weights; it has {', '.join(spec.weights)}"
        )
    return Found(locate_weights(spec, tag), spec.name, tag)  # says which tags there are


def split_tag(text: str) -> tuple[str, str]:
    """``MODEL.TAG`` as both, or ``MODEL`` and an empty tag."""
    name, _, tag = text.partition(".")
    return name, tag


def locate_weights(spec: ModelSpec, tag: str = "default") -> Path:
    """The file of a model's pretrained weights, intact; fetched first where it has an address.

    Args:
        spec: The model.
        tag: Which of ``spec.weights``.

    Raises:
        UnknownNameError: The model has no such weights.
        WeightsError: The file is missing or damaged.
        DownloadError: It could not be fetched; what arrived is continued by the next call.
    """
    info = spec.get_weights(tag)
    path = Path(info.path)
    if info.url is None:
        if not path.is_file():
            raise WeightsError(f"{path} is missing; install cifarzoo again")
        if file_digest(path) != info.sha256:
            raise WeightsError(f"{path} is damaged: its sha256 differs; install cifarzoo again")
        return path
    if path.parent == Path():
        path = cache_directory() / "weights" / path
    if not path.is_file() or file_digest(path) != info.sha256:
        folder, _, name = info.url.rpartition("/")
        urls = addresses([folder], name)
        with byte_bar(path.name) as advance:
            download(urls, path, checksum=info.sha256, algorithm="sha256", advance=advance)
    return path


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
