"""`evaluate`: a network on a set of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet
from cifarzoo.data.classes import class_names, class_numbers, describe_numbers, describe_strangers
from cifarzoo.evaluation import metrics
from cifarzoo.evaluation.inference import Images, check_temperature, collect_views
from cifarzoo.evaluation.report import ClassScore, EvaluationReport, ReliabilityBin
from cifarzoo.evaluation.views import TestTimeAugmentation
from cifarzoo.zoo.card import get_card, names_of_outputs

__all__ = ["evaluate", "evaluate_views"]


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    tta: TestTimeAugmentation = "none",
    temperature: float = 1.0,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: int = 500,
    advance: Callable[[int], None] | None = None,
) -> EvaluationReport:
    """Measure ``model`` on ``images``.

    The network answers as in evaluation mode, but its mode is not changed, so any number of threads
    may measure or use it at once. Images are normalized as the model's card says.

    Where the images name their classes (an `ImageSet`, a `Loader`, a DataLoader whose data set has
    ``classes``) and the model's card knows all the names, labels are taken by name, whatever their
    numbers, and the report's ``note`` says so. Classes without images have support 0.

    Args:
        model: A network from images (B, 3, H, W) to logits (B, C).
        images: An `ImageSet`, or any iterable of batches ``(images, labels)``. Images of uint8 are
            normalized; float images are taken as normalized already.
        tta: Test-time augmentation: the logits are the mean over several views of an image. "none"
            takes the image itself. "flip" adds the mirror image. "flip_shift" also moves both by a
            pixel, up and left or down and right, at half the weight (Jordan 2024,
            arXiv:2404.00498, section 3.5). "flip_shift_unsure" does so only for the least confident
            quarter of the images.
        temperature: Number that divides the logits; `calibrate` finds it on held-out images.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.
        batch_size: Number of images that are computed at once, for an ImageSet.
        advance: Function that is called after each batch with the number of its views, for a
            progress bar. A set of N images has N views for "none", 2 N for "flip" and 6 N for
            "flip_shift".

    Returns:
        The report, with the accuracy, its interval, and all other measurements.

    Raises:
        ArgumentError: ``tta`` is unknown, or ``temperature`` is no positive number of float32.
        InputError: There are no images, a label has no output, the model returns NaN, or it knows
            some of the images' classes under other numbers and does not know others.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> report = evaluate(create_model("simple", seed=0), load_sample("test"))
        >>> report.num_images, sum(map(sum, report.confusion))
        (1000, 1000)
    """
    (report,) = evaluate_views(
        model,
        images,
        (tta,),
        temperature=temperature,
        device=device,
        precision=precision,
        batch_size=batch_size,
        advance=advance,
    )
    return report


def evaluate_views(
    model: nn.Module,
    images: Images,
    ways: Sequence[TestTimeAugmentation],
    *,
    temperature: float = 1.0,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: int = 500,
    advance: Callable[[int], None] | None = None,
) -> list[EvaluationReport]:
    """Evaluate with each test-time augmentation in ``ways``, at the cost of the largest."""
    temperature = check_temperature(temperature)
    place = Place.find(device, precision, model=model)
    found, labels = collect_views(
        model, images, ways, place=place, batch_size=batch_size, advance=advance
    )
    card = get_card(model)
    names, note = _name_classes(images, card.classes, found[ways[0]].shape[1])
    pixels = images.sha256(with_labels=False) if isinstance(images, ImageSet) else ""
    return [
        _report(
            logits,
            labels,
            model=card.name,
            data=images.name if isinstance(images, ImageSet) else "batches",
            pixels=pixels,
            names=names,
            note=note,
            tta=tta,
            temperature=temperature,
        )
        for tta, logits in found.items()
    ]


def _name_classes(
    images: Images, classes: tuple[str, ...] | None, outputs: int
) -> tuple[tuple[str, ...], str]:
    """What to call the outputs, and what was done to the labels; see `class_numbers`."""
    known, found = names_of_outputs(classes, outputs), class_names(images)
    numbers = class_numbers(found, known)
    if numbers is not None and known is not None:
        return known, describe_numbers(numbers, known)
    # fewer names than outputs, none of them known: it is not known what the other outputs mean
    numbered = tuple(str(label) for label in range(outputs))
    note = describe_strangers(found or (), known or ())
    if found is not None and len(found) <= outputs:
        return names_of_outputs(found, outputs) or numbered, note
    return known or numbered, note


def _report(
    logits: Tensor,
    labels: Tensor,
    *,
    model: str,
    data: str,
    pixels: str,
    names: tuple[str, ...],
    note: str,
    tta: str,
    temperature: float,
) -> EvaluationReport:
    num_classes = logits.shape[1]
    # the order of the classes is theirs, also where a temperature makes all of them the same
    predicted, top5 = logits.argmax(1), metrics.top_k_accuracy(logits, labels, 5)
    logits = logits.double() / temperature
    probabilities = logits.softmax(1)
    confidence = probabilities.amax(1)
    confusion = metrics.confusion_matrix(labels, predicted, num_classes)
    correct = int(confusion.diagonal().sum())
    return EvaluationReport(
        model=model,
        data=data,
        tta=tta,
        temperature=temperature,
        num_images=len(labels),
        accuracy=correct / len(labels),
        accuracy_interval=metrics.wilson_interval(correct, len(labels)),
        top5_accuracy=top5,
        loss=metrics.negative_log_likelihood(logits, labels),
        expected_calibration_error=metrics.expected_calibration_error(probabilities, labels),
        adaptive_calibration_error=metrics.adaptive_calibration_error(probabilities, labels),
        brier_score=metrics.brier_score(probabilities, labels),
        classes=_class_scores(confusion, names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=_reliability(probabilities, labels),
        labels=tuple(labels.tolist()),
        predicted=tuple(predicted.tolist()),
        confidence=tuple(confidence.tolist()),
        note=note,
        metrics=metrics.measure_metrics(probabilities, labels),
        pixels_sha256=pixels,
    )


def _reliability(probabilities: Tensor, labels: Tensor) -> tuple[ReliabilityBin, ...]:
    columns = (column.tolist() for column in metrics.reliability_bins(probabilities, labels))
    return tuple(
        ReliabilityBin(int(count), confidence / max(count, 1), hits / max(count, 1))
        for count, confidence, hits in zip(*columns, strict=True)
    )


def _class_scores(confusion: Tensor, names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    precision, recall, f1 = metrics.precision_recall_f1(confusion)
    counts = confusion.sum(1).tolist()
    hits = confusion.diagonal().tolist()
    return tuple(
        ClassScore(
            name=name,
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            recall_interval=metrics.wilson_interval(hits[i], counts[i]) if counts[i] else None,
            count=counts[i],
        )
        for i, name in enumerate(names)
    )
