"""A network beside people: where they hesitate, it may."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet
from cifarzoo.data.classes import class_numbers
from cifarzoo.data.labels import are_shares
from cifarzoo.errors import InputError
from cifarzoo.evaluation.inference import check_temperature, collect_logits
from cifarzoo.evaluation.views import TestTimeAugmentation
from cifarzoo.names import check_kind
from cifarzoo.zoo.card import get_card, names_of_outputs

__all__ = ["HumanComparison", "compare_with_humans"]


@dataclasses.dataclass(frozen=True)
class HumanComparison:
    """Says how a network's probabilities agree with the choices of people.

    Args:
        cross_entropy: Mean cross-entropy of people's choices under the network's probabilities, in
            nats. It is never below ``human_entropy``; the difference of the two is the mean
            Kullback-Leibler divergence.
        human_entropy: Mean entropy of people's choices alone, in nats.
        accuracy: Accuracy of the network by the labels, 0..1.
        human_accuracy: Accuracy of the class that most people chose, by the labels, 0..1.
        accuracy_where_unsure: Accuracy of the network on the tenth of the images that people agree
            on least, 0..1.
        num_images: Number of images.
    """

    cross_entropy: float
    human_entropy: float
    accuracy: float
    human_accuracy: float
    accuracy_where_unsure: float
    num_images: int


def compare_with_humans(
    model: nn.Module,
    images: ImageSet,
    humans: Tensor,
    *,
    temperature: float = 1.0,
    tta: TestTimeAugmentation = "none",
    device: Device = None,
    precision: Precision = "auto",
) -> HumanComparison:
    """Compare predictions with the choices of people (Peterson et al. 2019, arXiv:1908.07086).

    Args:
        model: The network.
        images: The images that the people saw.
        humans: Float (N, C) in 0..1: for each image, the share of people that chose each class, as
            ``load_cifar10h()`` gives it for the CIFAR-10 test images.
        temperature: Number that divides the logits; see `calibrate`.
        tta: Test-time augmentation, as in `evaluate`.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.

    Raises:
        ArgumentError: The temperature is no positive number of float32.
        InputError: ``humans`` is no distribution over the classes for each image.

    Example:
        >>> import torch
        >>> from cifarzoo import create_model, load_sample
        >>> from cifarzoo.evaluation import compare_with_humans
        >>> test = load_sample("test")
        >>> humans = torch.nn.functional.one_hot(test.labels, 10).double()  # of one mind
        >>> found = compare_with_humans(create_model("simple", seed=0), test, humans)
        >>> found.human_entropy, found.human_accuracy
        (0.0, 1.0)
    """
    temperature = check_temperature(temperature)
    check_kind("images", images, ImageSet, "load_cifar10('test') returns one")
    check_kind("humans", humans, Tensor, "load_cifar10h() returns one")
    expected = (len(images), len(images.classes))
    if tuple(humans.shape) != expected:
        raise InputError(
            f"humans must be {expected}, a distribution for each image of {images.name}; "
            f"got {tuple(humans.shape)}"
        )
    humans = humans.double()
    if not are_shares(humans):
        raise InputError(
            "each row of humans must hold shares of people, which are in 0..1 and one altogether: "
            "divide counts by their sum, counts / counts.sum(1, keepdim=True)"
        )
    place = Place.find(device, precision, model=model)
    logits, labels = collect_logits(model, images, tta=tta, place=place)
    known = names_of_outputs(get_card(model).classes, logits.shape[1])
    numbers = class_numbers(images.classes, known)
    if numbers is not None:  # their columns too are the images' classes
        humans = humans.new_zeros(len(humans), logits.shape[1]).index_copy(
            1, torch.tensor(numbers), humans
        )
    if logits.shape[1] != humans.shape[1]:
        raise InputError(
            f"the model has {logits.shape[1]} outputs, the images {expected[1]} classes"
        )
    entropy = torch.special.entr(humans).sum(1)
    hits = logits.argmax(1) == labels
    unsure = entropy.argsort(descending=True, stable=True)[: max(1, len(images) // 10)]
    likelihood = (logits.double() / temperature).log_softmax(1)
    return HumanComparison(
        cross_entropy=float(-(humans * likelihood).sum(1).mean()),
        human_entropy=float(entropy.mean()),
        accuracy=float(hits.double().mean()),
        human_accuracy=float((humans.argmax(1) == labels).double().mean()),
        accuracy_where_unsure=float(hits[unsure].double().mean()),
        num_images=len(images),
    )
