"""The evaluation report as one HTML page that needs nothing else, neither network nor files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import nn

from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.data import ImageSet
from cifarzoo.display.charts import Series, learning_curves, line_chart, reliability_chart
from cifarzoo.display.html import picture, render
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation.comparison import compare
from cifarzoo.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from cifarzoo.evaluation.cost import Cost, measure_cost
from cifarzoo.evaluation.evaluate import evaluate_views
from cifarzoo.evaluation.report import EvaluationReport
from cifarzoo.evaluation.report.tables import confusion_rows
from cifarzoo.evaluation.robustness import RobustnessReport, evaluate_robustness
from cifarzoo.evaluation.views import TestTimeAugmentation, count_views
from cifarzoo.files.writing import file_digest, write_text
from cifarzoo.frozen import FrozenDict, freeze_fields
from cifarzoo.names import check_kind
from cifarzoo.zoo.weights import find_weights, read_metadata

__all__ = ["PageEntry", "make_entry", "render_page", "views_of_entry", "write_page"]

_ERRORS = 24  # images in the gallery
_WAYS: tuple[TestTimeAugmentation, ...] = ("none", "flip", "flip_shift")


@dataclasses.dataclass(frozen=True)
class PageEntry:
    """Holds what the page shows about one model.

    Args:
        report: Its evaluation without test-time augmentation.
        with_tta: Its evaluations with test-time augmentation, which stand beside the first.
        cost: What a prediction costs.
        robustness: Its accuracy under corruptions.
        history: Its training, as ``History.to_list()`` or the metadata of a weights file gives it.
        provenance: Where its weights come from: texts by their names.
        recipe: How it was trained: texts by the fields of the recipe.
    """

    report: EvaluationReport
    with_tta: Sequence[EvaluationReport] = ()
    cost: Cost | None = None
    robustness: RobustnessReport | None = None
    history: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, str] = FrozenDict()
    recipe: Mapping[str, str] = FrozenDict()

    def __post_init__(self) -> None:
        freeze_fields(self)


def make_entry(
    model: nn.Module,
    images: ImageSet,
    *,
    weights: str | Path | None = None,
    label: str | None = None,
    views: TestTimeAugmentation = "flip",
    robustness: bool = False,
    files: str | Path | None = None,
    device: Device = None,
    precision: Precision = "auto",
    advance: Callable[[int], None] | None = None,
) -> PageEntry:
    """Evaluate a model in every way that the page shows.

    Args:
        model: The network.
        images: The test images.
        weights: Its weights file, which holds the training history and the provenance.
        label: Name of the model on the page; the model's own name unless given.
        views: Largest test-time augmentation to evaluate: "none", "flip", or "flip_shift", which
            takes six times as long as "none".
        robustness: Whether to evaluate on corrupted images too, which takes 75 more passes.
        files: Folder of the official corrupted images; without it, the images are corrupted here.
        device: Device to compute on: None for the model's own, "auto" for the fastest one.
        precision: "auto" takes bfloat16 where the device computes it natively.
        advance: Function that is called after each batch with the number of its views.

    Raises:
        ArgumentError: ``views`` is none of the three, or there are files and no ``robustness``.
    """
    check_kind("images", images, ImageSet, "load_cifar10('test') returns one")
    if files is not None and not robustness:
        raise ArgumentError("files are those of corrupted images; pass robustness=True with them")
    if views not in _WAYS:
        raise ArgumentError(f"views must be one of {', '.join(_WAYS)}; got {views!r}")
    ways = _WAYS[: _WAYS.index(views) + 1]
    place = Place.find(device, precision, model=model)
    # what may refuse comes before what takes long
    found = _read_provenance(weights) if weights is not None else {}
    cost = measure_cost(model, image_size=images.images.shape[2], device=place)
    corrupted = None
    if robustness:
        corrupted = evaluate_robustness(model, images, files=files, device=place, advance=advance)
    plain, *others = evaluate_views(model, images, ways, device=place, advance=advance)
    return PageEntry(
        report=dataclasses.replace(plain, model=label or plain.model),
        with_tta=others,
        cost=cost,
        robustness=corrupted,
        **found,
    )


def views_of_entry(images: int, views: TestTimeAugmentation, *, robustness: bool) -> int:
    """How many views of so many images `make_entry` looks at."""
    passes = 1 + len(CORRUPTIONS) * len(SEVERITIES) if robustness else 0
    return count_views(_WAYS[: _WAYS.index(views) + 1], images) + passes * images


def _read_provenance(path: str | Path) -> dict[str, Any]:
    """Training history, origin and recipe of a weights file, as far as it has them."""
    facts = read_metadata(path)
    metadata = facts.get("metadata", {})
    shown = {key: metadata.get(key) for key in ("command", "data", "data_sha256")}
    shown["versions"] = metadata.get("versions") or facts.get("versions")
    provenance = {key.replace("_", " "): _plainly(value) for key, value in shown.items() if value}
    if "train_seconds" in metadata:
        provenance["training time"] = f"{metadata['train_seconds']:,.0f} s"
    provenance["weights sha256"] = file_digest(find_weights(path))
    recipe = metadata.get("recipe") or {}
    if not isinstance(recipe, Mapping):  # a recipe of somebody else's
        provenance["recipe"], recipe = _plainly(recipe), {}
    return {
        "history": metadata.get("history", ()),
        "provenance": provenance,
        "recipe": {
            key.replace("_", " "): _plainly(value)
            for key, value in recipe.items()
            if value and (recipe.get("teacher") or not key.startswith("distillation"))
        },
    }


def _plainly(value: Any) -> str:
    """A value of a recipe in words, without the signs of JSON."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(each)}" for key, each in value.items() if each)
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(each, Sequence) and not isinstance(each, str) for each in value)
        return ("; " if nested else ", ").join(map(_plainly, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_page(
    path: str | Path, entries: Sequence[PageEntry], images: ImageSet | None = None
) -> Path:
    """Write the HTML page about one or more models.

    Args:
        path: The HTML file.
        entries: One or more models, evaluated on the same images.
        images: Those images, for the gallery of errors; without them it is left out.

    Raises:
        InputError: There is no model, or their images differ.
        OutputError: The file cannot be written; an older one is still whole.
    """
    return write_text(path, render_page(entries, images))


def render_page(entries: Sequence[PageEntry], images: ImageSet | None = None) -> str:
    """The page as text; see `write_page`."""
    if not entries:
        raise InputError("a page needs at least one report")
    first = entries[0].report
    if not all(entry.report.has_images_of(first) for entry in entries):
        raise InputError("all models of a page must be evaluated on the same images")
    if images is not None:
        found = first.check_images(images)
        for entry in entries:  # of one checksum, one is enough: they are of the same images
            if entry.report.pixels_sha256 != first.pixels_sha256:
                entry.report.check_images(images)
        images = found
    return render(
        "page.html",
        first=first,
        models=[_view(entry, number, images) for number, entry in enumerate(entries)],
        comparisons=[compare(first, entry.report) for entry in entries[1:]],
        selective=_selective_chart(entries),
        robust=_robustness_chart(entries),
        data=_embedded(entries),
    )


def _view(entry: PageEntry, number: int, images: ImageSet | None) -> dict[str, Any]:
    """What the template shows of a model."""
    report = entry.report
    bins = [(b.count, b.confidence, b.accuracy) for b in report.reliability]
    errors = report.confident_errors(_ERRORS)
    return {
        "number": number,
        "entry": entry,
        "report": report,
        "reliability": reliability_chart(bins, title=f"Reliability of {report.model}"),
        "curves": learning_curves(entry.history),
        "rows": confusion_rows(report),
        "errors": [(error, picture(images.images[error.index])) for error in errors]
        if images is not None
        else [],
    }


def _selective_chart(entries: Sequence[PageEntry]) -> Markup:
    series = [
        Series(entry.report.model, entry.report.selective_accuracy(), colour=number)
        for number, entry in enumerate(entries)
    ]
    return line_chart(
        series,
        title="Accuracy on the most confident images",
        x_label="share of images answered",
        y_label="accuracy",
        in_percent=True,
        x_in_percent=True,
    )


def _robustness_chart(entries: Sequence[PageEntry]) -> Markup | None:
    """Mean accuracy over the corruptions against their severity, from the clean images on."""
    series = [
        Series(
            entry.report.model,
            [(0, entry.robustness.clean_accuracy), *entry.robustness.mean_by_severity],
            colour=number,
        )
        for number, entry in enumerate(entries)
        if entry.robustness is not None
    ]
    if not series:
        return None
    return line_chart(
        series,
        title="Accuracy under corruptions",
        x_label="severity",
        y_label="mean accuracy",
        in_percent=True,
    )


def _embedded(entries: Sequence[PageEntry]) -> Markup:
    """The reports as JSON within the page, for a program that reads it."""
    from jinja2.utils import htmlsafe_json_dumps

    reports = [
        {
            "reports": [r.to_dict() for r in (entry.report, *entry.with_tta)],
            "cost": entry.cost and dataclasses.asdict(entry.cost),
            "robustness": entry.robustness and entry.robustness.to_dict(),
        }
        for entry in entries
    ]
    # "<!--<script" in a name would let the element swallow the rest of the page
    return htmlsafe_json_dumps(reports)
