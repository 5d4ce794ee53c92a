"""The index of pretrained weights, and packs: packages that bring files of weights, and no code.

The index in the package knows its own weights and those of the library's packs, so that a list or a
page needs no file. Other packages may add weights to the zoo: they name a module of theirs in the
entry point group ``cifarzoo.weights``, and its folder holds an ``index.json`` of the same form
beside the files. The folder is looked up; nothing in it is run.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarzoo.errors import CifarZooError
from cifarzoo.frozen import LazyDict
from cifarzoo.names import printable
from cifarzoo.plain import parse_json, problem_of
from cifarzoo.zoo.registry import WeightsInfo

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from cifarzoo.zoo.facts import IndexEntry

__all__ = ["FOLDER", "GROUP", "INDEX_NAME", "find_in_packs", "indexed_weights", "is_installed"]

FOLDER = Path(__file__).parents[1] / "pretrained"
"""Of the weights that come with the package, and their index."""

GROUP = "cifarzoo.weights"
"""The entry points by which packs are found."""

INDEX_NAME = "index.json"

_log = logging.getLogger("cifarzoo")


def indexed_weights(model: str) -> Mapping[str, WeightsInfo]:
    """The weights of ``model`` that the index or an installed pack knows, by tag.

    Packs are looked for when somebody asks for more than the package itself brings.
    """
    own = {
        tag: _info(FOLDER, entry)
        for tag, entry in _own_index().get(model, {}).items()
        if "pack" not in entry
    }
    return LazyDict(lambda: _everything().get(model, {}), first=own)


def find_in_packs(name: str) -> Path | None:
    """The file called ``name`` in a pack that is installed now; None when there is none."""
    for _, folder in _folders():
        if (folder / name).is_file():
            return folder / name
    return None


@functools.cache
def _everything() -> dict[str, dict[str, WeightsInfo]]:
    """By model and tag. What the package itself knows cannot be replaced by a pack."""
    found: dict[str, dict[str, WeightsInfo]] = {}
    packs = dict(_folders())
    for model, tags in _own_index().items():
        for tag, entry in tags.items():
            pack = entry.get("pack")
            found.setdefault(model, {})[tag] = _info(packs.get(pack, FOLDER), entry, pack)
    ours = {info.pack for tags in found.values() for info in tags.values()}
    for pack, folder in packs.items():
        for model, tags in _read_pack(pack, folder).items() if pack not in ours else ():
            for tag, entry in tags.items():
                known = found.setdefault(model, {})
                if tag not in known:
                    known[tag] = _info(folder, entry, pack)
                elif known[tag].sha256 != entry["sha256"].lower():
                    _log.warning(
                        "%s brings other weights of the name %s.%s, which is taken by %s; they are "
                        "left out: load them by the path of their file",
                        *map(printable, (pack, model, tag, known[tag].pack or "cifarzoo")),
                    )
    return found


@functools.cache
def _own_index() -> dict[str, dict[str, Any]]:
    """By model and tag, the default ones first."""
    index: dict[str, dict[str, Any]] = json.loads((FOLDER / INDEX_NAME).read_text(encoding="utf-8"))
    return {
        model: {tag: tags[tag] for tag in sorted(tags, key=lambda tag: (tag != "default", tag))}
        for model, tags in index.items()
    }


def _info(folder: Path, entry: Mapping[str, Any], pack: str | None = None) -> WeightsInfo:
    path = Path(entry["file"]) if "url" in entry else folder / entry["file"]
    facts = {key: value for key, value in entry.items() if key not in ("file", "sha256", "url")}
    return WeightsInfo(path, entry["sha256"].lower(), entry.get("url"), pack, facts)


def _read_pack(pack: str, folder: Path) -> dict[str, dict[str, IndexEntry]]:
    """The index of a pack; empty, with a warning, where it is none."""
    from cifarzoo.zoo.facts import IndexEntry

    try:
        index: dict[str, dict[str, IndexEntry]] = parse_json((folder / INDEX_NAME).read_bytes())
        problem = problem_of(index, dict[str, dict[str, IndexEntry]])
        for tags in index.values() if not problem else ():
            for entry in tags.values():
                if Path(entry["file"]).name != entry["file"]:
                    problem = f"the file {entry['file']!r} lies in another folder"
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        _log.warning(
            "the weights of %s are left out: %s: %s; update it, or remove it with pip uninstall",
            *map(printable, (pack, str(folder / INDEX_NAME), problem)),
        )
        return {}
    return index


def _folders() -> list[tuple[str, Path]]:
    """Names of the installed packs and where their files lie, in the order of the names."""
    from importlib.metadata import entry_points

    found: dict[str, Path] = {}
    for entry in entry_points(group=GROUP):
        folder = _folder_of(entry)
        if folder is None or entry.dist is None:
            continue
        if found.setdefault(entry.dist.name, folder) != folder:
            _log.warning(
                "the pack of weights %s names two packages; %s is left out: give each a pack of "
                "its own",
                *map(printable, (entry.dist.name, entry.value)),
            )
    return sorted(found.items())


def is_installed(pack: str) -> bool:
    """Whether there is a package of this name, of whatever version."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(pack)
    except PackageNotFoundError:
        return False
    return True


def _folder_of(entry: EntryPoint) -> Path | None:
    """The folder of the module that an entry point names; the module is not imported."""
    try:
        if "." in entry.value:  # looking for a part of a package would import the package
            raise CifarZooError("it must name a package, not a part of one")
        spec = importlib.util.find_spec(entry.value)
        if spec is None or not spec.submodule_search_locations:
            raise CifarZooError("there is no such package")
    except (ImportError, ValueError, CifarZooError) as error:
        _log.warning(
            "the pack of weights %s names %s: %s; install it again",
            *map(printable, (entry.name, entry.value, str(error))),
        )
        return None
    return Path(next(iter(spec.submodule_search_locations)))
