"""The page about a network on the hub ("model card"): facts for its search, then text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tomli_w
from torch import nn

from cifarzoo.names import one_line
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import ModelCard
from cifarzoo.zoo.registry import ModelSpec, get_model_info, list_models

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from cifarzoo.evaluation import EvaluationReport

__all__ = ["write_page"]

_ADDRESS = "https://github.com/cifarzoo/cifarzoo"
_DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
_IMAGES = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
_VIEWS = {
    "none": "accuracy",
    "flip": "accuracy, averaged with the mirror image",
    "flip_shift": "accuracy, averaged over six views",
}


def write_page(
    network: nn.Module,
    *,
    facts: Mapping[str, Any],
    report: EvaluationReport | None,
    license: str | None,  # noqa: A002  (the hub's word)
    source: str,
    name: str,
) -> str:
    """The page as Markdown, with YAML at its head.

    Args:
        network: What the page is about.
        facts: "recipe", "data", "test_accuracy", "command", "machine", as far as they are known.
        report: What `evaluate` found; its accuracy stands before that in ``facts``.
        license: Its short name.
        source: What `from_pretrained` is given to load it.
        name: Of the network on the hub.
    """
    from huggingface_hub import ModelCardData

    card = describe(network)
    # timm's and torchvision's are listed by name alone
    known = get_model_info(card.name) if card.name in list_models(card.name) else None
    data = _data(facts, report)
    results = _results(facts, report, data)
    head = ModelCardData(
        library_name="cifarzoo",
        license=license,
        pipeline_tag="image-classification",
        tags=["image-classification", "pytorch", card.name],
        datasets=[_DATASETS[data]] if data in _DATASETS else None,
        metrics=["accuracy"] if results else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {name}",
        *_about(card, known, sum(parameter.numel() for parameter in network.parameters())),
        "## Use it",
        "```console\n$ python -m pip install 'cifarzoo[hub]'\n```",
        _usage(card, known, source),
        "Pixels go in as they are: `predict`, `evaluate` and the Trainer normalize them.",
        *_accuracy(results),
        *_training(facts),
        "## Limits",
        "The network knows the classes above and nothing else. To every image it gives one of "
        "them, also to one that shows something else.",
        "## Cite",
        _citation(known, facts, data),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _data(facts: Mapping[str, Any], report: EvaluationReport | None) -> str:
    """Name of the images that the network was measured on; that of a data set if it was all."""
    if report is None:
        return str(facts.get("data", ""))
    name, _, split = report.data.partition(" ")
    is_whole = name in _DATASETS and split == "test" and report.num_images == 10_000
    return name if is_whole else f"{report.data}, {report.num_images:,} images"


def _results(
    facts: Mapping[str, Any], report: EvaluationReport | None, data: str
) -> list[EvalResult]:
    """What was measured: kind, name and value, on which images."""
    from huggingface_hub import EvalResult

    found: list[tuple[str, str, float]] = []
    if report is not None:
        found = [
            ("accuracy", _VIEWS.get(report.tta, f"accuracy, {report.tta}"), report.accuracy),
            ("accuracy", "accuracy within the five most probable classes", report.top5_accuracy),
            ("loss", "cross-entropy in nats", report.loss),
        ]
    elif data and isinstance(facts.get("test_accuracy"), Mapping):
        found = [
            ("accuracy", _VIEWS.get(views, f"accuracy, {views}"), float(value))
            for views, value in facts["test_accuracy"].items()
        ]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=_DATASETS.get(data, data if report is None else report.data),
            dataset_name=data,
            dataset_split="test" if data in _DATASETS else None,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 6),
        )
        for kind, name, value in found
    ]


def _about(card: ModelCard, known: ModelSpec | None, parameters: int) -> list[str]:
    options = ", ".join(f"{key}={value!r}" for key, value in card.options.items())
    mean, std = (
        ", ".join(f"{x:g}" for x in each)
        for each in (card.preprocessing.mean, card.preprocessing.std)
    )
    rows = {
        "network": f"`{card.name}`" + (f" with `{options}`" if options else ""),
        "parameters": f"{parameters:,}",
        "classes": ", ".join(card.classes)
        if card.classes
        else f"{card.num_classes}, without names",
        "normalization": f"pixels in 0..1, minus the mean {mean}, divided by {std}",
    }
    table = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items())
    lead = f"{known.description} " if known else ""
    return [
        f"{lead}An image classifier, made with [cifarzoo]({_ADDRESS}).",
        f"| | |\n| :-- | :-- |\n{table}",
    ]


def _cell(text: str) -> str:
    """``text`` for a table: a bar or a line break would end its cell."""
    return one_line(text).replace("|", r"\|")


def _usage(card: ModelCard, known: ModelSpec | None, source: str) -> str:
    build = f'model = cifarzoo.from_pretrained("{source}")'
    if known is None:
        build = (
            f"model = ...  # {card.name}, built as its author does\n"
            'cifarzoo.load_weights(model, "model.safetensors")'
        )
    use = 'print(cifarzoo.predict(model, "photo.png"))'
    return f"```python\nimport cifarzoo\n\n{build}\n{use}\n```"


def _accuracy(results: list[EvalResult]) -> list[str]:
    if not results:
        return []
    rows = [
        f"| {_cell(each.metric_name)} | "
        + (
            f"{each.metric_value:.2%}"
            if each.metric_type == "accuracy"
            else f"{each.metric_value:.4f}"
        )
        + " |"
        for each in results
    ]
    images = "the test images" if results[0].dataset_split else "the images"
    return [
        "## Accuracy",
        f"Measured on {images} of {one_line(results[0].dataset_name)}.",
        "| | |\n| :-- | --: |\n" + "\n".join(rows),
    ]


def _training(facts: Mapping[str, Any]) -> list[str]:
    recipe = facts.get("recipe")
    if not isinstance(recipe, Mapping):
        return []
    fields = {key: value for key, value in recipe.items() if value not in (None, "", {}, [], ())}
    parts = ["## Training", f"```toml\n{tomli_w.dumps(_plain(fields))}```"]
    seconds = facts.get("train_seconds")
    if isinstance(seconds, int | float):
        machine = facts.get("machine")
        where = machine.get("processor", "") if isinstance(machine, Mapping) else ""
        took = f"{seconds / 60:,.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        parts.append(f"It took {took}" + (f" on {where}." if where else "."))
    if command := facts.get("command"):
        parts.append(f"```console\n$ {one_line(str(command)).replace('```', '')}\n```")
    return parts


def _plain(value: Any) -> Any:
    """``value`` without None, which TOML does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    return value


def _citation(known: ModelSpec | None, facts: Mapping[str, Any], data: str) -> str:
    """Whom to cite for the library, the network and the images."""
    versions = facts.get("versions")
    version = versions.get("cifarzoo", "") if isinstance(versions, Mapping) else ""
    items = [f"the library: [cifarzoo]({_ADDRESS}) {version}".rstrip()]
    if known:
        items.append(f"the network: {known.source}")
    if data.startswith("cifar10"):
        items.append(f"the images: {_IMAGES}")
    return "\n".join(f"- {item}" for item in items)
