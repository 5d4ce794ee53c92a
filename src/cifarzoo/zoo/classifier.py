"""The last layer of a network, which has an output for each class: found, and replaced."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.seeding import as_seed, own_generator
from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.frozen import FrozenDict
from cifarzoo.names import texts
from cifarzoo.plain import shorten
from cifarzoo.zoo.builds import describe, find_builder
from cifarzoo.zoo.card import ModelCard, attach_card, check_classes, unwrap

__all__ = ["find_classifier", "get_classifier", "reset_classifier"]


_SIZES = (32, 224, 256, 384, 448)
_LAYERS = (nn.Linear, nn.Conv2d)


def find_classifier(model: nn.Module) -> str:
    """Name of the dense layer, or of the convolution, whose output is the logits.

    It is found by a pass of one image, in a twin of the network.

    Raises:
        InputError: There is no such layer, or it cannot be found.
    """
    return _find(unwrap(model))[0]


def get_classifier(model: nn.Module) -> nn.Module:
    """Find the last layer of any network, which has an output for each class.

    Args:
        model: A network of the zoo, of torchvision, of timm, or your own.

    Returns:
        The layer itself, an ``nn.Linear`` or an ``nn.Conv2d``. If the network has a method
        ``get_classifier``, as networks of timm do, it is the result of this method; several layers
        become an ``nn.ModuleList``.

    Raises:
        InputError: There is no such layer, or it cannot be found.

    Example:
        >>> from cifarzoo import create_model
        >>> get_classifier(create_model("resnet20"))
        Linear(in_features=64, out_features=10, bias=True)
    """
    inner = unwrap(model)
    own = _method(inner, "get_classifier")
    if own is None:
        return inner.get_submodule(find_classifier(inner))
    found = own()
    if isinstance(found, tuple | list):
        return nn.ModuleList(found)
    if not isinstance(found, nn.Module):
        raise InputError(
            f"get_classifier() of {type(inner).__name__} must return a layer; it returned {found!r}"
        )
    return found


def reset_classifier(
    model: nn.Module,
    num_classes: int,
    *,
    classes: Sequence[str] | None = None,
    seed: int | None = None,
) -> None:
    """Give a network a new last layer, with random parameters, for other classes.

    All other parameters stay, so this is how fine-tuning begins. The network's card then has the
    new number of classes, and the new names or none. If another layer with an output for each
    class is used in training, as in Inception, it is replaced too. Make the optimizer afterwards.

    Args:
        model: A network of the zoo, of torchvision, of timm, or your own, which is changed in
            place. If it has a method ``reset_classifier``, as networks of timm do, this method is
            called.
        num_classes: Number of outputs of the new layer, from 1 to 100,000.
        classes: Names of the classes, in the order of the labels. If they are None and the training
            images name their classes, training fills them in.
        seed: Seed of the new parameters; torch's global generators are then left alone.

    Raises:
        ArgumentError: ``num_classes`` is not the number of ``classes``, or ``seed`` is no seed.
        InputError: The last layer of the network cannot be found; nothing is changed.

    Example:
        >>> from cifarzoo import create_model, get_card
        >>> model = create_model("resnet20", pretrained=True)
        >>> reset_classifier(model, 2, classes=["cat", "dog"])
        >>> get_classifier(model).out_features, get_card(model).classes
        (2, ('cat', 'dog'))
    """
    count = check_classes(num_classes)
    seed = None if seed is None else as_seed(seed)
    names = texts(classes)
    if classes is not None and (names is None or len(names) != count):
        raise ArgumentError(
            f"classes must be {count} names, one for each output; got {shorten(classes)}"
        )
    inner, card = unwrap(model), describe(model)
    own = _method(inner, "reset_classifier") if find_builder(card.name) is None else None
    found = _find(inner) if own is None else None  # a pass, in which attention may draw numbers
    with own_generator(seed):
        if own is not None:
            _reset_by_itself(inner, own, count)
        elif found is not None:
            _replace(inner, card, count, *found)
    attach_card(inner, dataclasses.replace(card, num_classes=count, classes=names))


def _method(model: nn.Module, name: str) -> Callable[..., Any] | None:
    found = getattr(model, name, None)
    return found if callable(found) and not isinstance(found, nn.Module) else None


def _reset_by_itself(model: nn.Module, reset: Callable[..., Any], count: int) -> None:
    """Let the network do it; new parameters follow the old ones to their device and dtype."""
    old = {id(parameter) for parameter in model.parameters()}
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    reset(count)
    for module in model.modules():
        new = [p for p in module.parameters(recurse=False) if id(p) not in old]
        if new and like is not None:
            module.to(device=like.device, dtype=like.dtype)


def _replace(
    model: nn.Module, card: ModelCard, count: int, name: str, auxiliary: Sequence[str]
) -> None:
    old = {each: model.get_submodule(each) for each in (name, *auxiliary)}
    builder = find_builder(card.name)
    if builder is not None:  # it knows which numbers the last layer begins with
        built = builder(num_classes=count, **card.options)
        new = {name: built.get_submodule(name).to(_tensor(old[name])).train(old[name].training)}
    else:
        new = {each: _widened(layer, count) for each, layer in old.items()}
    for each, layer in new.items():
        parent, _, own = each.rpartition(".")
        setattr(model.get_submodule(parent), own, layer)
    if isinstance(model.__dict__.get("num_classes"), int):  # networks of torchvision note it
        model.__dict__["num_classes"] = count


def _widened(layer: nn.Module, count: int) -> nn.Module:
    """A layer like ``layer``, with ``count`` outputs and new parameters."""
    if "weight" not in layer._parameters:
        raise InputError(
            f"the last layer, {type(layer).__name__}, computes its weight from other parameters, "
            "as by weight_norm or spectral_norm; replace it by hand, or remove that before"
        )
    new = copy.deepcopy(layer)
    assert isinstance(new, _LAYERS)
    setattr(new, "out_features" if isinstance(new, nn.Linear) else "out_channels", count)
    new.weight = nn.Parameter(new.weight.new_empty(count, *new.weight.shape[1:]))
    if new.bias is not None:
        new.bias = nn.Parameter(new.bias.new_empty(count))
    new.reset_parameters()
    return new


def _find(model: nn.Module) -> tuple[str, list[str]]:
    """Name of the last layer, and of those like it that evaluation does not use."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    for size in _sizes(model):
        if first is None:
            break
        images = torch.zeros(1, 3, size, size, dtype=first.dtype, device=first.device)
        try:
            outputs, logits = _trace(model, images)
        except Exception:  # a network for other images
            continue
        if not isinstance(logits, Tensor) or logits.ndim != 2:  # features, or several answers
            continue
        # what scales the logits, or leaves out dimensions of size 1, comes after the last layer
        for name, output in reversed(outputs.items()):
            if isinstance(output, Tensor) and output.numel() == logits.numel():
                _, same = _trace(model, images + 0.5, {name: output})
                if not (same.is_meta or torch.allclose(same, logits, equal_nan=True)):
                    raise InputError(
                        f"{type(model).__name__} has no last layer: its logits depend on "
                        f"{name!r} and on other layers beside it; take its parts one by one"
                    )
                width = _width(model.get_submodule(name))
                unused = [
                    each
                    for each, part in model.named_modules()
                    if isinstance(part, _LAYERS) and each not in outputs and _width(part) == width
                ]
                return name, unused
    raise InputError(
        f"the last layer of {type(model).__name__} cannot be found: its logits are not the output "
        "of an nn.Linear or of an nn.Conv2d"
    )


def _sizes(model: nn.Module) -> list[int]:
    """Heights of images that the network may take; timm's networks say theirs."""
    stated = getattr(model, "pretrained_cfg", None)
    size = stated.get("input_size") if isinstance(stated, dict) else None
    return [*_SIZES, size[1]] if size else [*_SIZES]


def _width(layer: nn.Module) -> int:
    return len(_tensor(layer))


def _tensor(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _trace(
    model: nn.Module, images: Tensor, fixed: Mapping[str, Tensor] = FrozenDict()
) -> tuple[dict[str, Any], Any]:
    """What each dense layer and convolution answers, in the order of their answers; the logits.

    Args:
        model: The network.
        images: What it is asked.
        fixed: What layers answer whatever they are asked.
    """
    outputs: dict[str, Any] = {}

    def note(name: str, output: Any) -> Any:
        outputs[name] = fixed[name].clone() if name in fixed else output
        return outputs[name]

    with evaluating(model) as network, torch.no_grad():
        hooks = [
            part.register_forward_hook(lambda _, inputs, output, name=name: note(name, output))
            for name, part in network.named_modules()
            if isinstance(part, _LAYERS)
        ]
        try:
            logits = network(images)
        finally:
            for hook in hooks:
                hook.remove()
    return outputs, logits
