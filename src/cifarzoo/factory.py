"""From a name to a network: spec, builder, weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cifarzoo.compute.seeding import as_seed, own_generator
from cifarzoo.errors import ArgumentError, UnknownNameError
from cifarzoo.models.input import check_input
from cifarzoo.names import check_options
from cifarzoo.plain import shorten
from cifarzoo.zoo.builds import check_outputs
from cifarzoo.zoo.card import (
    CIFAR10_CLASSES,
    CIFAR10_PREPROCESSING,
    ModelCard,
    Preprocessing,
    attach_card,
    check_classes,
)
from cifarzoo.zoo.content import Content
from cifarzoo.zoo.fitting import check_build, choose_options, fill
from cifarzoo.zoo.locate import Found, find_of_model
from cifarzoo.zoo.registry import get_model_info
from cifarzoo.zoo.weights import find_weights, read_card, read_content

__all__ = ["create_model", "load_model"]


def create_model(
    name: str,
    *,
    pretrained: bool | str | Path | Mapping[str, Any] | None = False,
    num_classes: int | None = None,
    seed: int | None = None,
    preprocessing: Preprocessing | None = None,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model of the zoo.

    Args:
        name: A name of ``list_models()``.
        pretrained: False or None for random parameters, True for the default weights, a tag of
            ``get_model_info(name).weights``, the path or address of a weights file, or a state
            dict. Addresses are ``https://...`` and ``hf://owner/name@revision/file``. A downloaded
            file is kept. If ``#sha256=...`` stands at the end of the address, the file is checked.
        num_classes: Number of outputs. Unless given, it is that of the weights, or else 10. If the
            weights have another number, all layers but the last are loaded, and the last one stays
            random.
        seed: Seed of the random parameters; torch's global generators are then left alone. None
            draws from torch's global generator of the CPU.
        preprocessing: Normalization of the images that a new network will be trained on, or the one
            that foreign weights were trained with, as `load_weights` takes it.
        key: Where in the file the weights lie, as `load_weights` takes it.
        rename: Names in the file and the model's names for them, as `load_weights` takes them.
        **options: Options of the model's builder; see ``get_model_info(name).options``. Options
            that are not given are those of the weights, as far as the file, its names and its
            shapes tell, or else the builder's defaults.

    Returns:
        The network in training mode on the CPU, with its card (preprocessing, classes) attached.

    Raises:
        UnknownNameError: No model, or none of its weights, has this name; the message suggests the
            nearest name.
        ArgumentError: ``num_classes`` is below 1 or above 100,000, ``seed`` is no seed, or the
            model has no such option.
        WeightsError: The weights do not fit or are damaged.

    Example:
        >>> import torch
        >>> model = create_model("deep_bn", num_classes=100, seed=0)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """
    spec = get_model_info(name)
    if num_classes is not None:
        num_classes = check_classes(num_classes)
    if seed is not None:
        seed = as_seed(seed)
    check_options(f"model {name!r}", options, spec.options)
    weights: Found | Mapping[str, Any] | None = None
    if isinstance(pretrained, nn.Module):
        raise ArgumentError("pretrained is a state dict, not a network; pass its state_dict()")
    if isinstance(pretrained, Mapping):
        weights = pretrained
    elif pretrained is not None and pretrained is not False:
        weights = find_of_model(spec, pretrained)
    said = {"key": key, "rename": rename}
    if weights is None and any(value is not None for value in said.values()):
        about = ", ".join(name for name, value in said.items() if value is not None)
        raise ArgumentError(f"{about} needs weights to be loaded; pass them as pretrained=")
    content = _read(weights, key=key, rename=rename) if weights is not None else None
    trained_for = None
    if content is not None:
        made_by = content.card
        if made_by is None:
            options, trained_for = choose_options(spec.builder, content, options)
        else:
            trained_for = made_by.num_classes
            if made_by.name == name:
                check_options(f"model {name!r}", made_by.options, spec.options)
                options = {**made_by.options, **options}
    num_classes = num_classes or trained_for or 10
    new_head = trained_for not in (None, num_classes)
    # what was trained on others tells no class of CIFAR-10
    classes = CIFAR10_CLASSES if num_classes == 10 and not new_head else None
    normalized = preprocessing or CIFAR10_PREPROCESSING
    card = ModelCard(name, num_classes, options, normalized, classes)
    is_known = isinstance(weights, Found) and weights.is_intact
    if content is not None and not is_known:  # a file decides of no memory before it fits
        is_said = preprocessing is not None
        check_build(spec.builder, card, content, is_said=is_said, new_head=new_head)
    if seed is None and content is not None and not new_head:
        seed = 0  # the weights replace all that is drawn: torch's global generator stays as it is
    with own_generator(seed):
        model = spec.builder(num_classes=num_classes, **options)
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"the builder of {name!r} must return a torch module; it returned {shorten(model)}"
        )
    if num_classes != 10:
        check_outputs(spec.builder, model, card)
    check_input(model, spec.image_size)
    attach_card(model, card)
    if content is not None:
        fill(model, content, preprocessing=preprocessing, new_head=new_head, is_as_built=True)
    return model


def load_model(path: str | Path) -> nn.Module:
    """Build the model that a weights file of `save_weights` was made from, and load it.

    Args:
        path: The weights file, the folder of a finished run, or the checkpoint of a run.

    Raises:
        WeightsError: The file names no model, or does not fit it.
        UnknownNameError: Its model is not registered; import the module that registers it.
    """
    path = find_weights(path)
    card = read_card(path)
    try:
        get_model_info(card.name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{path} was made from {card.name!r}, and no model of that name is registered: import "
            "the module that registers it, or build the same network and call "
            "load_weights(model, path)"
        ) from error
    return create_model(card.name, pretrained=path)


def _read(weights: Found | Mapping[str, Any], **options: Any) -> Content:
    if isinstance(weights, Found):
        return read_content(weights.path, is_intact=weights.is_intact, **options)
    return read_content(weights, **options)
