"""Proof that pretrained weights are what they say: checksum, provenance, accuracy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet, get_dataset_info
from cifarzoo.errors import ArgumentError, CifarZooError, UnknownNameError
from cifarzoo.evaluation.evaluate import evaluate
from cifarzoo.factory import create_model
from cifarzoo.frozen import freeze_fields
from cifarzoo.names import check_kind
from cifarzoo.recipe import Recipe
from cifarzoo.zoo.locate import locate_weights
from cifarzoo.zoo.registry import get_model_info
from cifarzoo.zoo.weights import read_metadata

__all__ = ["PROVENANCE", "TOLERANCE", "Verification", "tolerance", "verify_weights"]

TOLERANCE = 0.001
"""Accuracies further apart than this differ: 10 of 10,000 images, where the arithmetic of another
processor, or float32 instead of bfloat16, moves a few. Of a small set, 3 images are let pass."""

_FEW = 3.5  # images; between two whole numbers, so that rounding decides nothing

# images of the sets whose number is known without their files
_SIZES = {"cifar10 test": 10_000, "cifar100 test": 10_000, "cifar10 sample test": 1_000}

PROVENANCE = (
    "model",
    "recipe",
    "data",
    "data_md5",
    "data_sha256",
    "val_size",
    "precision",
    "machine",
    "versions",
    "command",
    "parameters",
    "train_seconds",
    "history",
    "validation_accuracy",
    "test_accuracy",
    "sample_accuracy",
    "seeds",
)
"""What the metadata of weights that come with the package hold.

A ``val_size`` of 0 says that all training images were trained on; there is no validation accuracy
then."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """Holds what `verify_weights` found about one set of weights.

    Args:
        model: Name of the model.
        tag: Tag of the weights.
        stated: Accuracy that the file states for these images, 0..1; None if it states none.
        accuracy: Accuracy that was measured, 0..1; None if it could not be measured.
        seconds: Time of the measurement in seconds.
        problems: What is wrong; empty for weights that pass.
    """

    model: str
    tag: str
    stated: float | None
    accuracy: float | None
    seconds: float
    problems: tuple[str, ...]

    def __post_init__(self) -> None:
        freeze_fields(self)

    @property
    def passed(self) -> bool:
        """Whether everything is as the file states."""
        return not self.problems


def verify_weights(
    model: str,
    images: ImageSet,
    *,
    tag: str = "default",
    device: Device = None,
    precision: Precision = "auto",
) -> Verification:
    """Check pretrained weights: the file's sha256, its metadata, and the accuracy it states.

    Args:
        model: A name of ``list_models(pretrained=True)``.
        images: The test images of the set that the weights were trained on. For weights of
            CIFAR-10, those of the embedded sample are taken too.
        tag: Tag of the model's weights.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes that of the weights: float32, or bfloat16 where the device computes
            it natively.

    Returns:
        What was found. Weights that do not pass or cannot be downloaded do not raise an error.

    Raises:
        UnknownNameError: No model or weights tag has this name.
        ArgumentError: The weights state no accuracy for such images.
    """
    check_kind("images", images, ImageSet, "load_cifar10('test') returns one")
    Place.find(device or "cpu", precision)
    spec = get_model_info(model)
    start = time.perf_counter()
    stated = accuracy = None
    problems: list[str] = []
    spec.get_weights(tag)  # or the error that there is none
    try:
        path = locate_weights(spec, tag)
        facts = read_metadata(path)
        metadata: Mapping[str, Any] = facts.get("metadata", {})
        key = _stated_for(images, metadata)
        network = create_model(model, pretrained=tag)
        problems += _check_provenance(metadata, model)
        count = sum(parameter.numel() for parameter in network.parameters())
        if metadata.get("parameters", count) != count:
            problems.append(f"states {metadata['parameters']:,} parameters, has {count:,}")
        if precision == "auto" and metadata.get("precision") == "float32":
            precision = "float32"  # in bfloat16 a small network may differ by more than TOLERANCE
        accuracy = evaluate(network, images, device=device, precision=precision).accuracy
        stated = metadata.get(key, {}).get("none")
        if stated is None:
            problems.append(f"does not state its accuracy in one view on {images.name}")
        elif not abs(stated - accuracy) <= tolerance(len(images)):  # so that NaN fails too
            problems.append(f"states {stated:.2%} on {images.name}, reaches {accuracy:.2%}")
    except _NotStatedError:
        raise
    except CifarZooError as error:
        problems.append(str(error))
    seconds = time.perf_counter() - start
    return Verification(model, tag, stated, accuracy, seconds, tuple(problems))


def tolerance(count: int) -> float:
    """How far apart two accuracies on ``count`` images may lie and still be the same."""
    return max(TOLERANCE, _FEW / count)


def sets_to_verify_on(data: str) -> dict[str, str]:
    """Where weights that were trained on the image set ``data`` state an accuracy.

    Returns:
        By the name of an image set, whose test images are meant: the field of the metadata. The
        first one is ``data``.
    """
    return {data: "test_accuracy", **({"sample": "sample_accuracy"} if data == "cifar10" else {})}


class _NotStatedError(ArgumentError):
    """Weights state no accuracy for the images that somebody gave."""


def _stated_for(images: ImageSet, metadata: Mapping[str, Any]) -> str:
    """The field of ``metadata`` with the accuracy on ``images``.

    Raises:
        ArgumentError: There is none.
    """
    named = str(metadata.get("data_name") or "cifar10 train")  # of runs that were not commands
    known = sets_to_verify_on(str(metadata.get("data") or named.removesuffix(" train")))
    names = {f"{_set_name(each)} test": field for each, field in known.items()}
    if images.name not in names:
        calls = (f"load_dataset({each!r}, 'test')" for each in known)
        raise _NotStatedError(
            f"the weights state their accuracy on {' and '.join(names)}; got {images.name!r}: pass "
            f"{' or '.join(calls)}"
        )
    size = _SIZES.get(images.name)
    if size is not None and len(images) != size:
        raise _NotStatedError(
            f"the accuracy on {images.name} is that on all {size:,} images; got {len(images):,}: "
            "pass the whole set"
        )
    return names[images.name]


def _set_name(data: str) -> str:
    """What the image sets called ``data`` are called, as far as it is known here."""
    try:
        return get_dataset_info(data).set_name
    except UnknownNameError:
        return data


def _check_provenance(metadata: Mapping[str, Any], model: str) -> list[str]:
    """What is missing or inconsistent in the metadata of weights for ``model``."""
    missing = [key for key in PROVENANCE if not metadata.get(key)]
    if metadata.get("val_size") == 0:  # told, and nothing was left to validate on
        missing = [key for key in missing if key not in ("val_size", "validation_accuracy")]
    if metadata.get("data") != "cifar10":  # the sample is of CIFAR-10
        missing = [key for key in missing if key != "sample_accuracy"]
    if missing:
        return [f"does not state its {', '.join(missing)}"]
    problems = []
    if metadata["model"] != model:
        problems.append(f"was trained as {metadata['model']!r}")
    try:
        epochs = Recipe.from_dict(metadata["recipe"]).epochs
    except ArgumentError as error:  # of a newer version, say
        return [*problems, f"has a recipe that cannot be read: {error}"]
    if len(metadata["history"]) != epochs:
        problems.append(f"has a history of {len(metadata['history'])} of {epochs} epochs")
    return problems
