"""From images to logits: a whole set, in evaluation mode, normalized as the network wants it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels, keep_freed_memory, needs_contiguous
from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.compute.twin import evaluating
from cifarzoo.data import ImageSet
from cifarzoo.data.batches import Batches, check_labels, check_logits
from cifarzoo.data.classes import class_names, class_numbers, renumber
from cifarzoo.data.feed import Feed
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation.views import UNSURE, TestTimeAugmentation, average_views, check_views
from cifarzoo.names import check_count, real_number
from cifarzoo.plain import shorten
from cifarzoo.zoo.card import get_card, names_of_outputs, unwrap
from cifarzoo.zoo.classifier import find_classifier

__all__ = [
    "Images",
    "answering",
    "as_probabilities",
    "check_temperature",
    "collect_logits",
    "collect_views",
    "embeddings",
    "infer",
    "probabilities",
]

Images = ImageSet | Batches

_BATCH = 500
_MOST_AT_ONCE = 2**31  # more than any memory holds
_FLOAT = torch.finfo(torch.float32)


@contextlib.contextmanager
def answering(
    model: nn.Module, place: Place, *, layer: str | None = None
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield what answers to a batch: from images (B, 3, H, W) on ``place`` to float32 (B, C) there.

    A twin of ``model`` computes, in evaluation mode; the model is left as it is, and where it is.

    Args:
        model: The network.
        place: Where it computes.
        layer: Name of a module whose input is wanted, (B, features), in place of the logits.
    """
    with (
        evaluating(model, place.device) as network,
        cpu_kernels(network, enabled=place.kernels),
        keep_freed_memory(place.device, enabled=place.kernels),
        contextlib.ExitStack() as stack,
    ):
        seen: list[Tensor] = []

        def note(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            seen.append(inputs[0] if inputs else named["input"])

        if layer is not None:
            part = unwrap(network).get_submodule(layer)
            stack.callback(part.register_forward_pre_hook(note, with_kwargs=True).remove)

        # the layout that the kernels for float32 take
        turns = place.kernels and place.device.type == "cpu" and place.precision == torch.float32

        def pass_through(images: Tensor) -> Any:
            seen.clear()
            # no inference_mode: what a module keeps for later may be needed in training
            with torch.no_grad(), place.autocast():
                return network(images if place.is_mixed else images.to(place.precision))

        def answer(images: Tensor) -> Tensor:
            nonlocal turns
            if turns:
                images = images.contiguous(memory_format=torch.channels_last)
            try:
                found = pass_through(images)
            except RuntimeError as error:
                if images.is_contiguous() or not needs_contiguous(error):
                    raise
                turns = False
                found = pass_through(images.contiguous())
            if layer is not None:
                if len(seen) != 1:
                    raise InputError(f"layer {layer!r} is used {len(seen)} times for an image")
                found = seen[0].flatten(1)
            check_logits(found, len(images))
            logits: Tensor = found.float()
            return logits

        yield answer


def infer(
    model: nn.Module,
    images: Any,
    ways: Sequence[TestTimeAugmentation] = ("none",),
    *,
    place: Place,
    batch_size: int = _BATCH,
    layer: str | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[dict[TestTimeAugmentation, Tensor], Tensor | None]:
    """Logits of all images, for each test-time augmentation in ``ways``, which share their views.

    Only "flip_shift_unsure" computes its six anew.

    Args:
        model: Left as it is, and where it is: a twin of it computes.
        images: An ImageSet, a tensor (N, 3, H, W), or batches, with labels or without. uint8 images
            are normalized by the model's own card, float ones taken as normalized.
        ways: Test-time augmentations.
        place: Where.
        batch_size: Number of images that are computed at once, for a set or tensor.
        layer: As for `answering`.
        advance: Called after each batch, with how many views it had; see `count_views`.

    Returns:
        Float32 logits (N, C) for each way, and the labels (N,) as they came, all on the CPU; None
        for the labels when there are none.

    Raises:
        InputError: There are no images, only some have labels, or a logit is not finite.
        ArgumentError: One of ``ways`` is unknown, ``batch_size`` is below 1, or ``advance`` is no
            function.
    """
    check_views(ways)
    if advance is not None and not callable(advance):
        raise ArgumentError(f"advance must be a function of a number; got {shorten(advance)}")
    batch_size = check_count("batch_size", batch_size, most=_MOST_AT_ONCE)
    # the images that are unsure are known when all have been seen once
    at_once: dict[TestTimeAugmentation, None]
    at_once = dict.fromkeys("none" if tta == UNSURE else tta for tta in ways)
    feed = Feed.for_inference(
        images, preprocessing=get_card(model).preprocessing, place=place, batch_size=batch_size
    )
    parts: list[dict[TestTimeAugmentation, Tensor]] = []
    labels: list[Tensor] = []
    kept: list[Tensor] = []
    with answering(model, place, layer=layer) as silent, torch.no_grad():
        answer = silent if advance is None else _telling(silent, advance)
        for batch, numbers in feed.once():
            # what lies on an accelerator stays there: each look would wait for it
            parts.append(average_views(answer, batch, at_once))
            if numbers is not None:
                labels.append(numbers)
            if UNSURE in ways:
                if kept and kept[0].shape[2:] != batch.shape[2:]:
                    raise InputError(
                        f"{UNSURE!r} needs images of one size; there are {_size(kept[0])} and "
                        f"{_size(batch)}: take 'flip_shift', which gives all images six views"
                    )
                kept.append(batch)
        if not parts:
            raise InputError("there are no images to evaluate")
        if labels and len(labels) != len(parts):
            raise InputError("some batches have labels and others none; pass all, or none")
        if layer is None:
            names, outputs = class_names(images), parts[0][next(iter(at_once))].shape[1]
            feed.check_columns(len(names) if names else outputs)
        found = {tta: torch.cat([part[tta] for part in parts]) for tta in at_once}
        if kept:
            logits = found["none"].clone()
            unsure = logits.softmax(1).amax(1).argsort()[: math.ceil(len(logits) / 4)]
            again = torch.split(torch.cat(kept)[unsure], batch_size)
            logits[unsure] = torch.cat(
                [average_views(answer, part, ["flip_shift"])["flip_shift"] for part in again]
            )
            found[UNSURE] = logits
        answers = {tta: found[tta].cpu() for tta in ways}
        known = torch.cat(labels).cpu() if labels else None
    for logits in answers.values():
        count = int((~logits.isfinite()).any(1).sum())
        if count:
            raise InputError(
                f"the model returns NaN or infinity for {count:,} of {len(logits):,} images; "
                "its weights have diverged, or the images are not finite"
            )
    return answers, known


def _size(images: Tensor) -> str:
    return f"{images.shape[3]}x{images.shape[2]}"


def _telling(
    answer: Callable[[Tensor], Tensor], advance: Callable[[int], None]
) -> Callable[[Tensor], Tensor]:
    def tell(images: Tensor) -> Tensor:
        found = answer(images)
        advance(len(images))
        return found

    return tell


def collect_logits(
    model: nn.Module,
    images: Images,
    *,
    tta: TestTimeAugmentation = "none",
    place: Place,
    batch_size: int = _BATCH,
    advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits and labels of all images, as `collect_views` for one test-time augmentation."""
    found, labels = collect_views(
        model, images, (tta,), place=place, batch_size=batch_size, advance=advance
    )
    return found[tta], labels


def collect_views(
    model: nn.Module,
    images: Images,
    ways: Sequence[TestTimeAugmentation],
    *,
    place: Place,
    batch_size: int = _BATCH,
    advance: Callable[[int], None] | None = None,
) -> tuple[dict[TestTimeAugmentation, Tensor], Tensor]:
    """`infer` for images with labels.

    Returns:
        Logits as of `infer`, and int64 labels (N,) on the CPU: the model's own numbers, where the
        images name their classes and the model knows the names.

    Raises:
        InputError: As for `infer`; or a label is missing or has no output, or the model knows some
            of the images' classes and not the others.
    """
    found, labels = infer(model, images, ways, place=place, batch_size=batch_size, advance=advance)
    if labels is None:
        raise InputError("evaluation needs labels; pass pairs (images, labels)")
    outputs = found[ways[0]].shape[1]
    numbers = class_numbers(class_names(images), names_of_outputs(get_card(model).classes, outputs))
    check_labels(labels, outputs if numbers is None else len(numbers))
    return found, labels if numbers is None else renumber(labels, numbers)


def check_temperature(temperature: float) -> float:
    """``temperature`` as Python's float; raises ArgumentError when it cannot divide logits."""
    number = real_number(temperature)
    # below the least normal number a processor may take it for 0, and what is divided is NaN
    if number is None or not _FLOAT.tiny <= number <= _FLOAT.max:
        raise ArgumentError(
            f"temperature must be a positive number from {_FLOAT.tiny:.2g} to {_FLOAT.max:.2g}; "
            f"got {shorten(temperature)}: calibrate() finds one, and 1.0 changes nothing"
        )
    return float(number)


def probabilities(
    model: nn.Module,
    images: Any,
    *,
    tta: TestTimeAugmentation = "none",
    temperature: float = 1.0,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: int = _BATCH,
) -> Tensor:
    """Compute how probable each class is, for each image.

    Args:
        model: The network; it is left as it is.
        images: An `ImageSet`, a tensor (N, 3, H, W), or batches of images, with labels or without.
            Images of uint8 are normalized as the model's card says; float images are taken as
            normalized already.
        tta: Test-time augmentation, as `evaluate` takes it.
        temperature: Number that divides the logits; `calibrate` finds it.
        device: Device to compute on; None for the model's own.
        precision: "auto" takes bfloat16 where the device computes it natively.
        batch_size: Number of images that are computed at once, for a set or tensor.

    Returns:
        Float32 (N, classes) in 0..1 on the CPU; each row adds up to 1.

    Raises:
        InputError: There are no images, or the model returns NaN.
        ArgumentError: ``tta`` is unknown, or ``temperature`` is no positive number of float32.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> probabilities(create_model("simple"), load_sample("test").images[:4]).shape
        torch.Size([4, 10])
    """
    temperature = check_temperature(temperature)
    place = Place.find(device, precision, model=model)
    found, _ = infer(model, images, (tta,), place=place, batch_size=batch_size)
    return as_probabilities(found[tta], temperature)


def as_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """What `probabilities` makes of logits (N, C)."""
    # the highest becomes 0, which a small temperature cannot make infinite
    return ((logits - logits.amax(1, keepdim=True)) / temperature).softmax(1)


def embeddings(
    model: nn.Module,
    images: Any,
    *,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: int = _BATCH,
) -> Tensor:
    """Compute what the network's last layer sees of each image: the features of the image.

    They serve to search for similar images, or to train another classifier.

    Args:
        model: The network; it is left as it is. Its last layer is the one that has an output for
            each class.
        images: Images, as `probabilities` takes them.
        device: Device to compute on; None for the model's own.
        precision: "auto" takes bfloat16 where the device computes it natively.
        batch_size: Number of images that are computed at once, for a set or tensor.

    Returns:
        Float32 (N, features) on the CPU.

    Raises:
        InputError: There are no images, or the last layer of the network cannot be found.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> embeddings(create_model("resnet20"), load_sample("test").images[:4]).shape
        torch.Size([4, 64])
    """
    place = Place.find(device, precision, model=model)
    name = find_classifier(model)
    found, _ = infer(model, images, place=place, batch_size=batch_size, layer=name)
    return found["none"]
