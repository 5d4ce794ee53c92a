"""Reading weights: safetensors with the card and provenance of a model, and other files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError, WeightsError
from cifarzoo.files.paths import command_line, user_path
from cifarzoo.plain import parse_json, problem_of
from cifarzoo.zoo.card import ModelCard, Preprocessing
from cifarzoo.zoo.content import Content, check_reading, parse_card
from cifarzoo.zoo.fitting import fill
from cifarzoo.zoo.foreign import flatten
from cifarzoo.zoo.torch_files import kind_of_file, read_torch_file

__all__ = [
    "COVER",
    "FORMAT",
    "WEIGHTS_NAME",
    "facts_sha256",
    "find_weights",
    "load_weights",
    "read_card",
    "read_content",
    "read_metadata",
    "tensors_sha256",
]

WEIGHTS_NAME = "weights.safetensors"
"""What the weights of a run are called in its folder."""

FORMAT = 2
"""The newest that is read, and that `save_weights` writes."""

COVER = "facts_sha256"
"""The fact that is a checksum over all others; files of format 1 have none."""

_log = logging.getLogger("cifarzoo")
_HEADER = {"format", "card", "sha256", "versions", "metadata"}
_CHECKPOINT = {"format", "card", "recipe", "learner"}  # what a checkpoint of a run has, and more


def load_weights(
    model: nn.Module,
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    preprocessing: Preprocessing | None = None,
    new_head: bool = False,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Load weights into ``model``, either all of them or none.

    Safetensors files of this library have a card with the normalization, and are checked by the
    SHA-256 in them. The checkpoint of a run has a card too; its averaged weights are loaded if it
    has any. Other safetensors, ``.pt`` and ``.th`` files are read without running code from them.
    The network is found in them by the names of its layers: under any prefix, and in the names of
    another package that its family knows. If averaged weights lie beside the plain ones, they are
    loaded.

    Args:
        model: The network to fill.
        source: The file, the folder of a finished run, or a state dict in memory.
        preprocessing: Normalization that the weights were trained with. Unless given, it is that of
            the file's card; for a foreign file, which has none, it is that of the model's card.
        new_head: Whether the model has other classes than the file, also if there are as many. Its
            last layer then keeps its values, and its card keeps its classes.
        key: Where in the file the weights lie, such as ``"model_ema"`` or ``"state_dict.net"``.
        rename: Names in the file, or their beginnings, and the model's names for them. What all
            names begin with, such as ``state_dict.module.``, is left out.

    Returns:
        What `read_metadata` returns, and how the file was read: ``chosen``, where in the file the
        weights lie; ``layout``, the package whose names they have; ``renamed``, the model's name
        for each name in the file that differs; ``left``, what else the file holds. The logger
        "cifarzoo" is told what the file does not decide by itself.

    Raises:
        WeightsError: The file is missing, is damaged, does not fit, or was made with an option of
            the builder that this model was not given. The message names the layers or options.
        ArgumentError: ``source`` is neither a path nor a state dict, or ``key`` is no text, or
            ``rename`` no dict of texts.
    """
    return fill(
        model,
        read_content(source, key=key, rename=rename),
        preprocessing=preprocessing,
        new_head=new_head,
    )


def read_content(
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
    is_intact: bool = False,
) -> Content:
    """Read what `load_weights` can load; its arguments are those of it.

    Args:
        source: As there.
        key: As there.
        rename: As there.
        is_intact: Whether the whole file was compared with a checksum already.

    Raises:
        WeightsError: It is missing, damaged, or no weights file.
        ArgumentError: ``source`` is neither a path nor a state dict, or ``key`` is no text, or
            ``rename`` no dict of texts.
    """
    check_reading(key, rename)
    if isinstance(source, Mapping):
        content = _from_tree(source, "the state dict")
    else:
        path = find_weights(source)
        is_torch = kind_of_file(path) == "torch"
        content = (
            _from_tree(read_torch_file(path), str(path))
            if is_torch
            else _read_safetensors(path, is_intact=is_intact)
        )
    return content._replace(key=key or content.key, rename=rename or {})


_OF_HUB = "model.safetensors"  # what save_pretrained writes


def find_weights(path: str | PathLike[str]) -> Path:
    """The weights file at ``path``, which may be a run's folder.

    Raises:
        WeightsError: There is none.
        ArgumentError: ``path`` is something else.
    """
    if not isinstance(path, str | PathLike):
        raise ArgumentError(
            f"weights are a path or a state dict; got a {type(path).__name__}"
            + (": pass its state_dict()" if isinstance(path, nn.Module) else "")
        )
    path = user_path(path)
    found = path / WEIGHTS_NAME if path.is_dir() else path
    if path.is_dir() and not found.exists() and (path / _OF_HUB).is_file():
        found = path / _OF_HUB
    if path.is_dir() and not found.exists():
        raise WeightsError(
            f"{path} holds no {WEIGHTS_NAME}; if it is a run that was stopped, finish it with "
            f"{command_line('cifarzoo', 'train', '--resume', path)}"
        )
    if not found.is_file():
        raise WeightsError(
            f"there is no weights file {found}; name a weights file or the folder of a finished "
            "run: create_model(name, pretrained=True) loads those of list_models(pretrained=True)"
        )
    return found


def read_metadata(path: str | PathLike[str]) -> dict[str, Any]:
    """Read the facts in a weights file: format, card, sha256, versions and metadata.

    The checkpoint of a run has ``format``, ``card`` and ``metadata``, with the recipe and the
    history so far. Files of another origin have no facts, and the result is empty. The tensors of
    safetensors files are not read.

    Args:
        path: The file, or the folder of a finished run.

    Raises:
        WeightsError: The file is missing, is damaged, or is not a weights file.
    """
    path = find_weights(path)
    if kind_of_file(path) == "torch":
        return dict(_from_tree(read_torch_file(path), str(path)).facts)
    return _read_header(path)


def _read_header(path: Path, *, is_intact: bool = False) -> dict[str, Any]:
    """The facts in a safetensors file, whole and of the kinds they should be; empty for others'.

    Of an intact file they are of those kinds: what compares them takes longer than all the rest.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    ours = header.keys() & {*_HEADER, COVER}
    if len(ours) < len(_HEADER) - 1:  # of somebody else, who may have a "card" too
        return {}
    try:
        facts = {key: parse_json(value) for key, value in header.items()}
        if lost := _HEADER - ours:
            raise ValueError(f"it does not state its {', '.join(lost)}")
        if isinstance(facts["format"], int) and facts["format"] > FORMAT:
            raise ValueError(f"its format {facts['format']} is of a newer version, or of none")
        if COVER in header or facts["format"] != 1:
            covered = {key: text for key, text in header.items() if key != COVER}
            if facts.get(COVER) != facts_sha256(covered):
                raise ValueError("the sha256 of its facts differs from the one it carries")
        if not is_intact and (problem := _header_problem(facts)):
            raise ValueError(problem)
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {error}; copy or fetch it again") from error
    parse_card(facts["card"], str(path), is_intact=is_intact)
    return facts


def _header_problem(facts: dict[str, Any]) -> str:
    from cifarzoo.zoo.facts import WeightsHeader

    return problem_of(facts, WeightsHeader)


def facts_sha256(header: Mapping[str, str]) -> str:
    """Checksum over the texts of a header, in the order of their names."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def read_card(path: str | PathLike[str]) -> ModelCard:
    """The card in a weights file; raises WeightsError when it has none."""
    facts = read_metadata(path)
    if not facts:
        raise WeightsError(
            f"{path} does not say which model it belongs to; build the model by name: "
            "create_model(name, pretrained=path), or load_weights(model, path)"
        )
    return ModelCard.from_dict(facts["card"])


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Checksum over names, dtypes, shapes and contents, in the order of names."""
    running = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        running.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # bfloat16 has no numpy type: hash the bytes themselves
        running.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()


def _read_safetensors(path: Path, *, is_intact: bool) -> Content:
    """The content of a safetensors file, its checksum compared if it carries one and must be."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = _read_header(path, is_intact=is_intact)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if facts and not is_intact and tensors_sha256(tensors) != facts["sha256"]:
        raise WeightsError(
            f"{path} is damaged: its sha256 differs from the one it carries; copy or fetch it again"
        )
    if facts and not is_intact and COVER not in facts:
        _log.warning(
            "%s is of an older version, whose checksum covers the tensors alone: a damaged card "
            "would not be noticed; save it again with save_weights",
            path,
        )
    return Content(str(path), tensors, facts, is_intact=is_intact)


def _from_tree(tree: Any, name: str) -> Content:
    """The content of what torch.save wrote: a run's checkpoint, or anything else with tensors."""
    tensors = flatten(tree)
    if not tensors:
        keys = ", ".join(map(str, tree)) if isinstance(tree, Mapping) else type(tree).__name__
        raise WeightsError(f"{name} holds no state dict: there is no tensor in it ({keys})")
    if not (isinstance(tree, Mapping) and tree.keys() >= _CHECKPOINT):
        return Content(name, tensors)
    from cifarzoo.zoo.facts import CheckpointData

    if problem := problem_of(dict(tree), CheckpointData):
        raise WeightsError(f"{name} is damaged: {problem}; take an earlier checkpoint")
    parse_card(tree["card"], name)
    facts = {
        "format": "checkpoint",
        "card": tree["card"],
        "metadata": {"recipe": tree["recipe"], "history": tree.get("records", [])},
    }
    averages = flatten({key: tree["learner"].get(key) for key in ("ema", "lookahead")})
    if any(each.startswith("ema.") for each in averages):
        return Content(name, tensors, facts, "learner.ema")
    if not averages:
        return Content(name, tensors, facts, "learner.model")
    # lookahead lists what it averages, all floating-point tensors of the network, without names
    plain = {
        each.removeprefix("learner.model."): tensor
        for each, tensor in tensors.items()
        if each.startswith("learner.model.")
    }
    floats = [each for each, tensor in plain.items() if tensor.is_floating_point()]
    if len(floats) != len(averages):
        raise WeightsError(
            f"{name} is damaged: learner.lookahead holds {len(averages)} tensors of "
            f"{len(floats)}; take an earlier checkpoint"
        )
    slow = {**plain, **dict(zip(floats, averages.values(), strict=True))}
    others = {n: t for n, t in tensors.items() if not n.startswith("learner.lookahead.")}
    named = {f"learner.lookahead.{each}": tensor for each, tensor in slow.items()}
    return Content(name, {**others, **named}, facts, "learner.lookahead")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is truncated or not a safetensors file: {error}; copy or fetch it again"
    )
