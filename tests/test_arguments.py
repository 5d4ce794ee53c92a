"""What is passed by mistake ends in an error that says what it must be, what it is, and how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo import evaluation
from cifarzoo.errors import ArgumentError, InputError, UnknownNameError

zoo: Any = cifarzoo  # a type checker would refuse all of this
measure: Any = evaluation
WRONG = (None, 3, [], {1: 2}, object())
PIXELS = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
TEST = cifarzoo.ImageSet(PIXELS, [0, 1], ("cat", "dog"))
SHARES = torch.eye(2)


def simple() -> nn.Module:
    return cifarzoo.create_model("simple", seed=0)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: zoo.adapt_stem(model),
        lambda model: measure.compare_with_humans(model, TEST, SHARES),
        lambda model: measure.measure_cost(model),
        lambda model: zoo.attach_card(model, zoo.ModelCard("x")),
        lambda model: zoo.embeddings(model, PIXELS),
        lambda model: zoo.evaluate(model, PIXELS),
        lambda model: zoo.export_program(model, "x.pt2"),
        lambda model: zoo.get_card(model),
        lambda model: zoo.get_classifier(model),
        lambda model: zoo.predict(model, PIXELS),
        lambda model: zoo.reset_classifier(model, 3),
        lambda model: zoo.save_weights(model, "x.safetensors"),
        lambda model: zoo.summary(model),
    ],
)
@pytest.mark.parametrize("model", ["resnet18", "timm:x", nn.Linear, *WRONG])
def test_what_is_no_network_is_refused(use: Callable[[Any], object], model: Any) -> None:
    how = "'resnet18'" if model == "resnet18" else "name"
    with pytest.raises(ArgumentError, match=rf"torch module; got .*: create_model\({how}\) builds"):
        use(model)


@pytest.mark.parametrize(
    "use",
    [
        lambda facts: zoo.save_weights(simple(), "x.safetensors", metadata=facts),
        lambda facts: zoo.save_pretrained(simple(), "x", metadata=facts),
        lambda facts: zoo.Trainer(simple(), zoo.Recipe(), metadata=facts),
    ],
)
@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([1], r"metadata must be a Mapping; got \[1\]"),
        ("x", "metadata must be a Mapping; got 'x'"),
        ({"test_accuracy": 0.9}, "metadata: test_accuracy should be a valid dictionary; got 0.9"),
    ],
)
def test_what_are_no_facts_of_a_file_is_refused(
    use: Callable[[Any], object], facts: Any, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        use(facts)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: zoo.export_program(simple(), path),
        lambda path: zoo.from_pretrained(path),
        lambda path: zoo.load_folder(path),
        lambda path: zoo.save_pretrained(simple(), path),
        lambda path: zoo.save_weights(simple(), path),
        lambda path: zoo.Recipe().save(path),
        lambda path: zoo.Recipe.load(path),
    ],
)
@pytest.mark.parametrize("path", [b"x", simple(), *WRONG])
def test_what_is_no_path_is_refused(use: Callable[[Any], object], path: Any) -> None:
    with pytest.raises(ArgumentError, match="a path must be a text or a Path; got"):
        use(path)


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda size: zoo.adapt_stem(simple(), size=size), "size"),
        (lambda size: zoo.create_model("simple", num_classes=size or 0), "num_classes"),
        (lambda size: zoo.embeddings(simple(), PIXELS, batch_size=size), "batch_size"),
        (lambda size: zoo.export_program(simple(), "x.pt2", image_size=size), "image_size"),
        (lambda size: zoo.predict(simple(), PIXELS, top=size), "top"),
        (lambda size: zoo.probabilities(simple(), PIXELS, batch_size=size), "batch_size"),
        (lambda size: zoo.reset_classifier(simple(), size), "num_classes"),
        (lambda size: zoo.summary(simple(), batch_size=size), "batch_size"),
        (lambda size: zoo.summary(simple(), image_size=size), "image_size"),
    ],
)
@pytest.mark.parametrize("size", [None, 0, -1, "32", 32.0, (32, 32), True])
def test_what_is_no_size_is_refused(use: Callable[[Any], object], name: str, size: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{name} must be a whole number of at least 1.*; got"):
        use(size)


@pytest.mark.parametrize("name", [None, 3, [], {1: 2}, ""])
def test_what_is_no_name_is_unknown(name: Any) -> None:
    spec: Any = cifarzoo.get_model_info("simple")
    for use in (
        zoo.create_model,
        zoo.get_dataset_info,
        zoo.get_model_info,
        zoo.load_dataset,
        spec.get_recipe,
        spec.get_weights,
        lambda name: measure.corrupt(PIXELS, name, 1),
    ):
        with pytest.raises(UnknownNameError, match="unknown"):
            use(name)


@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("name", [3, [], ""])
def test_nothing_is_registered_without_a_name(name: Any) -> None:
    facts = {"description": "", "source": "", "parameters": 1, "macs": 1}
    for register in (
        zoo.register_augmentation,
        zoo.register_dataset,
        zoo.register_metric,
        zoo.register_optimizer,
        zoo.register_scheduler,
        lambda name: zoo.register_model(name=name, **facts)(lambda *, num_classes=10: simple()),
    ):
        with pytest.raises(ArgumentError, match="'s name must be a text; got"):
            register(name)


@pytest.mark.parametrize("given", WRONG)
def test_one_object_in_place_of_another_is_refused_by_name(given: Any) -> None:
    for use, message in (
        (lambda: zoo.compare(given, given), r"first must be an EvaluationReport; .*evaluate\("),
        (lambda: zoo.list_models(given), r"pattern must be a text; .*'resnet\*'"),
        (lambda: zoo.verify_weights("simple", given), "images must be an ImageSet; .*load_cifar10"),
        (lambda: zoo.Loader(given, batch_size=1), "images must be an ImageSet; .*from_dataset"),
        (lambda: zoo.attach_card(simple(), given), "card must be a ModelCard; .*get_card"),
        (lambda: measure.corrupt(given, "fog", 1), "images must be a Tensor; .*.images"),
        (lambda: measure.evaluate_robustness(simple(), given), "images must be an ImageSet"),
        (lambda: measure.compare_with_humans(simple(), given, SHARES), "images must be an ImageS"),
        (lambda: measure.compare_with_humans(simple(), TEST, given), "humans must be a Tensor"),
        (lambda: zoo.cpu_kernels(given).__enter__(), r"model must be a Module; .*create_model\("),
        (lambda: zoo.plot_history([], title=[given]), "title must be a text"),
        (lambda: zoo.Recipe.from_dict([given]), "a recipe's data must be a dict of fields"),
        (
            lambda: zoo.Loader(TEST, batch_size=1, preprocessing=given),
            "preprocessing must be a Preprocessing",
        ),
        (lambda: zoo.Loader(TEST, batch_size=1, dtype=given), "dtype must be a floating-point"),
        (lambda: zoo.Loader(TEST, batch_size=1, world_size=[given]), "world_size must be"),
        (
            lambda: zoo.evaluate(simple(), TEST, precision=given),
            "precision must be 'auto' or one of",
        ),
        (lambda: zoo.reset_classifier(simple(), 2, classes=given or 3), "classes must be 2 names"),
        (lambda: zoo.ModelCard("x", classes=given or 3), "classes on a card must be names"),
    ):
        with pytest.raises(ArgumentError, match=f"{message}.*"):
            use()


def test_networks_in_place_of_their_reports_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"got Simple\(.*: evaluate\(model, images\) returns"):
        zoo.compare(simple(), simple())


@pytest.mark.parametrize("given", ["x", 3, [1], object()])
def test_options_of_another_kind_are_refused_by_name(given: Any, tmp_path: Path) -> None:
    for use, message in (
        (lambda: zoo.Loader(TEST, batch_size=1, augmentation=given), "must be an Augmentation"),
        (lambda: zoo.Loader(TEST, batch_size=1, generator=given), "must be a Generator"),
        (lambda: zoo.Loader(TEST, batch_size=1, device=given), "device .* cannot be used here"),
        (lambda: zoo.save_pretrained(simple(), tmp_path, report=given), "report must be an Eval"),
        (lambda: zoo.save_pretrained(simple(), tmp_path, metadata=given), "metadata must be a Map"),
    ):
        with pytest.raises(ArgumentError, match=message):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("models", [None, 3, simple(), nn.Sequential(simple())])
def test_an_ensemble_is_made_of_a_list(models: Any) -> None:
    with pytest.raises(ArgumentError, match=r"a list of networks; got .*: ensemble\(\[model\]\)"):
        zoo.ensemble(models)
    assert len(zoo.ensemble(nn.ModuleList([simple()])).members) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"key": 3}, "key must be a text, as in .*; got 3"),
        ({"key": ["a"]}, r"key must be a text, as in .*; got \['a'\]"),
        ({"rename": {1: 2}}, "rename must be a dict of texts, as in .*; got {1: 2}"),
        ({"rename": {"a": None}}, "rename must be a dict of texts"),
        ({"rename": ["a"]}, "rename must be a dict of texts"),
        ({"rename": "a"}, "rename must be a dict of texts"),
    ],
)
def test_how_weights_are_read_is_said_in_texts(said: Any, message: str) -> None:
    model = simple()
    with pytest.raises(ArgumentError, match=message):
        zoo.load_weights(model, model.state_dict(), **said)
    with pytest.raises(ArgumentError, match=message):
        zoo.create_model("simple", pretrained=model.state_dict(), **said)


def test_lists_of_robustness_are_lists() -> None:
    for wrong in (
        {"corruptions": "fog"},
        {"corruptions": None},
        {"corruptions": ["fog"], "severities": 3},
    ):
        with pytest.raises(ArgumentError, match="must be a list of"):
            measure.evaluate_robustness(simple(), TEST, **wrong)


def test_a_folder_has_two_parts(tmp_path: Path) -> None:
    for split in ("x", 3, ["train"]):
        with pytest.raises(ArgumentError, match="split must be 'train', 'test' or None; got"):
            zoo.load_folder(tmp_path, split)


def test_a_network_for_larger_images_says_what_to_pass() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(48), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(InputError, match=r"Sequential .* 32x32 pixels, .*; pass image_size=, the"):
        cifarzoo.summary(model)
    assert cifarzoo.summary(model, image_size=98).total_params == 282
