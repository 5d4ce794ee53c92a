"""Wrong batches are refused: at once on a CPU, later on an accelerator, which nobody waits for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.batches import (
    as_images,
    as_pair,
    check_batch,
    check_image_range,
    check_labels,
    check_normalized,
    check_shape,
    unpack,
)
from cifarzoo.data.labels import row_width
from cifarzoo.errors import InputError
from cifarzoo.zoo.card import Preprocessing

__all__ = ["Checks"]


class Checks:
    """What is asked of the batches of one source, one after the other.

    Args:
        device: Where batches go.
        preprocessing: By which float images must be normalized.
        takes_soft: Whether labels may be shares of several classes, float (B, classes).
        needs_labels: Whether a batch must not be images alone.

    Attributes:
        num_labels: How many different labels there are, once `match` was told.
    """

    def __init__(
        self,
        device: torch.device,
        preprocessing: Preprocessing,
        *,
        takes_soft: bool,
        needs_labels: bool,
    ) -> None:
        self.num_labels: int | None = None
        self._device, self._preprocessing = device, preprocessing
        self._takes_soft, self._needs_labels = takes_soft, needs_labels
        self._has_begun = False
        self._seen = (math.inf, -math.inf, 0)  # extremes and number of the float images so far
        self._widths: dict[int, int] = {}  # of rows before `match`: the first batch with each
        self._ranges: list[Tensor] = []  # extremes of batches that lie on an accelerator
        self._batches: list[tuple[int, int]] = []  # number and size of each

    def match(self, num_labels: int) -> None:
        """Learn how many labels there are; raises InputError when earlier rows had another width.

        Ranges of earlier labels are not looked at.
        """
        self.num_labels = num_labels
        for width, number in self._widths.items():
            if width != num_labels:
                where = f"batch {number}: " if number else ""
                raise InputError(
                    f"{where}labels that are rows need {num_labels} columns, one for each class; "
                    f"got {width}"
                )

    def take(self, batch: Any, number: int) -> tuple[Tensor, Tensor | None]:
        """Refuse a batch that would train or measure something wrong; else it is fit for use."""
        known, is_first = self.num_labels, not self._has_begun
        self._has_begun = True
        try:
            is_alone = isinstance(batch, Tensor | np.ndarray) and batch.ndim == 4
            if is_alone and not self._needs_labels:
                images, labels = as_images(batch), None
                check_shape(images)
            else:
                images, labels = as_pair(batch, columns=known, takes_soft=self._takes_soft)
                if known is None and (width := row_width(unpack(batch)[1])):
                    self._widths.setdefault(width, number)
                check_batch(images, labels)  # normalizing would broadcast one channel to three
            # the first batch is worth waiting for; what lies on a CPU needs no waiting
            is_read = is_first or images.device.type == "cpu"
            if images.dtype != torch.uint8 and (is_read or not images.is_floating_point()):
                self._check_range(*check_normalized(images, self._preprocessing), len(images))
            if known is not None and labels is not None:
                is_read = is_first or labels.device.type == "cpu"
                if is_read and not labels.is_floating_point():
                    check_labels(labels, known)
        except InputError as error:
            raise InputError(f"batch {number}: {error}" if number else str(error)) from None
        on_cpu = images.device.type == "cpu" and (labels is None or labels.device.type == "cpu")
        if on_cpu or is_first or known is None or not number:
            return images, labels
        numbered = None if labels is None or labels.is_floating_point() else labels
        self.note(images, numbered, number)
        # an index beyond the end would stop the accelerator
        return images, labels if numbered is None else numbered.clamp(0, known - 1)

    def _check_range(self, low: float, high: float, count: int) -> None:
        """Raise InputError when all float images so far are not normalized; a few cannot tell."""
        darkest, brightest, images = self._seen
        self._seen = min(darkest, low), max(brightest, high), images + count
        check_image_range(*self._seen, self._preprocessing)

    def note(self, images: Tensor, labels: Tensor | None, number: int) -> None:
        """Remember the extremes of a batch, without waiting for them."""
        nothing = torch.zeros(1, device=images.device)
        shown = images if images.is_floating_point() else nothing  # any byte is right
        extremes = [*torch.aminmax(nothing if labels is None else labels), *torch.aminmax(shown)]
        self._ranges.append(torch.stack([x.to(self._device, torch.float32) for x in extremes]))
        self._batches.append((number, len(images)))

    def check_noted(self) -> None:
        """Raise InputError for the first noted batch that was wrong, and forget them all."""
        if not self._ranges:
            return
        rows, batches = torch.stack(self._ranges).tolist(), self._batches
        self._ranges, self._batches = [], []
        for (number, count), (low, high, darkest, brightest) in zip(batches, rows, strict=True):
            try:
                if self.num_labels is not None:
                    check_labels(torch.tensor([int(low), int(high)]), self.num_labels)
                check_image_range(darkest, brightest, count, self._preprocessing)
                if darkest or brightest:  # zeros stand for bytes
                    self._check_range(darkest, brightest, count)
            except InputError as error:
                raise InputError(f"batch {number}: {error}") from None
