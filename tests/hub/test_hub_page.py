"""The page about a network says what is known, in the hub's form, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard as Page
from torch import nn

import cifarzoo
from cifarzoo.hub.page import write_page


def page_of(network: nn.Module, **options: object) -> Page:
    """The page, as the hub's own reader sees it."""
    given = {"facts": {}, "report": None, "license": None, "source": "me/mine", "name": "mine"}
    return Page(write_page(network, **{**given, **options}))  # type: ignore[arg-type]


@pytest.fixture
def network() -> nn.Module:
    return cifarzoo.create_model("simple", seed=0)


def test_the_page_of_weights_of_the_zoo_states_their_accuracy_as_the_hub_reads_it(
    saved: Path,
) -> None:
    page = Page.load(saved / "README.md")
    measured = cifarzoo.read_metadata(saved / "model.safetensors")["metadata"]["test_accuracy"]
    results = page.data.eval_results
    assert results is not None
    assert [each.metric_value for each in results] == [*measured.values()]
    assert {each.dataset_type for each in results} == {"uoft-cs/cifar10"}
    assert {each.dataset_split for each in results} == {"test"}
    assert {each.task_type for each in results} == {"image-classification"}
    assert page.data.model_name == "simple-cifar10"
    assert page.data.library_name == "cifarzoo"
    assert page.data.license == "mit"
    assert f"| accuracy | {measured['none']:.2%} |" in page.text
    spec = cifarzoo.get_model_info("simple")
    for fact in (spec.description, spec.source, f"{spec.parameters:,}", "0.4914", "airplane"):
        assert fact in page.text


def test_a_report_on_other_images_is_not_taken_for_the_test_set(
    network: nn.Module, sample_test: cifarzoo.ImageSet
) -> None:
    report = cifarzoo.evaluate(network, sample_test, tta="flip")
    page = page_of(network, report=report)
    assert page.data.datasets is None
    first, *_ = page.data.eval_results
    assert (first.dataset_type, first.dataset_name) == (report.data, f"{report.data}, 1,000 images")
    assert first.dataset_split is None
    assert first.metric_name == "accuracy, averaged with the mirror image"
    assert first.metric_value == pytest.approx(report.accuracy, abs=1e-6)


def test_a_network_of_timm_is_built_by_its_page_and_named_there() -> None:
    page = page_of(cifarzoo.create_model("timm:test_resnet"))
    spec = cifarzoo.get_model_info("timm:test_resnet")
    assert 'cifarzoo.from_pretrained("me/mine")' in page.text
    assert f"{spec.description} An image classifier" in page.text
    assert f"- the network: {spec.source}" in page.text
    page = page_of(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    assert "built as its author does" in page.text
    assert "- the network:" not in page.text


def test_what_is_not_known_is_left_out(network: nn.Module) -> None:
    page = page_of(network)
    assert page.data.eval_results is None
    assert page.data.license is None
    for heading in ("## Accuracy", "## Training"):
        assert heading not in page.text
    assert "Krizhevsky" not in page.text


def test_names_of_classes_stay_in_their_cell_of_the_table() -> None:
    network = cifarzoo.create_model("simple", num_classes=2)
    cifarzoo.reset_classifier(network, 2, classes=["cat|dog", "ship"])
    assert r"| classes | cat\|dog, ship |" in page_of(network).text


def test_the_recipe_on_the_page_is_the_recipe(network: nn.Module, tmp_path: Path) -> None:
    recipe = cifarzoo.get_model_info("airbench94").get_recipe("fast94")
    page = page_of(network, facts={"recipe": recipe.to_dict(), "command": "cifarzoo train simple"})
    toml = page.text.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "recipe.toml").write_text(toml, encoding="utf-8")
    assert cifarzoo.Recipe.load(tmp_path / "recipe.toml") == recipe
    assert "$ cifarzoo train simple\n" in page.text


def test_the_program_on_the_page_runs(saved: Path, tmp_path: Path) -> None:
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "red").save(photo)
    text = Page.load(saved / "README.md").text
    program = text.partition("```python\n")[2].partition("```")[0]
    assert str(saved) in program
    exec(program.replace("photo.png", str(photo)), {"print": lambda answer: answer.label})
