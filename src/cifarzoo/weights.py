"""Weights files: safetensors that carry the model's card and provenance; foreign checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.card import ModelCard, Preprocessing, attach_card, get_card, unwrap
from cifarzoo.errors import ArgumentError, WeightsError
from cifarzoo.files import write_bytes
from cifarzoo.version import __version__

__all__ = [
    "WEIGHTS_NAME",
    "find_weights",
    "library_versions",
    "load_weights",
    "read_card",
    "read_metadata",
    "save_weights",
    "tensors_sha256",
]

WEIGHTS_NAME = "weights.safetensors"
"""What the weights of a run are called in its folder."""

_FORMAT = 1
# where other trainers put the state dict inside a checkpoint
_NESTED = ("state_dict", "model_state_dict", "model", "net", "learner")
_WRAPPERS = ("module.", "_orig_mod.")


def save_weights(
    model: nn.Module,
    path: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write parameters and buffers as safetensors, atomically, with the model's card.

    Args:
        model: The network; wrappers such as torch.compile are looked through.
        path: Where the file goes; an existing file is replaced only by a complete new one.
        metadata: Further facts that JSON can hold: recipe, metrics, command.
        dtype: Type to store the parameters in, as in ``torch.float16``; buffers keep theirs, for
            running statistics may lie outside its range.

    Returns:
        The path.

    Raises:
        ArgumentError: ``dtype`` cannot hold parameters, or ``metadata`` is no plain data.
        OutputError: The file cannot be written; an older one is still whole.
    """
    from safetensors.torch import save

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentError(f"dtype must be a floating-point torch.dtype; got {dtype!r}")
    card = get_card(model)
    inner = unwrap(model)
    parameters = {name for name, _ in inner.named_parameters()} if dtype else ()
    tensors = {
        name: (tensor.to(dtype) if name in parameters else tensor)
        .detach()
        .cpu()
        .contiguous()
        .clone()
        for name, tensor in inner.state_dict().items()
    }
    facts = {
        "format": _FORMAT,
        "card": card.to_dict(),
        "sha256": tensors_sha256(tensors),
        "versions": library_versions(),
        "metadata": dict(metadata or {}),
    }
    try:
        header = {key: json.dumps(value) for key, value in facts.items()}
    except TypeError as error:
        raise ArgumentError(f"metadata must be plain data, as JSON holds it: {error}") from error
    return write_bytes(path, save(tensors, metadata=header))


def load_weights(
    model: nn.Module,
    path: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    new_head: bool = False,
) -> dict[str, Any]:
    """Load a weights file into ``model``: all of it, or nothing.

    Safetensors files of this library bring their card, normalization included, and are checked
    against their own sha256. Legacy ``.pt`` and ``.th`` files are read without running code; the
    state dict is found inside a checkpoint. ``module.`` and ``_orig_mod.`` before all names are
    stripped where the model's own names have none.

    Args:
        model: The network to fill.
        path: The file, or the folder of a finished run.
        preprocessing: Normalization the file was trained with; what its card says unless given,
            and what the model's card says for a foreign file.
        new_head: Whether the model tells apart other classes than the file: its last layer then
            keeps its values, and its card its classes.

    Returns:
        What `read_metadata` returns; empty for foreign files.

    Raises:
        WeightsError: The file is missing, damaged, does not fit, or was made with an option of the
            model's builder that this model was not given; layers or options are named and the
            model is unchanged.
    """
    path = find_weights(path)
    tensors, facts = _read(path)
    made_by = ModelCard.from_dict(facts["card"]) if "card" in facts else None
    inner = unwrap(model)
    expected = inner.state_dict()
    if tensors.keys() != expected.keys():  # a network may have a layer called module itself
        tensors = _strip(tensors)
    card = get_card(model)
    if new_head and made_by is not None:
        sizes = made_by.num_classes, card.num_classes
        tensors |= _heads(expected, tensors, sizes)
        made_by = dataclasses.replace(made_by, num_classes=sizes[1], classes=card.classes)
    _check_fit(expected, tensors, path, made_by)
    if made_by is not None and made_by.name == card.name:
        _check_options(made_by.options, card.options, path)
        made_by = dataclasses.replace(made_by, options=card.options)
    inner.load_state_dict(tensors)
    card = made_by or card
    if preprocessing is not None:
        card = dataclasses.replace(card, preprocessing=preprocessing)
    attach_card(model, card)
    return facts


def find_weights(path: str | Path) -> Path:
    """The weights file at ``path``, which may be a run's folder.

    Raises:
        WeightsError: There is none.
    """
    path = Path(path)
    found = path / WEIGHTS_NAME if path.is_dir() else path
    if path.is_dir() and not found.exists():
        raise WeightsError(
            f"{path} holds no {WEIGHTS_NAME}; if it is a run that was stopped, finish it with "
            f"cifarzoo train --resume {path}"
        )
    _check_exists(found)
    return found


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The facts in a weights file: ``format``, ``card``, ``sha256``, ``versions``, ``metadata``.

    Empty for files of another origin, legacy checkpoints among them. The tensors are not read.

    Args:
        path: The file, or the folder of a finished run.

    Raises:
        WeightsError: The file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    path = find_weights(path)
    if _is_legacy(path):
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if "card" not in header:
        return {}
    return {key: json.loads(value) for key, value in header.items()}


def read_card(path: str | Path) -> ModelCard:
    """The card in a weights file; raises WeightsError when it has none."""
    facts = read_metadata(path)
    if not facts:
        raise WeightsError(
            f"{path} does not say which model it belongs to; build the model by name and call "
            "load_weights(model, path)"
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


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if _is_legacy(path):
        return _read_legacy(path), {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_metadata(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if facts and tensors_sha256(tensors) != facts["sha256"]:
        raise WeightsError(
            f"{path} is damaged: its sha256 differs from the one it carries; copy or fetch it again"
        )
    return tensors, facts


def _is_legacy(path: Path) -> bool:
    """Whether the file is a zip archive or a pickle, as torch.save writes them."""
    with path.open("rb") as file:
        start = file.read(9)
    # safetensors begin with a length of eight bytes, which may look like either, and then a brace
    return start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80")


def _read_legacy(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch finds odd it then refuses, or it is fine
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly anything
        raise WeightsError(
            f"{path} holds code beside tensors, or is damaged; nothing of it was run. Save the "
            "bare state_dict() of that model again and load that"
        ) from error
    return _find_state_dict(content, path)


def _find_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
        key = next((k for k in _NESTED if isinstance(content.get(k), Mapping)), None)
        if key is None:
            break
        content = content[key]
    raise WeightsError(f"{path} holds no state dict, nor one under {', '.join(_NESTED)}")


def _strip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stripped = dict(tensors)
    while stripped and any(all(name.startswith(w) for name in stripped) for w in _WRAPPERS):
        stripped = {name.split(".", 1)[1]: tensor for name, tensor in stripped.items()}
    return stripped


def _heads(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], sizes: tuple[int, int]
) -> dict[str, Tensor]:
    """The model's own tensors for whatever has an entry for each of the file's classes."""
    pairs = {
        name: (found[name].shape, own.shape) for name, own in expected.items() if name in found
    }
    return {
        name: expected[name]
        for name, (theirs, ours) in pairs.items()
        if theirs != ours and (theirs[:1], ours[:1]) == ((sizes[0],), (sizes[1],))
    }


def _check_fit(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    path: Path,
    made_by: ModelCard | None,
) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} (file {tuple(found[name].shape)}, model {tuple(expected[name].shape)})"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    problems = [
        f"{title}: {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if names[5:] else "")
        for title, names in (
            ("missing in the file", missing),
            ("unknown to the model", unexpected),
            ("other shape", shapes),
        )
        if names
    ]
    if problems:
        origin = f" (made by {made_by.name!r})" if made_by else ""
        details = "\n  ".join(problems)
        remedy = (
            "; build it with the options on the file's card, or, for other classes, by "
            "create_model(name, pretrained=..., num_classes=...)"
            if made_by
            else ""
        )
        raise WeightsError(f"{path}{origin} does not fit this model{remedy}:\n  {details}")


def _check_options(made_with: Mapping[str, Any], built_with: Mapping[str, Any], path: Path) -> None:
    """Refuse an option that no shape tells of, unless the model's builder was given it too."""
    unsaid = {name: value for name, value in made_with.items() if name not in built_with}
    if unsaid:
        text = ", ".join(f"{name}={value!r}" for name, value in unsaid.items())
        raise WeightsError(
            f"{path} was made with {text}, which this model was not given; build it by "
            f"load_model(path), or by create_model(name, {text})"
        )


def _unreadable(path: str | Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is truncated or not a safetensors file: {error}; copy or fetch it again"
    )


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}; name a weights file or the folder of a finished "
            "run: pretrained models are those of list_models(pretrained=True)"
        )


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "cifarzoo": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
