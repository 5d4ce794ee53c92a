"""Temperature scaling: probabilities that mean what they say."""

from __future__ import annotations

import dataclasses

import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.display.html import render
from cifarzoo.errors import InputError
from cifarzoo.evaluation import metrics
from cifarzoo.evaluation.inference import Images, collect_logits
from cifarzoo.evaluation.views import TestTimeAugmentation
from cifarzoo.frozen import freeze_fields

__all__ = ["Calibration", "calibrate", "fit_temperature"]

_RANGE = (0.01, 100.0)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Holds a temperature, and what it does on the images that it was fitted on.

    Args:
        temperature: Number that divides the logits; above 1 if the network was too confident.
        loss: Mean cross-entropy in nats, before and after.
        expected_calibration_error: Calibration error over 15 equal-width bins, before and after.
        num_images: Number of images that it was fitted on.
    """

    temperature: float
    loss: tuple[float, float]
    expected_calibration_error: tuple[float, float]
    num_images: int

    def __post_init__(self) -> None:
        freeze_fields(self)

    def _repr_html_(self) -> str:
        return render("calibration.html", calibration=self)


def calibrate(
    model: nn.Module,
    images: Images,
    *,
    tta: TestTimeAugmentation = "none",
    device: Device = None,
    precision: Precision = "auto",
) -> Calibration:
    """Fit a temperature, so that the confidence of a network fits its accuracy.

    The temperature is one number that divides all logits. It changes the confidence and not the
    accuracy (Guo et al. 2017, arXiv:1706.04599, section 4.2). Fit it on images that were held out
    from training, never on those of the report. Give it to ``evaluate(..., temperature=...)``.

    Args:
        model: The network.
        images: Held-out images, as `evaluate` takes them.
        tta: Test-time augmentation; take the one that you will evaluate with.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.

    Raises:
        InputError: The images are not as `evaluate` takes them, or all of them are recognized.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> found = calibrate(create_model("simple", seed=0), load_sample("train"))
        >>> found.loss[1] <= found.loss[0]
        True
    """
    place = Place.find(device, precision, model=model)
    logits, labels = collect_logits(model, images, tta=tta, place=place)
    if bool((logits.argmax(1) == labels).all()):
        raise InputError(
            f"the network recognizes all {len(labels):,} images, so the smaller the temperature, "
            "the smaller the loss, and none is the best: hold out more images"
        )
    temperature = fit_temperature(logits, labels)
    both = (logits.double(), logits.double() / temperature)
    losses = [metrics.negative_log_likelihood(x, labels) for x in both]
    errors = [metrics.expected_calibration_error(x.softmax(1), labels) for x in both]
    return Calibration(
        temperature=temperature,
        loss=(losses[0], losses[1]),
        expected_calibration_error=(errors[0], errors[1]),
        num_images=len(labels),
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 0.01..100 with the least cross-entropy.

    The loss is convex in one over the temperature, so its slope there has one zero, which halving
    finds.

    Args:
        logits: Float (N, C).
        labels: int64 (N,).
    """
    logits = logits.double()
    target = logits.gather(1, labels[:, None]).squeeze(1)

    def slope(inverse: float) -> float:
        expected = (F.softmax(logits * inverse, 1) * logits).sum(1)
        return float((expected - target).mean())

    low, high = 1 / _RANGE[1], 1 / _RANGE[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return float((low * high) ** -0.5)
