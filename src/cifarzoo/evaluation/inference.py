"""Logits of a whole set: in evaluation mode, normalized as the network wants it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cifarzoo.card import get_card
from cifarzoo.data import ImageSet, Loader
from cifarzoo.device import (
    Precision,
    autocast,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from cifarzoo.errors import ArgumentError, InputError

__all__ = ["Images", "TestTimeAugmentation", "collect_logits", "evaluation_mode"]

Images = ImageSet | Iterable[tuple[Tensor, Tensor]]
TestTimeAugmentation = Literal["none", "flip"]

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
        model: Moved to ``device``; its mode is restored.
        images: An ImageSet, or batches ``(images, labels)``: uint8 images are normalized by the
            model's own card, float ones taken as normalized.
        tta: "flip" averages the logits of each image and its mirror image.
        device: "auto", or any torch device.
        precision: "auto" takes bfloat16 where the device computes it natively.
        batch_size: Images at once, for an ImageSet.

    Returns:
        Float32 logits (N, C) and int64 labels (N,), both on the CPU.

    Raises:
        InputError: There are no images, or a logit is NaN.
        ArgumentError: ``tta`` is unknown.
    """
    if tta not in get_args(TestTimeAugmentation):
        raise ArgumentError(f"tta must be one of {get_args(TestTimeAugmentation)}; got {tta!r}")
    place = resolve_device(device)
    dtype = resolve_precision(precision, place)
    preprocessing = get_card(model).preprocessing
    batches: Iterable[tuple[Tensor, Tensor]] = (
        Loader(
            images, batch_size=batch_size, preprocessing=preprocessing, device=place, dtype=dtype
        )
        if isinstance(images, ImageSet)
        else images
    )
    all_logits, all_labels = [], []
    model.to(place)
    with (
        evaluation_mode(model),
        torch.inference_mode(),
        autocast(place, dtype),
        keep_freed_memory(place),
    ):
        for batch, labels in batches:
            batch = batch.to(place)
            if batch.dtype == torch.uint8:
                batch = preprocessing.normalize(batch)
            batch = batch.to(dtype)
            logits = model(batch).float()
            if tta == "flip":
                logits = (logits + model(batch.flip(3)).float()) / 2
            all_logits.append(logits.cpu())
            all_labels.append(labels.cpu())
    if not all_logits:
        raise InputError("there are no images to evaluate")
    logits, labels = torch.cat(all_logits), torch.cat(all_labels)
    if bool(logits.isnan().any()):
        count = int(logits.isnan().any(1).sum())
        raise InputError(
            f"the model returns NaN for {count:,} of {len(logits):,} images; its weights have "
            "diverged, or the images are not finite"
        )
    return logits, labels


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; every submodule gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
