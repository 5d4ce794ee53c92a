"""What is known of a model, in groups: for the command line, for print, and for notebooks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarzoo.errors import WeightsError
from cifarzoo.files.writing import cache_directory
from cifarzoo.names import one_line
from cifarzoo.zoo.builds import other_sizes

if TYPE_CHECKING:
    from cifarzoo.zoo.registry import ModelSpec, WeightsInfo

__all__ = ["Group", "about", "as_text", "known_facts", "mean_accuracy", "place_of", "trained_on"]

Group = tuple[str, list[tuple[str, str]]]
"""A heading, and names with what is known under each."""


def about(spec: ModelSpec) -> list[Group]:
    """The groups: network, source, weights, recipes."""
    others = (f"; {size:,} with {how}" for how, size in other_sizes(spec.builder).items())
    size = f"{spec.image_size}x{spec.image_size}" if spec.image_size else "any size"
    options = ", ".join(f"{name}={value!r}" for name, value in spec.options.items())
    network = [
        ("parameters", "".join((f"{spec.parameters:,}", *others))),
        ("MACs", f"{spec.macs:,} for one 3x32x32 image"),
        ("images", size),
        ("options", options or "none"),
    ]
    source = [("citation", spec.source)]
    if spec.stated_accuracy:
        source.append(("accuracy there", f"{spec.stated_accuracy:g} %"))
    weights = [(tag, _about_weights(info)) for tag, info in spec.weights.items()]
    recipes = [(name, str(recipe)) for name, recipe in spec.recipes.items()]
    return [
        ("network", network),
        ("source", source),
        ("weights", weights or [("none", "")]),
        ("recipes", recipes),
    ]


def as_text(title: str, description: str, groups: Iterable[Group], *, width: int = 100) -> str:
    """The groups in lines of at most ``width`` characters."""
    lines = [one_line(title), *textwrap.wrap(one_line(description), width)]
    for heading, rows in groups:
        lines += ["", heading]
        room = max(len(one_line(name)) for name, _ in rows) + 4
        for name, value in rows:
            first = f"  {one_line(name)}".ljust(room)
            wrapped = textwrap.wrap(
                one_line(value),
                width,
                initial_indent=first,
                subsequent_indent=" " * room,
                break_on_hyphens=False,
            )
            lines += wrapped or [first.rstrip()]
    return "\n".join(lines)


def known_facts(info: WeightsInfo) -> Mapping[str, Any]:
    """What is known of weights: their facts, or what the file tells where they have none.

    Nothing is fetched; a file that cannot be read tells nothing.
    """
    if "seeds" in info.facts:
        return info.facts
    metadata = _facts_of_file(info)
    seeds = metadata.get("seeds") or ([metadata] if "test_accuracy" in metadata else [])
    return {**metadata, **info.facts, "seeds": seeds}


def _facts_of_file(info: WeightsInfo) -> Mapping[str, Any]:
    """Of weights that are in no index, which few are; empty where there is no file."""
    path = place_of(info)
    if not path.is_file():
        return {}
    from cifarzoo.zoo.weights import read_metadata

    try:
        metadata: Mapping[str, Any] = read_metadata(path).get("metadata", {})
    except WeightsError:
        return {}
    return metadata


def place_of(info: WeightsInfo) -> Path:
    """Where the file of weights lies, or will lie once it is fetched from its address.

    Two files of one name have a folder each.
    """
    path = Path(info.path)
    if info.url is None or path.parent != Path():
        return path
    return cache_directory() / "weights" / info.sha256[:16] / path


def trained_on(info: WeightsInfo) -> str:
    """Name of the image set that weights were trained on; "" where it is not known."""
    return str(info.facts.get("data") or _facts_of_file(info).get("data") or "")


def mean_accuracy(info: WeightsInfo, tta: str = "none") -> float | None:
    """Mean accuracy over the seeds, 0..1, on the test images of their set; None if not known."""
    seeds: Sequence[Mapping[str, Any]] = known_facts(info).get("seeds", ())
    found = [seed["test_accuracy"].get(tta) for seed in seeds if "test_accuracy" in seed]
    shares = [share for share in found if share is not None]
    return sum(shares) / len(shares) if shares else None


def _about_weights(info: WeightsInfo) -> str:
    accuracy, seeds = mean_accuracy(info), len(known_facts(info).get("seeds", ()))
    mean = f" (mean of {seeds} seeds)" if seeds > 1 and "seed_of" not in info.facts else ""
    parts = [] if accuracy is None else [f"{100 * accuracy:.2f} %{mean}"]
    if (data := trained_on(info)) not in ("", "cifar10"):
        parts = [f"trained on {data}", *parts]
    if "size" in info.facts:
        parts.append(f"{info.facts['size'] / 1e6:.3g} MB")
    if info.pack and info.url is None and not info.path.is_file():
        parts.append(f"pip install {info.pack}")
    elif info.pack:
        parts.append(f"from {info.pack}")
    return ", ".join(parts)
