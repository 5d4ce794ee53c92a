"""Filling a network from a file that was read: all of it, or a refusal that says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.errors import WeightsError
from cifarzoo.names import keyword_options
from cifarzoo.zoo.builds import (
    Builder,
    describe,
    find_builder,
    own_options,
    plan,
    sketch,
    variants,
)
from cifarzoo.zoo.card import ModelCard, Preprocessing, attach_card, check_numbers, get_card, unwrap
from cifarzoo.zoo.content import Content, list_some, not_finite
from cifarzoo.zoo.foreign import Reading
from cifarzoo.zoo.telling import left_over, tell, warn_of_another, written_call

__all__ = ["check_build", "check_fit", "choose_options", "fill"]


def fill(
    model: nn.Module,
    content: Content,
    *,
    preprocessing: Preprocessing | None,
    new_head: bool,
    is_as_built: bool = False,
) -> dict[str, Any]:
    """Put tensors into a network, and what is known of them on its card; see `load_weights`.

    Args:
        model: The network.
        content: The file.
        preprocessing: As there.
        new_head: As there.
        is_as_built: Whether nobody can have changed the network since it was built.
    """
    is_said = preprocessing is not None
    reading, tensors = check_fit(model, content, is_said=is_said, new_head=new_head)
    inner, made_by, card = unwrap(model), content.card, get_card(model)
    state = inner.state_dict()
    hint = '; build it elsewhere, or call model.to_empty(device="cpu") first'
    check_numbers(state.values(), hint)
    _check_storage(state, tensors, content.name)
    inner.load_state_dict({**state, **tensors})
    is_known = is_as_built and made_by is not None and _is_same_build(card, made_by)
    otherwise = made_by is not None and not is_known and _acts_otherwise(inner, made_by)
    attach_card(
        model, _new_card(card, made_by, preprocessing, new_head=new_head, otherwise=otherwise)
    )
    if not is_as_built:
        attach_card(model, describe(model))
    is_said = made_by is not None or preprocessing is not None
    if made_by is not None and otherwise:
        warn_of_another(content.name, made_by, card)
    tell(content, reading, get_card(model), is_said=is_said)
    return {
        **content.facts,
        "chosen": reading.prefix.removesuffix("."),
        "layout": reading.layout.peer if reading.layout and reading.renamed else None,
        "renamed": reading.renamed,
        "left": left_over(content, reading),
    }


def check_build(
    builder: Builder, card: ModelCard, content: Content, *, is_said: bool, new_head: bool
) -> None:
    """Raise WeightsError when a network cannot take a file's tensors, before there is any of it.

    Args:
        builder: What will build it.
        card: What it will be built as, with what the file says.
        content: The file.
        is_said: Whether the normalization of a foreign file is given.
        new_head: As in `load_weights`.
    """
    if plan(builder, {}) is None:  # it needs memory: as much as the file's own, not what it says
        most = max(
            (max(t.shape) for t in content.tensors.values() if t.numel() and t.ndim), default=0
        )
        if not new_head and card.num_classes > most:
            raise WeightsError(
                f"{content.name} is damaged: its card states {card.num_classes} classes, and no "
                f"tensor in it has more than {most} entries in a row"
            )
        return
    try:
        network = sketch(builder, num_classes=card.num_classes, **card.options)
    except Exception as error:  # whatever a builder does with what it does not expect
        made = written_call(card.name, {**card.options, "num_classes": card.num_classes})
        raise WeightsError(
            f"{content.name} asks for create_model({made}), which cannot be built: {error}"
        ) from error
    attach_card(network, card)
    check_fit(network, content, is_said=is_said, new_head=new_head)


def check_fit(
    model: nn.Module, content: Content, *, is_said: bool, new_head: bool
) -> tuple[Reading, dict[str, Tensor]]:
    """Find a network's tensors in a file, in its types; raises WeightsError when they do not fit.

    Args:
        model: It, or a sketch of it; nothing in it is changed.
        content: The file.
        is_said: Whether the normalization of a foreign file is given.
        new_head: As in `load_weights`.
    """
    inner, card, made_by = unwrap(model), get_card(model), content.card
    state = inner.state_dict()
    reading = content.read(inner)
    tensors = reading.tensors(content.tensors)
    if new_head:
        tensors |= _heads(model, state, tensors)
    problems = _problems(reading, tensors, state)
    if problems:
        under = f", read under {reading.prefix!r}" if reading.prefix else ""
        origin = f" (made by {made_by.name!r})" if made_by else ""
        details = "\n  ".join(problems)
        advice = _advice(content, card)
        raise WeightsError(
            f"{content.name}{origin}{under} does not fit this model{advice}:\n  {details}"
        )
    builder = find_builder(card.name)
    if builder is not None and made_by is not None and made_by.name == card.name:
        _check_options(builder, made_by.options, card.options, content.name)
    parameters = {name for name, _ in inner.named_parameters(remove_duplicate=False)}
    tensors = _convert(tensors, state, parameters, content.name)
    if made_by is None:
        _check_foreign(inner, card, tensors, content, reading, is_said=is_said)
    return reading, tensors


def choose_options(
    builder: Builder, content: Content, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int | None]:
    """The options of a builder, and the number of classes, that a foreign file was made with.

    Args:
        builder: What builds the network.
        content: The file.
        options: Those that are given; only the others are chosen.

    Returns:
        The options, and the number of classes; None where no network of the builder fits.
    """
    for chosen in variants(builder, options):
        planned = plan(builder, chosen)
        if planned is None:
            continue
        reading = content.read(planned.model)
        tensors = reading.tensors(content.tensors)
        count = planned.count_classes(tensors) if reading.is_whole else None
        if count is None:
            continue
        other = _other_options(planned.model, builder, chosen, tensors)
        if not other.keys() - options.keys():
            return chosen, count
    return dict(options), None


def _heads(
    model: nn.Module, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The model's own tensors for whatever has an entry for each of the file's classes.

    Shapes tell which those are, unless file and model have as many classes.
    """
    card = describe(model)
    if all(tensors[each].shape == state[each].shape for each in tensors):
        builder = find_builder(card.name)
        planned = plan(builder, card.options) if builder is not None else None
        if planned is None or not planned.head:
            raise WeightsError(
                "new_head=True keeps the last layer, and which one it is cannot be told where file "
                "and model have as many classes; call reset_classifier after loading"
            )
        return {each: state[each] for each in planned.head if each in tensors}
    num_classes = card.num_classes
    other = [each for each in tensors if tensors[each].shape != state[each].shape]
    sizes = {(tensors[each].shape[:1], state[each].shape[:1]) for each in other}
    alike = all(tensors[each].shape[1:] == state[each].shape[1:] for each in other)
    is_head = alike and len(sizes) == 1 and {own for _, own in sizes} == {(num_classes,)}
    return {each: state[each] for each in other} if is_head else {}


def _problems(
    reading: Reading, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[str]:
    """Why tensors do not fit, a line for each kind of reason."""
    shapes = [
        f"{each} (file {tuple(tensors[each].shape)}, model {tuple(own.shape)})"
        for each, own in state.items()
        if each in tensors and tensors[each].shape != own.shape
    ]
    types = [
        f"{each} (file {tensor.dtype}, model {state[each].dtype})"
        for each, tensor in tensors.items()
        if _is_other_kind(tensor, state[each])
    ]
    kinds = (
        ("missing in the file", reading.missing),
        ("unknown to the model", reading.unexpected),
        ("other shape", shapes),
        ("numbers of another kind", types),
    )
    return [f"{title}: {list_some(names)}" for title, names in kinds if names]


def _is_other_kind(tensor: Tensor, own: Tensor) -> bool:
    """Whether a file's numbers mean something else than the model's; a count may be written 3.0."""
    if tensor.dtype == own.dtype:
        return False
    if own.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        return not tensor.is_floating_point()
    return tensor.is_floating_point() and not bool((tensor == tensor.round()).all())


def _advice(content: Content, card: ModelCard) -> str:
    """How to build the network that the file would fit."""
    made_by = content.card
    if made_by is not None:
        differ = (made_by.name, made_by.options) != (card.name, card.options)
        if differ and find_builder(made_by.name) is not None:
            return f"; build it by create_model({written_call(made_by.name, made_by.options)})"
        return (
            "; build it with the options on the file's card, or, for other classes, by "
            "create_model(name, pretrained=..., num_classes=...)"
        )
    builder = find_builder(card.name)
    if builder is None:
        return ""
    options, count = choose_options(builder, content, {})
    if count is None:
        return ""
    if count != card.num_classes:
        options |= {"num_classes": count}
    elif options == dict(card.options):  # the same network, with something wrong
        return ""
    return (
        f"; it is one of create_model({written_call(card.name, options)}). Build that, or let "
        f"create_model({card.name!r}, pretrained=...) find it out"
    )


def _check_options(
    builder: Builder, made_with: Mapping[str, Any], built_with: Mapping[str, Any], name: str
) -> None:
    """Refuse an option that no shape tells of, unless the model's builder was given it too."""
    unsaid = {
        option: value
        for option, value in own_options(builder, made_with).items()
        if option not in built_with
    }
    if unsaid:
        text = ", ".join(f"{option}={value!r}" for option, value in unsaid.items())
        raise WeightsError(
            f"{name} was made with {text}, which this model was not given; build it by "
            f"load_model(path), or by create_model(name, {text})"
        )


def _convert(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], parameters: set[str], name: str
) -> dict[str, Tensor]:
    """The tensors in the model's types; raises WeightsError when a number is none."""
    converted = {each: tensor.to(state[each].dtype) for each, tensor in tensors.items()}
    # the model's own stay where its last layer is for other classes
    loaded = {each: tensor for each, tensor in converted.items() if tensor is not state[each]}
    if bad := not_finite(loaded, parameters):
        raise WeightsError(
            f"{name} holds numbers that are NaN or infinite, as a training that failed leaves "
            f"them: {list_some(bad)}; take an earlier checkpoint"
        )
    return converted


def _check_storage(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse what cannot be filled as a whole: tied layers with two contents, expanded tensors."""
    first: dict[Any, str] = {}
    for each, own in state.items():
        if not isinstance(own, Tensor) or own.layout != torch.strided:
            continue
        if any(size > 1 and step == 0 for size, step in zip(own.shape, own.stride(), strict=True)):
            raise WeightsError(
                f"{each} of this model is an expanded tensor, in which several entries are one; "
                "build it with a .clone() of it"
            )
        if each not in tensors or not own.numel():
            continue
        other = first.setdefault((own.data_ptr(), own.shape, own.stride()), each)
        if other != each and not torch.equal(tensors[other], tensors[each]):
            raise WeightsError(
                f"{other} and {each} are one tensor of this model, which ties them, and two that "
                f"differ in {name}; build the model without tying them"
            )


def _check_foreign(
    inner: nn.Module,
    card: ModelCard,
    tensors: Mapping[str, Tensor],
    content: Content,
    reading: Reading,
    *,
    is_said: bool,
) -> None:
    """Refuse what fits by name and shape and yet is known to be something else."""
    builder = find_builder(card.name)
    other = _other_options(inner, builder, card.options, tensors) if builder else {}
    # whoever gives an option means it: only the defaults may be wrong
    other = {name: value for name, value in other.items() if name not in card.options}
    if other:
        raise WeightsError(
            f"{content.name} fits this model by its names and shapes, but its numbers are those of "
            f"create_model({written_call(card.name, {**card.options, **other})}); build that"
        )
    left = [each for each in content.tensors if each not in reading.read]
    values = {
        each: content.tensors[each].flatten().tolist()
        for each in left
        if content.tensors[each].numel() == 3
        and {"mean", "std"} & {*each.rpartition(".")[2].lower().split("_")}
    }
    if len(values) == 2 and not is_said:
        text = ", ".join(f"{each} {[round(x, 4) for x in v]}" for each, v in values.items())
        raise WeightsError(
            f"{content.name} also states how its images were normalized: {text}; "
            "pass this as preprocessing=Preprocessing(mean=..., std=...)"
        )


def _other_options(
    network: nn.Module,
    builder: Builder,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What the numbers in a file tell of options, where that is not what ``options`` are."""
    tell = getattr(network, "told_options", None)
    told: dict[str, Any] = tell(tensors) if tell is not None else {}
    defaults = {name: each.default for name, each in keyword_options(builder).items()}
    return {
        name: value
        for name, value in told.items()
        if name in defaults and options.get(name, defaults[name]) != value
    }


def _new_card(
    card: ModelCard,
    made_by: ModelCard | None,
    preprocessing: Preprocessing | None,
    *,
    new_head: bool,
    otherwise: bool,
) -> ModelCard:
    """The model's card once it has the weights: the file's, as far as there is one.

    A network that acts ``otherwise`` than the file's keeps its own name and options.
    """
    if made_by is not None:
        is_zoo = find_builder(made_by.name) is not None  # another name says nothing of this model
        same = made_by if is_zoo and made_by.name != card.name and not otherwise else card
        head = card if new_head else made_by
        card = dataclasses.replace(
            made_by,
            name=same.name,
            options=same.options,
            num_classes=head.num_classes,
            classes=head.classes,
        )
    if preprocessing is not None:
        card = dataclasses.replace(card, preprocessing=preprocessing)
    return card


def _is_same_build(card: ModelCard, made_by: ModelCard) -> bool:
    return (card.name, card.options) == (made_by.name, made_by.options)


def _acts_otherwise(network: nn.Module, made_by: ModelCard) -> bool:
    """Whether a network computes something else than the one the file was made from."""
    builder = find_builder(made_by.name)
    if builder is None:
        return False
    planned = plan(builder, made_by.options)
    return planned is not None and not planned.is_structure_of(network)
