"""What an answer costs: parameters, operations, speed, memory."""

from __future__ import annotations

import dataclasses
import statistics
import time

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu.pages import peak_memory
from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.evaluation.inference import answering
from cifarzoo.zoo.summary import summary

__all__ = ["Cost", "measure_cost"]

_SMALL, _LARGE = 1, 256
_SECONDS = 0.3  # for each batch size


@dataclasses.dataclass(frozen=True)
class Cost:
    """Holds what a prediction costs in time and memory.

    Args:
        parameters: Number of parameters.
        macs: Number of multiply-accumulates for one image.
        images_per_second_1: Images a second, one at a time; the median over repetitions.
        images_per_second_256: Images a second in batches of 256; the median over repetitions.
        middle_half_1: Two speeds in images a second, one image at a time. The middle half of the
            repetitions lies between them, so they show how much the speed varied.
        middle_half_256: The same in batches of 256.
        peak_bytes_1: Memory in bytes that a prediction of one image takes at its peak, beside the
            network itself; None where the system does not tell.
        peak_bytes_256: The same for a batch of 256 images.
        device: Device on which the speed was measured.
        precision: Dtype in which the network computed.
        image_size: Height and width of the images.
    """

    parameters: int
    macs: int
    images_per_second_1: float
    images_per_second_256: float
    middle_half_1: tuple[float, float]
    middle_half_256: tuple[float, float]
    peak_bytes_1: int | None
    peak_bytes_256: int | None
    device: str
    precision: str
    image_size: int = 32


def measure_cost(
    model: nn.Module,
    *,
    image_size: int = 32,
    device: Device = None,
    precision: Precision = "auto",
) -> Cost:
    """Measure what a prediction of ``model`` costs on this machine, in about a second.

    Args:
        model: A network for images (B, 3, H, W) of that size; its mode stays as it is.
        image_size: Height and width of the images.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.

    Example:
        >>> from cifarzoo import create_model
        >>> from cifarzoo.evaluation import measure_cost
        >>> measure_cost(create_model("simple")).parameters
        80090
    """
    place = Place.find(device, precision, model=model)
    counted = summary(model, image_size=image_size)
    # memory first: what the measurement of speed leaves behind would be used again
    batches = [_images(count, image_size, place) for count in (_SMALL, _LARGE)]
    small, large = (_peak(model, images, place) for images in batches)
    alone, together = (_rates(model, images, place) for images in batches)
    return Cost(
        parameters=counted.total_params,
        macs=counted.total_mult_adds,
        images_per_second_1=alone[1],
        images_per_second_256=together[1],
        middle_half_1=(alone[0], alone[2]),
        middle_half_256=(together[0], together[2]),
        peak_bytes_1=small,
        peak_bytes_256=large,
        device=str(place.device),
        precision=place.precision_name,
        image_size=image_size,
    )


def _peak(model: nn.Module, images: Tensor, place: Place) -> int | None:
    with answering(model, place) as answer:
        answer(images)  # the first pass chooses kernels and loads libraries
        return peak_memory(lambda: answer(images), place.device)


def _rates(model: nn.Module, images: Tensor, place: Place) -> list[float]:
    """The three quartiles of the images per second, over repetitions."""
    times: list[float] = []
    with answering(model, place) as answer:
        begin = time.perf_counter()
        while len(times) < 4 or time.perf_counter() - begin < _SECONDS:
            start = time.perf_counter()
            answer(images).sum().item()  # read, so that a GPU has finished
            times.append(time.perf_counter() - start)
    quartiles = statistics.quantiles(times[1:], method="inclusive")  # the first chooses kernels
    return [len(images) / seconds for seconds in reversed(quartiles)]


def _images(batch: int, size: int, place: Place) -> Tensor:
    images = torch.zeros(batch, 3, size, size, device=place.device, dtype=place.precision)
    return images.to(memory_format=torch.channels_last)
