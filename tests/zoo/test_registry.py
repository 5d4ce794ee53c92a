from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from torch import nn

import cifarzoo
from cifarzoo import Recipe, WeightsInfo
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.files.writing import file_digest

pytestmark = pytest.mark.usefixtures("own_registries")


def register(name: str, builder: object) -> None:
    facts = {"description": "A test.", "source": "here", "parameters": 1, "macs": 1}
    cifarzoo.register_model(name=name, **facts)(builder)  # type: ignore[arg-type]


def tiny(*, num_classes: int = 10, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, num_classes))


def test_the_reports_networks_are_there() -> None:
    assert {"simple", "deep_bn", "resnet18", "resnet18_cifar"} <= set(cifarzoo.list_models())


def test_patterns_select() -> None:
    assert cifarzoo.list_models("resnet18*") == ["resnet18", "resnet18_cifar"]
    assert cifarzoo.list_models("nothing*") == []


def test_pretrained_divides_the_list() -> None:
    some, none = (cifarzoo.list_models(pretrained=value) for value in (True, False))
    assert sorted([*some, *none]) == cifarzoo.list_models()


def test_unknown_model_suggests_the_nearest() -> None:
    message = r"unknown model 'deepbn'; did you mean 'deep_bn'\? See list_models\(\)\."
    with pytest.raises(UnknownNameError, match=message):
        cifarzoo.get_model_info("deepbn")
    with pytest.raises(ValueError, match=r"none of the \d+ known names is like it; some are air"):
        cifarzoo.create_model("")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densenet121", "'densenet121'; other packages have a network of this name: 'timm:dense"),
        ("densenet121", "and 'torchvision:densenet121'."),
        ("resnet34", "did you mean 'resnet34_cifar'? other packages have"),
    ],
)
def test_a_network_of_another_package_is_pointed_at(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=re.escape(message)):
        cifarzoo.get_model_info(name)


def test_a_third_party_model_is_a_model_like_any_other() -> None:
    register("tiny", tiny)
    assert "tiny" in cifarzoo.list_models()
    assert cifarzoo.get_model_info("tiny").options == {"width": 4}
    assert cifarzoo.create_model("tiny", width=6)[1].out_features == 6  # type: ignore[index]
    assert cifarzoo.get_model_info("tiny").recipe == Recipe()


def test_duplicate_names_raise() -> None:
    with pytest.raises(DuplicateNameError, match="'simple' is already registered"):
        register("simple", tiny)


def test_builder_must_take_num_classes() -> None:
    with pytest.raises(ArgumentError, match="must take num_classes"):
        register("bad", lambda *, width=1: nn.Identity())


def test_builder_parameters_must_be_keyword_only() -> None:
    with pytest.raises(ArgumentError, match="has the parameter 'width'; all must be keyword-only"):
        register("bad", lambda width=1, *, num_classes=10: nn.Identity())


def test_a_builder_must_return_a_network() -> None:
    register("bad", lambda *, num_classes=10: None)
    with pytest.raises(ArgumentError, match=r"of 'bad' must return .* it returned None"):
        cifarzoo.create_model("bad")


def test_a_builder_must_heed_the_number_of_classes() -> None:
    def deaf(*, num_classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    register("deaf", deaf)
    assert cifarzoo.create_model("deaf") is not None
    with pytest.raises(ArgumentError, match=r"for num_classes=7 it returned one of 10"):
        cifarzoo.create_model("deaf", num_classes=7)


def test_the_command_line_takes_images_of_the_size_that_a_model_is_made_for() -> None:
    @cifarzoo.register_model(
        name="large",
        description="L.",
        source="Me.",
        parameters=122_890,
        macs=122_880,
        image_size=64,
    )
    def large(*, num_classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, num_classes))

    assert "122,890" in run("summary", "large").output


def test_unknown_option_names_the_allowed() -> None:
    register("tiny", tiny)
    with pytest.raises(ArgumentError, match=r"did you mean 'width'\? allowed: width"):
        cifarzoo.create_model("tiny", widht=3)
    with pytest.raises(ArgumentError, match=r"unknown option 'depth' of model 'simple'.*none"):
        cifarzoo.create_model("simple", depth=3)


def test_unknown_recipe_names_the_model() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'original'\?"):
        cifarzoo.get_model_info("simple").get_recipe("orginal")


def test_options_need_a_default() -> None:
    def build(*, num_classes: int, width: int) -> nn.Module:
        return nn.Linear(width, num_classes)

    with pytest.raises(ArgumentError, match="'width'; all must be keyword-only, with a default"):
        cifarzoo.register_model(description="", source="", parameters=1, macs=1)(build)


def test_nobody_can_change_what_the_zoo_knows() -> None:
    spec = cifarzoo.get_model_info("simple")
    for mapping in (spec.recipes, spec.weights):
        with pytest.raises(TypeError, match="cannot be changed"):
            mapping["mine"] = None  # type: ignore[index]  # what the test is about
    spec.options["width"] = 3
    spec.to_dict()["recipes"]["default"]["epochs"] = 1
    assert cifarzoo.get_model_info("simple") == spec
    assert hash(spec) == hash(cifarzoo.get_model_info("simple"))
    assert "mine" not in spec.recipes
    assert spec.options == {}


def test_a_mapping_of_recipes_stays_the_callers() -> None:
    recipes = {"quick": Recipe(epochs=1)}
    cifarzoo.register_model(
        description="", source="", parameters=1, macs=1, recipes=recipes, name="tiny"
    )(tiny)
    recipes.clear()
    assert cifarzoo.get_model_info("tiny").get_recipe("quick").epochs == 1


def test_an_accuracy_that_only_the_file_tells_is_shown_wherever_weights_are(
    tmp_path: Path, give_weights: Callable[..., None]
) -> None:
    told = {"test_accuracy": {"none": 0.8125}}
    model = cifarzoo.create_model("simple", seed=0)
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata=told)
    give_weights("simple", default=WeightsInfo(path, file_digest(path)))
    spec = cifarzoo.get_model_info("simple")
    shown = [run(each, "simple").stdout for each in ("models", "info")]
    for text in (*shown, str(spec), spec._repr_html_()):
        assert "81.25 %" in text
