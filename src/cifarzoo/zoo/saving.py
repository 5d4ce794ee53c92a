"""Writing weights: safetensors that carry the model's card and provenance."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.machine import library_versions
from cifarzoo.errors import ArgumentError
from cifarzoo.files.writing import write_bytes
from cifarzoo.plain import bounds_problem, parse_json, shorten
from cifarzoo.zoo.builds import changed_part, describe, find_builder, own_options
from cifarzoo.zoo.card import check_numbers, get_card, unwrap, write_card
from cifarzoo.zoo.content import list_some, not_finite
from cifarzoo.zoo.weights import COVER, FORMAT, facts_sha256, tensors_sha256

__all__ = ["save_weights"]

_LARGEST_HEADER = 50_000_000  # bytes, of which safetensors reads 100 million
_log = logging.getLogger("cifarzoo")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write parameters and buffers as a safetensors file, with the model's card.

    The card in the file describes the network as it is. If its last layer was replaced by hand,
    this layer decides the number of classes. If its builder could not have built it, the card has
    the name of its class.

    Args:
        model: The network, which may be wrapped, as by torch.compile.
        path: The file. An existing file is replaced only by a complete new one.
        metadata: Further facts that JSON can hold, such as recipe, metrics and command.
        dtype: Dtype to store the parameters in, such as ``torch.float16``. Buffers keep their own
            dtype, because running statistics may be outside its range.

    Returns:
        The path.

    Raises:
        ArgumentError: ``dtype`` cannot hold the parameters, ``metadata`` is not plain data, or has
            a wrong type for a fact that this library reads; or the network holds NaN, or a state
            that is no tensor.
        OutputError: The file cannot be written; an older one is still whole.
    """
    from safetensors.torch import save

    from cifarzoo.zoo.facts import check_metadata

    if dtype is not None and dtype not in _DTYPES:
        raise ArgumentError(
            f"dtype must be one of {', '.join(map(str, _DTYPES))}; got {shorten(dtype)}"
        )
    about = check_metadata(metadata)
    card = describe(model)
    if (builder := find_builder(card.name)) is not None:
        card = dataclasses.replace(card, options=own_options(builder, card.options))
    about_card = write_card(card)
    tensors = _tensors(unwrap(model), dtype)
    facts = {
        "format": FORMAT,
        "sha256": tensors_sha256(tensors),
        "versions": library_versions(),
        "metadata": about,
    }
    try:
        header = {"card": about_card} | {key: json.dumps(value) for key, value in facts.items()}
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"metadata must be plain data, as JSON holds it: {error}") from error
    header[COVER] = json.dumps(facts_sha256(header))
    _check_readable(header)
    named = get_card(model).name
    if card.name != named and find_builder(named) is not None:
        _log.warning(
            "%s: the network is saved as one of %r, not of %r, so load_model cannot build it: %s",
            *(path, card.name, named, changed_part(model)),
        )
    return write_bytes(path, save(tensors, metadata=header))


def _check_readable(header: Mapping[str, str]) -> None:
    """Raise ArgumentError for facts that could be written, and not be read again."""
    if (size := sum(map(len, header.values()))) > _LARGEST_HEADER:
        raise ArgumentError(
            f"metadata of {size / 1e6:,.0f} MB is more than a weights file may have; keep it in a "
            "file of its own"
        )
    for text in header.values():
        try:
            problem = bounds_problem(parse_json(text.encode()))
        except ValueError as error:
            problem = str(error)
        if problem:
            raise ArgumentError(f"metadata could not be read again: {problem}")


def _tensors(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What a file holds of a network, if it can be loaded again."""
    state: dict[str, Any] = model.state_dict()
    check_numbers(state.values())
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ArgumentError(
            f"weights files hold tensors alone, and {list_some(odd)} of this network is none; "
            "keep what it holds in a buffer, or save the network by torch.save"
        )
    # a layer that is tied has all of its names
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if bad := not_finite(state, parameters):
        raise ArgumentError(
            "this network holds numbers that are NaN or infinite, as a training that failed "
            f"leaves them: {list_some(bad)}; save an earlier checkpoint"
        )
    tensors = {
        name: tensor.to(dtype) if dtype and name in parameters else tensor
        for name, tensor in state.items()
    }
    if bad := not_finite(tensors, parameters):
        raise ArgumentError(
            f"dtype={dtype} cannot hold the numbers of {list_some(bad)}, whose largest become "
            "infinite; torch.bfloat16 holds them in as few bytes"
        )
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
