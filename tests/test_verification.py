from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run

import cifarzoo
from cifarzoo import ImageSet, WeightsInfo, verification
from cifarzoo.compute.place import Precision
from cifarzoo.errors import ArgumentError, UnknownNameError
from cifarzoo.evaluation import evaluate
from cifarzoo.files.writing import file_digest
from cifarzoo.frozen import thaw
from cifarzoo.training.history import EpochRecord
from cifarzoo.verification import PROVENANCE, TOLERANCE
from cifarzoo.zoo.packs import FOLDER

RECORD = EpochRecord(1, 1.5, 0.5, None, None, 0.1, 60.0, 500.0).to_dict()
KNOWN = [
    (name, tag, info)
    for name in cifarzoo.list_models(pretrained=True)
    for tag, info in cifarzoo.get_model_info(name).weights.items()
]


def installed(data: str = "", *, most_macs: float = math.inf) -> list[Any]:
    """Name and tag of the weights that were trained on a set, or of all."""
    return [
        pytest.param(
            name,
            tag,
            marks=pytest.mark.skipif(
                not info.path.is_file(),
                reason=f"{info.pack} is not installed: make test installs it",
            ),
        )
        for name, tag, info in KNOWN
        if data in ("", info.facts["data"])
        if cifarzoo.get_model_info(name).macs <= most_macs
    ]


SHIPPED = installed()


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "tag"), installed("cifar10", most_macs=2e8))
def test_shipped_weights_hold_what_they_state(
    name: str, tag: str, cifar_test: ImageSet, built_if_possible: bool
) -> None:
    """On the sample below, by torch's layers; here, by those in C, which take less time.

    On all images, larger networks take the better part of a minute each: ``cifarzoo verify --all``.
    """
    found = cifarzoo.verify_weights(name, cifar_test, tag=tag)
    assert found.passed, found.problems


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("name", "tag"), installed("cifar100"))
def test_weights_for_cifar100_hold_what_they_state(
    name: str, tag: str, hundred_root: Path, built_if_possible: bool
) -> None:
    test = cifarzoo.load_cifar100("test", root=hundred_root)
    found = cifarzoo.verify_weights(name, test, tag=tag)
    assert found.passed, found.problems


@pytest.mark.parametrize(("name", "tag"), installed("cifar100"))
def test_weights_for_cifar100_know_its_classes(name: str, tag: str, sample_test: ImageSet) -> None:
    card = cifarzoo.get_card(cifarzoo.create_model(name, pretrained=tag))
    known = cifarzoo.get_dataset_info("cifar100")
    assert (card.classes, card.preprocessing) == (known.classes, known.preprocessing)
    with pytest.raises(ArgumentError, match="accuracy on cifar100 test; got 'cifar10 sample test'"):
        cifarzoo.verify_weights(name, sample_test, tag=tag)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tag"), installed("cifar10"))
def test_shipped_weights_work_out_their_own_normalization(
    name: str, tag: str, sample_test: ImageSet
) -> None:
    found = cifarzoo.verify_weights(name, sample_test, tag=tag)
    assert found.passed, found.problems
    network = cifarzoo.create_model(name, pretrained=tag)
    assert cifarzoo.get_card(network).preprocessing == cifarzoo.CIFAR10_PREPROCESSING


@pytest.mark.parametrize(("name", "tag"), SHIPPED)
def test_shipped_weights_come_from_the_recipe_of_their_tag(name: str, tag: str) -> None:
    spec = cifarzoo.get_model_info(name)
    metadata = cifarzoo.read_metadata(spec.weights[tag].path)["metadata"]
    recipe = cifarzoo.Recipe.from_dict(metadata["recipe"])
    name_of_recipe = spec.weights[tag].facts["recipe"]
    assert recipe.replace(seed=0) == spec.get_recipe(name_of_recipe).replace(seed=0)


@pytest.mark.parametrize(("name", "tag"), SHIPPED)
def test_no_test_image_chose_the_shipped_seed(name: str, tag: str) -> None:
    info = cifarzoo.get_model_info(name).weights[tag]
    metadata = cifarzoo.read_metadata(info.path)["metadata"]
    seeds = metadata["seeds"]
    if metadata["val_size"]:
        best = max(seeds, key=lambda entry: entry["validation_accuracy"]["none"])
    else:  # trained on all images: never chosen
        seed = int(tag.partition("seed")[2]) if "seed_of" in info.facts else 0
        (best,) = (entry for entry in seeds if entry["seed"] == seed)
    assert metadata["recipe"]["seed"] == best["seed"]
    # rounded to float16, the parameters are as good as before
    rounded, before = (best[key]["none"] for key in ("test_accuracy", "unrounded_test_accuracy"))
    assert metadata["test_accuracy"]["none"] == rounded == pytest.approx(before, abs=0.0005)


def test_the_package_holds_no_weights_that_nobody_can_ask_for() -> None:
    files = {path.name for path in FOLDER.glob("*.safetensors")}
    assert files == {info.path.name for _, _, info in KNOWN if info.pack is None}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 60e6


@pytest.mark.parametrize(("name", "tag"), SHIPPED)
def test_the_index_says_what_the_file_says(name: str, tag: str) -> None:
    info = cifarzoo.get_model_info(name).weights[tag]
    metadata = cifarzoo.read_metadata(info.path)["metadata"]
    assert info.facts["size"] == info.path.stat().st_size
    assert info.facts["val_size"] == metadata["val_size"]
    seeds = {entry["seed"]: entry for entry in thaw(info.facts["seeds"])}
    assert all(seeds[entry["seed"]] == entry for entry in metadata["seeds"])
    assert seeds[metadata["recipe"]["seed"]]["test_accuracy"] == metadata["test_accuracy"]
    assert 0 < info.facts["calibration_error"] < 0.5


@pytest.fixture
def metadata(sample_test: ImageSet) -> dict[str, Any]:
    """What the weights of `stated` say about themselves."""
    accuracy = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), sample_test).accuracy
    recipe = cifarzoo.get_model_info("simple").recipe.replace(epochs=1)
    facts: dict[str, Any] = dict.fromkeys(PROVENANCE, "something")
    return facts | {
        "model": "simple",
        "data": "cifar10",
        "recipe": recipe.to_dict(),
        "history": [RECORD],
        "val_size": 5000,
        "train_seconds": 60.0,
        "validation_accuracy": {"none": 0.5},
        "test_accuracy": {"none": 0.5},
        "parameters": 80_090,
        "sample_accuracy": {"none": accuracy},
    }


@pytest.fixture
def stated(
    metadata: dict[str, Any], tmp_path: Path, give_weights: Callable[..., None]
) -> dict[str, Any]:
    """The metadata of the only weights of `simple`, and what writes them after a change."""

    def write() -> Path:
        model = cifarzoo.create_model("simple", seed=0)
        path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata=metadata)
        give_weights("simple", default=WeightsInfo(path, file_digest(path)))
        return path

    write()
    return {"metadata": metadata, "write": write}


def problems(images: ImageSet) -> str:
    return "; ".join(cifarzoo.verify_weights("simple", images).problems)


def test_weights_that_hold_pass(stated: dict[str, Any], sample_test: ImageSet) -> None:
    found = cifarzoo.verify_weights("simple", sample_test)
    assert found.passed
    assert found.stated == pytest.approx(found.accuracy, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("stated_in", "asked", "used"),
    [
        ("float32", "auto", "float32"),
        ("bfloat16", "auto", "auto"),  # which is float32 where there is no bfloat16
        ("float32", "bfloat16", "bfloat16"),
    ],
)
def test_accuracy_is_measured_in_the_precision_it_was_stated_in(
    stated: dict[str, Any],
    sample_test: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    stated_in: str,
    asked: Precision,
    used: Precision,
) -> None:
    stated["metadata"]["precision"] = stated_in
    stated["write"]()
    seen = []

    def spy(*args: Any, precision: Precision, **options: Any) -> Any:
        seen.append(precision)
        return evaluate(*args, precision=precision, **options)

    monkeypatch.setattr(verification, "evaluate", spy)
    cifarzoo.verify_weights("simple", sample_test, precision=asked)
    assert seen == [used]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sample_accuracy": {"none": 0.9}}, "states 90.00% on cifar10 sample test, reaches"),
        ({"parameters": 80_091}, "states 80,091 parameters, has 80,090"),
        ({"history": []}, "does not state its history"),
        ({"history": [RECORD, RECORD]}, "has a history of 2 of 1 epochs"),
        ({"model": "deep_bn"}, "was trained as 'deep_bn'"),
        ({"machine": None, "command": ""}, "does not state its machine, command"),
        ({"sample_accuracy": {"none": math.nan}}, "states nan% on cifar10 sample test, reaches"),
        ({"sample_accuracy": {"flip": 0.1}}, "does not state its accuracy in one view"),
        ({"recipe": {"field_of_a_newer_version": 1}}, "has a recipe that cannot be read"),
    ],
)
def test_what_does_not_hold_is_named(
    stated: dict[str, Any], sample_test: ImageSet, change: dict[str, Any], problem: str
) -> None:
    stated["metadata"].update(change)
    stated["write"]()
    assert problem in problems(sample_test)


def test_weights_of_all_training_images_need_no_validation_accuracy(
    stated: dict[str, Any], sample_test: ImageSet
) -> None:
    stated["metadata"].update(val_size=0, validation_accuracy={})
    stated["write"]()
    assert cifarzoo.verify_weights("simple", sample_test).passed
    stated["metadata"].update(val_size=5000)
    stated["write"]()
    assert "does not state its validation_accuracy" in problems(sample_test)


def test_a_damaged_file_is_named(stated: dict[str, Any], sample_test: ImageSet) -> None:
    path = stated["write"]()
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert "its sha256 differs" in problems(sample_test)
    path.unlink()
    assert "is missing; install cifarzoo again" in problems(sample_test)


def test_other_images_are_refused(stated: dict[str, Any], few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="state their accuracy on cifar10 test and"):
        cifarzoo.verify_weights("simple", few)
    with pytest.raises(UnknownNameError, match="weights of 'simple'"):
        cifarzoo.verify_weights("simple", cifarzoo.load_sample("test"), tag="lost")


def test_a_part_of_the_test_images_is_refused(sample_test: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="that on all 1,000 images; got 10: pass the whole set"):
        cifarzoo.verify_weights("simple", sample_test.subset(range(10)))


@pytest.mark.parametrize("data", ["birds", "bees"])
def test_weights_are_measured_on_images_of_the_set_they_were_trained_on(
    stated: dict[str, Any], sample_test: ImageSet, data: str
) -> None:
    accuracy = stated["metadata"].pop("sample_accuracy")
    stated["metadata"].update(data=data, test_accuracy=accuracy)
    stated["write"]()
    own = dataclasses.replace(sample_test, name=f"{data} test")
    assert cifarzoo.verify_weights("simple", own).passed
    with pytest.raises(ArgumentError, match=f"accuracy on {data} test; got 'cifar10 sample test'"):
        cifarzoo.verify_weights("simple", sample_test)


def test_the_command_says_what_holds(stated: dict[str, Any]) -> None:
    result = run("verify", "simple", "--data", "sample")
    assert "1 of 1 passed; accuracies may differ by" in result.stdout
    stated["metadata"]["sample_accuracy"] = {"none": 0.9}
    stated["write"]()
    result = run("verify", "simple", "--data", "sample", "--json", code=1)
    (found,) = json.loads(result.stdout)
    assert found["stated"] == 0.9
    assert found["problems"]


def test_the_command_leaves_out_what_was_trained_on_other_images() -> None:
    result = run("verify", "simple", "--data", "sample", "--json")
    assert "left out: simple cifar100 was trained on cifar100" in result.stderr
    assert "default" in {found["tag"] for found in json.loads(result.stdout)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simple.cifar100", "--data", "sample"], "were trained on cifar100; leave out --data"),
        (
            ["simple", "--data", "cifar10.1"],
            "none of these weights state an accuracy on 'cifar10.1",
        ),
        (["--all", "--data", "nonsense"], "unknown image set 'nonsense'"),
        (["--all", "--no-download", "--root", "."], "no cifar-10-batches-py"),
        (["simple.cifar100", "simple", "--no-download"], "no cifar-100-python"),
    ],
)
def test_the_command_says_why_it_cannot_verify(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIFARZOO_DATA", str(tmp_path))
    assert message in run("verify", *arguments, code=1).stderr


def test_the_command_leaves_out_sets_that_are_not_here(
    stated: dict[str, Any],
    give_weights: Callable[..., None],
    own_registries: None,
    tmp_path: Path,
) -> None:
    """The weights of a pack, of whose set this process knows nothing; those of CIFAR-10 stand."""

    @cifarzoo.register_dataset("bees", splits=("test",))
    def bees(split: str, **ignored: object) -> ImageSet:
        return cifarzoo.load_sample("test")

    accuracy = stated["metadata"]["sample_accuracy"]
    stated["metadata"].update(data="bees", test_accuracy=accuracy)
    ours = stated["write"]().rename(tmp_path / "ours.safetensors")
    stated["metadata"].update(data="birds")
    path = stated["write"]()
    give_weights(
        "simple",
        default=WeightsInfo(ours, file_digest(ours)),
        birds=WeightsInfo(path, file_digest(path)),
    )
    result = run("verify", "simple")
    assert "left out: simple birds was trained on birds: unknown image set" in result.stderr
    assert "1 of 1 passed" in result.stdout
    run("verify", "simple.birds", code=1)


def test_the_command_measures_each_weights_once() -> None:
    models = ["simple.original", "simple.original"]
    result = run("verify", *models, "--data", "sample", "--json")
    assert len(json.loads(result.stdout)) == 1


@pytest.mark.parametrize("arguments", [[], ["simple", "--all"], ["resnet110"]])
def test_the_command_wants_models_with_weights(arguments: list[str]) -> None:
    assert "error:" in run("verify", *arguments, "--data", "sample", code=1).stderr
