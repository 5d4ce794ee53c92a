"""timm makes the networks of the zoo by its own names, with what its programs look for."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import timm.data
import torch
from torch import nn

import cifarzoo
import cifarzoo.timm
from cifarzoo import Preprocessing
from cifarzoo.errors import ArgumentError, WeightsError

OTHER = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_every_model_of_the_zoo_is_in_the_registry_of_timm() -> None:
    assert {*timm.list_models("cifarzoo_*")} >= {f"cifarzoo_{n}" for n in cifarzoo.list_models()}
    tags = {
        f"cifarzoo_{name}.{tag}"
        for name in cifarzoo.list_models()
        for tag in cifarzoo.get_model_info(name).weights
    }
    assert {*timm.list_models("cifarzoo_*", pretrained=True)} >= tags


@pytest.mark.parametrize("name", cifarzoo.list_models(pretrained=True))
def test_pretrained_networks_are_those_of_the_zoo_with_their_settings(name: str) -> None:
    for tag in cifarzoo.get_model_info(name).weights:
        model = timm.create_model(f"cifarzoo_{name}.{tag}", pretrained=True)
        ours = cifarzoo.create_model(name, pretrained=tag)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, ours.state_dict()[key])
        card, settings = cifarzoo.get_card(ours), model.pretrained_cfg
        assert cifarzoo.get_card(model) == card
        stated = timm.get_pretrained_cfg(f"cifarzoo_{name}.{tag}")
        assert (stated.mean, stated.std) == (card.preprocessing.mean, card.preprocessing.std)
        assert stated.label_names == card.classes
        assert (settings["mean"], settings["std"]) == (stated.mean, stated.std)
        assert settings["input_size"] == (3, 32, 32)
        assert settings["license"] == "mit"
        assert settings["paper_name"] == cifarzoo.get_model_info(name).source
        head = model.get_submodule(settings["classifier"])
        assert head is cifarzoo.get_classifier(model)
        assert (model.num_classes, model.num_features) == (card.num_classes, head.in_features)
        assert stated.num_classes == card.num_classes
        assert isinstance(model.get_submodule(settings["first_conv"]), nn.Conv2d)


def test_a_new_network_is_one_for_what_its_settings_say() -> None:
    model = timm.create_model("cifarzoo_simple.cifar100")
    known = cifarzoo.get_dataset_info("cifar100")
    assert model.fc3.out_features == model.num_classes == model.pretrained_cfg["num_classes"] == 100
    assert cifarzoo.get_card(model).preprocessing == known.preprocessing
    few = timm.create_model("cifarzoo_simple.cifar100", pretrained=True, num_classes=7)
    assert few.num_classes == few.pretrained_cfg["num_classes"] == 7
    assert few.pretrained_cfg.get("label_names") is None


def test_the_paper_is_given_by_its_number() -> None:
    assert timm.get_pretrained_cfg("cifarzoo_resnet20").paper_ids == "arXiv:1512.03385"


def test_timms_own_preprocessing_is_that_of_the_network(sample_test: cifarzoo.ImageSet) -> None:
    model = timm.create_model("cifarzoo_simple", pretrained=True).eval()
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)
    import torchvision.transforms.functional as convert

    images = sample_test.images[:8]
    theirs = torch.stack([transform(convert.to_pil_image(image)) for image in images])
    torch.testing.assert_close(theirs, cifarzoo.get_card(model).preprocessing.normalize(images))


def test_options_and_neutral_settings_of_timms_programs_are_taken() -> None:
    model = timm.create_model(
        "cifarzoo_resnet20", num_classes=3, shortcut="conv", in_chans=3, drop_rate=0.0
    )
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert cifarzoo.get_card(model).options == {"shortcut": "conv"}
    assert model.num_classes == 3


@pytest.mark.parametrize("options", [{"in_chans": 1}, {"features_only": True}])
def test_what_a_network_of_the_zoo_cannot_do_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=f"unknown option '{next(iter(options))}'"):
        timm.create_model("cifarzoo_simple", **options)


def test_a_model_without_default_weights_says_which_there_are() -> None:
    with pytest.raises(ArgumentError, match="no default weights; it has original"):
        timm.create_model("cifarzoo_resnet18", pretrained=True)
    with pytest.raises(ArgumentError, match="no pretrained weights"):
        timm.create_model("cifarzoo_resnet110", pretrained=True)


def test_a_folder_for_the_hub_is_read_by_timm(tmp_path: Path) -> None:
    ours = cifarzoo.create_model("resnet20", shortcut="conv", num_classes=3, preprocessing=OTHER)
    cifarzoo.save_pretrained(ours, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert all(torch.equal(x, ours.state_dict()[k]) for k, x in model.state_dict().items())
    assert cifarzoo.get_card(model) == cifarzoo.get_card(ours)
    assert model.pretrained_cfg["std"] == OTHER.std
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=5)
    assert torch.equal(other.conv1.weight, ours.conv1.weight)
    assert other.num_classes == 5


@pytest.mark.slow  # a new interpreter imports torchvision
def test_a_network_of_the_hub_is_made_by_timm_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    place, commit = tmp_path / "hub/models--me--mine", "a" * 40
    ours = cifarzoo.create_model("simple", num_classes=3, seed=0)
    cifarzoo.save_pretrained(ours, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    code = (
        "import timm, cifarzoo.timm\n"
        "model = timm.create_model('hf-hub:me/mine', pretrained=True)\n"
        f"cifarzoo.save_weights(model, {str(tmp_path / 'again.safetensors')!r})\n"
    )
    offline = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], env=offline, check=True, capture_output=True)
    again = cifarzoo.load_model(tmp_path / "again.safetensors")
    assert all(torch.equal(x, ours.state_dict()[k]) for k, x in again.state_dict().items())


def test_a_weights_file_is_taken_by_timms_setting(tmp_path: Path) -> None:
    ours = cifarzoo.create_model("simple", seed=9)
    path = cifarzoo.save_weights(ours, tmp_path / "mine.safetensors")
    setting = {"file": str(path)}
    model = timm.create_model("cifarzoo_simple", pretrained=True, pretrained_cfg_overlay=setting)
    assert torch.equal(model.fc3.weight, ours.fc3.weight)
    with pytest.raises(WeightsError, match="there is no weights file"):
        timm.create_model(
            "cifarzoo_simple", pretrained=True, pretrained_cfg_overlay={"file": "no.safetensors"}
        )
    with pytest.raises(ArgumentError, match="cannot be fetched by timm's settings"):
        timm.create_model(
            "cifarzoo_simple",
            pretrained=True,
            pretrained_cfg_overlay={"file": None, "url": "https://example.com/w.pth"},
        )


@pytest.mark.usefixtures("own_registries")
def test_a_model_of_ones_own_is_registered_too() -> None:
    @cifarzoo.register_model(description="d", source="s", parameters=1, macs=1)
    def for_timm(*, num_classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), nn.Linear(4, num_classes))

    cifarzoo.timm.register("for_timm")
    assert timm.create_model("cifarzoo_for_timm", num_classes=2).num_classes == 2


def test_a_network_from_timm_is_evaluated_and_copied_like_any_other(
    sample_test: cifarzoo.ImageSet,
) -> None:
    model = timm.create_model("cifarzoo_simple", pretrained=True)
    again = copy.deepcopy(model)
    ours = cifarzoo.create_model("simple", pretrained=True)
    accuracies = {cifarzoo.evaluate(m, sample_test).accuracy for m in (model, again, ours)}
    assert len(accuracies) == 1
    assert min(accuracies) > 0.7
