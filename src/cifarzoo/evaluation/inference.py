"""Logits of a whole set: in evaluation mode, normalized as the network wants it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels, keep_freed_memory
from cifarzoo.compute.place import (
    Precision,
    autocast,
    resolve_device,
    resolve_precision,
)
from cifarzoo.compute.twin import evaluating
from cifarzoo.data import ImageSet, Loader
from cifarzoo.data.batches import (
    Batches,
    as_pair,
    check_batch,
    check_labels,
    check_logits,
    check_normalized,
    check_shape,
)
from cifarzoo.data.classes import class_names, class_numbers, renumber
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.zoo.card import get_card, names_of_outputs

__all__ = ["Images", "TestTimeAugmentation", "collect_logits", "collect_views"]

Images = ImageSet | Batches
TestTimeAugmentation = Literal["none", "flip", "flip_shift", "flip_shift_unsure"]

# weight of each view: whether mirrored, pixels moved up and left (down and right when negative)
_VIEWS: dict[str, dict[tuple[bool, int], float]] = {
    "none": {(False, 0): 1.0},
    "flip": {(False, 0): 0.5, (True, 0): 0.5},
    "flip_shift": {
        (mirrored, shift): 0.25 if shift == 0 else 0.125
        for mirrored in (False, True)
        for shift in (0, 1, -1)
    },
}
_UNSURE: TestTimeAugmentation = "flip_shift_unsure"

_BATCH = 500


def collect_logits(
    model: nn.Module,
    images: Images,
    *,
    tta: TestTimeAugmentation = "none",
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    batch_size: int = _BATCH,
) -> tuple[Tensor, Tensor]:
    """Logits and labels of all images.

    Args:
        model: Left as it is, and where it is: a twin of it computes.
        images: An ImageSet, or batches ``(images, labels)``: uint8 images are normalized by the
            model's own card, float ones taken as normalized.
        tta: Test-time augmentation: the mean of the logits of several views of an image. "flip":
            the image and its mirror image. "flip_shift": both of these, and both moved by a pixel,
            up and left or down and right, at half the weight (Jordan 2024, arXiv:2404.00498,
            section 3.5). "flip_shift_unsure": that for the quarter of the images whose plain
            prediction is least confident, the plain logits for the others.
        device: "auto", or any torch device.
        precision: "auto" takes bfloat16 where the device computes it natively.
        batch_size: Images at once, for an ImageSet.

    Returns:
        Float32 logits (N, C) and int64 labels (N,), both on the CPU. Labels are the model's own
        numbers where the images name their classes and the model knows the names.

    Raises:
        InputError: There are no images, a label has no output, a logit is not finite, or the model
            knows some of the images' classes and not the others.
        ArgumentError: ``tta`` is unknown.
    """
    found, labels = collect_views(
        model, images, (tta,), device=device, precision=precision, batch_size=batch_size
    )
    return found[tta], labels


def collect_views(
    model: nn.Module,
    images: Images,
    ways: Sequence[TestTimeAugmentation],
    *,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    batch_size: int = _BATCH,
) -> tuple[dict[TestTimeAugmentation, Tensor], Tensor]:
    """`collect_logits` for each test-time augmentation in ``ways``, which share their views.

    Only "flip_shift_unsure" computes its six anew.
    """
    for tta in ways:
        if tta not in get_args(TestTimeAugmentation):
            raise ArgumentError(f"tta must be one of {get_args(TestTimeAugmentation)}; got {tta!r}")
    # the images that are unsure are known when all have been seen once
    at_once: dict[TestTimeAugmentation, None]
    at_once = dict.fromkeys("none" if tta == _UNSURE else tta for tta in ways)
    place = resolve_device(device)
    dtype = resolve_precision(precision, place)
    card = get_card(model)
    preprocessing = card.preprocessing
    names, numbers = class_names(images), None
    if not isinstance(images, Iterable | ImageSet) or isinstance(images, str | Tensor):
        raise InputError(
            f"evaluation takes an ImageSet or batches (images, labels); got {images!r}: "
            "load_cifar10('test') gives one"
        )
    batches: Batches = (
        Loader(
            images, batch_size=batch_size, preprocessing=preprocessing, device=place, dtype=dtype
        )
        if isinstance(images, ImageSet)
        else images
    )
    parts: list[dict[TestTimeAugmentation, Tensor]] = []
    all_labels: list[Tensor] = []
    kept: list[Tensor] = []
    with (
        evaluating(model, place) as network,
        cpu_kernels(network),
        torch.inference_mode(),
        autocast(place, dtype),
        keep_freed_memory(place),
    ):
        for item in batches:
            batch, labels = as_pair(item)
            batch = batch.to(place)
            if batch.dtype == torch.uint8:
                check_shape(batch)
                batch = preprocessing.normalize(batch)
            elif not isinstance(images, ImageSet | Loader):  # those are normalized here
                check_normalized(batch, preprocessing)
            if not parts or not isinstance(images, ImageSet):
                check_batch(batch, labels)
            batch = batch.to(dtype)
            parts.append(_averaged(network, batch, at_once))
            if len(parts) == 1:
                outputs = next(iter(parts[0].values())).shape[1]
                numbers = class_numbers(names, names_of_outputs(card.classes, outputs))
            all_labels.append(labels.cpu())
            if _UNSURE in ways:
                kept.append(batch)
        if not parts:
            raise InputError("there are no images to evaluate")
        found = {tta: torch.cat([part[tta] for part in parts]) for tta in at_once}
        if kept:
            logits = found["none"].clone()
            unsure = logits.softmax(1).amax(1).argsort()[: math.ceil(len(logits) / 4)]
            again = torch.split(torch.cat(kept)[unsure.to(place)], batch_size)
            six = [_averaged(network, part, ["flip_shift"])["flip_shift"] for part in again]
            logits[unsure] = torch.cat(six)
            found[_UNSURE] = logits
    for logits in found.values():
        count = int((~logits.isfinite()).any(1).sum())
        if count:
            raise InputError(
                f"the model returns NaN or infinity for {count:,} of {len(logits):,} images; "
                "its weights have diverged, or the images are not finite"
            )
    labels = torch.cat(all_labels)
    check_labels(labels, outputs if numbers is None else len(numbers))
    if numbers is not None:
        labels = renumber(labels, numbers)
    return {tta: found[tta] for tta in ways}, labels


def _averaged(
    model: nn.Module, images: Tensor, ways: Iterable[TestTimeAugmentation]
) -> dict[TestTimeAugmentation, Tensor]:
    """Float32 logits (B, C) on the CPU for each way: the mean over its views of ``images``."""
    height, width = images.shape[2:]
    means: dict[TestTimeAugmentation, Tensor] = {}
    for mirrored, shift in _VIEWS["flip_shift"]:
        weights = {way: _VIEWS[way].get((mirrored, shift)) for way in ways}
        if not any(weights.values()):
            continue
        view = images
        if shift:
            view = F.pad(view, (1, 1, 1, 1), mode="reflect")
            view = view[:, :, 1 + shift : 1 + shift + height, 1 + shift : 1 + shift + width]
        view = view.flip(3) if mirrored else view
        logits = model(view)
        check_logits(logits, len(view))
        for way, weight in weights.items():
            if weight:
                means[way] = means.get(way, 0.0) + weight * logits.float()
    return {way: mean.cpu() for way, mean in means.items()}
