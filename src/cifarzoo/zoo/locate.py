"""Where weights lie: in a package, at an address, in a file or a run's folder.

Here alone is decided whether what somebody wrote is a path, a model, or a tag of its weights.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from cifarzoo.errors import ArgumentError, WeightsError
from cifarzoo.files.paths import user_path
from cifarzoo.files.writing import file_digest
from cifarzoo.names import split_tag
from cifarzoo.zoo.about import place_of
from cifarzoo.zoo.addresses import fetch_address, is_address
from cifarzoo.zoo.packs import find_in_packs, is_installed
from cifarzoo.zoo.registry import ModelSpec, get_model_info, list_models
from cifarzoo.zoo.weights import find_weights

__all__ = [
    "SUFFIXES",
    "Found",
    "find_any",
    "find_of_model",
    "locate_weights",
]

SUFFIXES = (".safetensors", ".pt", ".pth", ".th")
"""Of weights files."""


class Found(NamedTuple):
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
    """The weights that a command is about: a file, a run's folder, an address, MODEL or MODEL.TAG.

    Raises:
        WeightsError: There is no such file.
        DownloadError: It cannot be fetched.
        UnknownNameError: It looks like a name, and is none.
    """
    if is_address(str(text)):
        return _at_address(str(text))
    path = user_path(text)
    known = list_models()
    name, tag = split_tag(str(text), known)
    if not path.exists() and path.suffix not in SUFFIXES and name in known:
        return find_of_model(get_model_info(name), tag or True)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return Found(find_weights(path))
    return find_of_model(get_model_info(str(text)), True)  # says which names it may mean


def find_of_model(spec: ModelSpec, text: bool | str | PathLike[str]) -> Found:
    """The weights that ``create_model(spec.name, pretrained=text)`` is about.

    Args:
        spec: The model.
        text: True for its default weights, a tag of them, a path, or an address.

    Raises:
        ArgumentError: It has no such weights, and there is no such file.
        WeightsError: They are missing or damaged.
    """
    tag = "default" if text is True else str(text)
    if tag in spec.weights:
        return Found(locate_weights(spec, tag), spec.name, tag, is_intact=True)
    if is_address(tag):
        return _at_address(tag)
    path = user_path(tag)
    if text is not True and (path.exists() or path.suffix or len(path.parts) > 1):
        return Found(find_weights(path))
    if not spec.weights:
        raise ArgumentError(
            f"model {spec.name!r} has no pretrained weights"
            + ("" if text is True else f" and there is no file {tag!r}")
            + (
                f"; {spec.family}'s own are for large images, and load by the path of their file"
                if ":" in spec.name
                else "; see list_models(pretrained=True)"
            )
        )
    if text is True:
        raise ArgumentError(
            f"model {spec.name!r} has no default weights; it has {', '.join(spec.weights)}"
        )
    return Found(locate_weights(spec, tag), spec.name, tag)  # says which tags there are


def _at_address(address: str) -> Found:
    path, is_intact = fetch_address(address)
    return Found(path, is_intact=is_intact)


def locate_weights(spec: ModelSpec, tag: str = "default") -> Path:
    """The file of a model's pretrained weights, intact; fetched first where it has an address.

    Args:
        spec: The model.
        tag: Which of ``spec.weights``.

    Raises:
        UnknownNameError: The model has no such weights.
        WeightsError: The file is missing or damaged, or lies in a pack that is not installed.
        DownloadError: It could not be fetched; what arrived is continued by the next call.
    """
    info = spec.get_weights(tag)
    path = Path(info.path)
    if info.url is None:
        pack = info.pack or "cifarzoo"
        if info.pack and not path.is_file():
            path = find_in_packs(path.name) or path  # installed after this process began
        if not path.is_file() and info.pack:
            raise WeightsError(
                f"the weights {tag!r} of {spec.name!r} come in a package of their own: "
                f"pip install {'--upgrade ' if is_installed(info.pack) else ''}{info.pack}"
            )
        if not path.is_file():
            raise WeightsError(f"{path} is missing; install cifarzoo again")
        if file_digest(path) != info.sha256:
            raise WeightsError(f"{path} is damaged: its sha256 differs; install {pack} again")
        return path
    from cifarzoo.files.downloads import addresses, download
    from cifarzoo.files.progress import byte_bar

    path = place_of(info)
    if not path.is_file() or file_digest(path) != info.sha256:
        folder, _, name = info.url.rpartition("/")
        urls = addresses([folder], name)
        with byte_bar(path.name) as advance:
            download(urls, path, checksum=info.sha256, algorithm="sha256", advance=advance)
    return path
