"""Weights that others made: where a network's tensors lie in their files, and under which names.

A checkpoint is a tree of dictionaries. Its tensors get dotted names, as in
``state_dict.module.fc.bias``, and a network is found in it by all of its names at once: under one
prefix, in the network's own names or in those of a `Layout`. Shapes decide nothing; they are
checked afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cifarzoo.errors import WeightsError
from cifarzoo.plain import bounds_problem, shorten
from cifarzoo.zoo.torch_files import odd_kind

__all__ = ["Layout", "Reading", "flatten", "is_average", "read_names"]

_COUNTER = "num_batches_tracked"
_AVERAGE_WORDS = frozenset(
    {"ema", "swa", "avg", "average", "averaged", "averages", "polyak", "lookahead"}
)
# beside one of these words: an optimizer's moments, or no average at all
_OTHER_WORDS = frozenset({"exp", "grad", "sq", "square", "no", "non", "not", "raw", "without"})


@dataclass(frozen=True)
class Layout:
    """Translates another package's names for the layers of a family.

    The names were read in the package's published source. A class of networks lists the layouts
    that it knows in the attribute ``layouts``.

    Args:
        peer: The package that the names come from.
        names: Regular expressions and their replacements, which are applied in turn to each name.
        scales: Factors by which tensors are multiplied, by the network's own names of the tensors.
    """

    peer: str
    names: tuple[tuple[str, str], ...]
    scales: Mapping[str, Callable[[Tensor], float]] = field(default_factory=dict)

    def translate(self, name: str) -> str:
        """Translate a name of the peer into the network's name."""
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        return name


class Reading(NamedTuple):
    """One way to find a network in a file.

    Args:
        prefix: What stands before the names, as in ``state_dict.module.``.
        layout: Whose names they are; None for the network's own.
        sources: The file's name of each tensor that was found, by the network's name.
        missing: Names of the network that the file lacks.
        unexpected: Names beside them that the network lacks.
    """

    prefix: str
    layout: Layout | None
    sources: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all names are found, and no others."""
        return not self.missing and not self.unexpected

    @property
    def read(self) -> frozenset[str]:
        """The file's names of what was found."""
        return frozenset(self.sources.values())

    @property
    def renamed(self) -> dict[str, str]:
        """The network's name for each name of the file that differs by more than the prefix."""
        pairs = ((theirs.removeprefix(self.prefix), ours) for ours, theirs in self.sources.items())
        return {theirs: ours for theirs, ours in pairs if theirs != ours}

    def tensors(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The file's tensors by the network's names, scaled where the layout says so."""
        tensors = {ours: found[theirs] for ours, theirs in self.sources.items()}
        for name, scale in (self.layout.scales if self.layout else {}).items():
            if name in tensors and tensors[name].is_floating_point():
                exact = tensors[name].to(torch.promote_types(tensors[name].dtype, torch.float32))
                tensors[name] = exact * scale(exact)
        return tensors


def flatten(content: Any) -> dict[str, Tensor]:
    """The tensors of nested dictionaries and lists by their dotted names; numpy's arrays too.

    Raises:
        WeightsError: Two tensors would have one name, a tensor has a key that is no name, or the
            dictionaries hold themselves.
    """
    if problem := bounds_problem(content):
        raise WeightsError(f"this is no state dict: {problem}")
    tensors: dict[str, Tensor] = {}
    for name, tensor in _leaves(content, ()):
        if name in tensors:
            raise WeightsError(f"there are two tensors {name!r} in it; rename one of their keys")
        tensors[name] = tensor
    return tensors


def read_names(
    found: Mapping[str, Tensor],
    expected: Iterable[str],
    layouts: Sequence[Layout] = (),
    rename: Mapping[str, str] | None = None,
    *,
    origin: str = "the state dict",
) -> Reading:
    """Find a network in a file by its names; where nothing is whole, what comes nearest.

    Args:
        found: The file's tensors, from `flatten`.
        expected: The network's names; counters of batches may be missing in the file.
        layouts: Other names for them.
        rename: Names or beginnings of names in the file, and what the network calls them.
        origin: What to call the file in an error.

    Raises:
        WeightsError: The network is found more than once, with different numbers.
    """
    expected = list(expected)
    if not rename and found.keys() == {*expected}:  # no other reading can be whole
        return _read(found, expected, "", None, {})
    readings = [
        _read(found, expected, prefix, layout, rename or {})
        for prefix in _prefixes(found, len(expected))
        for layout in (None, *layouts)
    ]
    # the network's own names first: a layout that changes nothing is none
    whole = {frozenset(each.sources.items()): each for each in reversed(readings) if each.is_whole}
    if not whole:
        return max(
            readings,
            key=lambda each: (len(each.sources), -len(each.unexpected), len(each.prefix)),
        )
    return _choose(found, list(whole.values())[::-1], origin)


def is_average(prefix: str, found: Mapping[str, Tensor]) -> bool:
    """Whether what lies under ``prefix`` is an average of weights, by its own words."""
    parent = prefix.removesuffix("module.")
    if f"{parent}n_averaged" in found:
        return True
    keys = [{*re.split("[_-]", key.lower())} for key in prefix.split(".")]
    return any(words & _AVERAGE_WORDS and not words & _OTHER_WORDS for words in keys)


def _leaves(content: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if isinstance(content, Tensor):
        if odd := odd_kind(content):
            raise WeightsError(f"the tensor {_dotted(path)!r} is {odd}; give a dense one")
        yield _dotted(path), content.detach()
    elif isinstance(content, np.ndarray | np.generic) and content.dtype.kind in "fiub":
        try:
            yield _dotted(path), torch.from_numpy(np.array(content))
        except (TypeError, ValueError) as error:  # of 16 bytes, or in the other order
            raise WeightsError(f"{_dotted(path)} cannot be a tensor: {error}") from error
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _leaves(value, (*path, number))


def _dotted(path: tuple[Any, ...]) -> str:
    for key in path:
        if isinstance(key, bool) or not isinstance(key, str | int | None):
            raise WeightsError(
                f"there is a tensor under the key {shorten(key)}, which is no name; rename it"
            )
    return ".".join(map(str, path))


def _prefixes(found: Mapping[str, Tensor], size: int) -> list[str]:
    """Dotted beginnings that at least half as many names share as the network has, and none."""
    counts: Counter[str] = Counter()
    for name in found:
        parts = name.split(".")
        counts.update(".".join((*parts[:end], "")) for end in range(1, len(parts)))
    return ["", *(prefix for prefix, count in counts.items() if 2 * count >= size)]


def _read(
    found: Mapping[str, Tensor],
    expected: Sequence[str],
    prefix: str,
    layout: Layout | None,
    rename: Mapping[str, str],
) -> Reading:
    sources: dict[str, str] = {}
    unexpected = []
    wanted = set(expected)
    for name in found:
        if not name.startswith(prefix):
            continue
        ours = _rename(name.removeprefix(prefix), rename)
        if layout is not None:
            ours = layout.translate(ours)
        if ours in wanted and ours not in sources:
            sources[ours] = name
        else:
            unexpected.append(name.removeprefix(prefix))
    missing = [n for n in expected if n not in sources and n.rpartition(".")[2] != _COUNTER]
    return Reading(prefix, layout, sources, tuple(missing), tuple(unexpected))


def _rename(name: str, rules: Mapping[str, str]) -> str:
    for old, new in rules.items():
        old = old.removesuffix(".")
        if name == old or name.startswith(f"{old}."):
            rest = name.removeprefix(old).removeprefix(".")
            return ".".join(part for part in (new.removesuffix("."), rest) if part)
    return name


def _choose(found: Mapping[str, Tensor], readings: list[Reading], origin: str) -> Reading:
    """The one reading, or the average among several; equal tensors are one reading."""
    different: list[Reading] = []
    for each in readings:
        if not any(_is_equal(each, other, found) for other in different):
            different.append(each)
    if len(different) == 1:
        return different[0]
    averages = [each for each in different if is_average(each.prefix, found)]
    if len(averages) == 1:
        return averages[0]
    keys = ", ".join(repr(each.prefix.removesuffix(".")) for each in different)
    raise WeightsError(
        f"{origin} holds this network {len(different)} times, with different numbers; choose one "
        f"by key=, of {keys}"
    )


def _is_equal(first: Reading, second: Reading, found: Mapping[str, Tensor]) -> bool:
    if first.sources.keys() != second.sources.keys():
        return False
    ours, theirs = first.tensors(found), second.tensors(found)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
