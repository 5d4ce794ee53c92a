"""The last layer of any network can be had and replaced, and the card follows."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from kinds import each_kind_slowly
from torch import nn

import cifarzoo
from cifarzoo import ModelCard
from cifarzoo.errors import ArgumentError, InputError

IMAGES = torch.zeros(2, 3, 32, 32)


@each_kind_slowly
def test_a_new_last_layer_begins_as_that_of_a_new_network(name: str) -> None:
    model = cifarzoo.create_model(name, seed=0).double().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    cifarzoo.reset_classifier(model, 3, classes=["a", "b", "c"], seed=1)
    assert torch.equal(torch.get_rng_state(), generator)
    new = cifarzoo.create_model(name, num_classes=3, seed=1).double().state_dict()
    head = {key for key in new if new[key].shape != before[key].shape}
    assert head
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, new[key] if key in head else before[key]), key
    assert cifarzoo.get_card(model) == ModelCard(name, num_classes=3, classes=("a", "b", "c"))
    assert all(module.training for module in model.modules())
    assert model(IMAGES.double()).shape == (2, 3)


def test_a_network_with_a_new_last_layer_is_read_back_from_its_file(tmp_path: Path) -> None:
    model = cifarzoo.create_model("resnet20", shortcut="conv", seed=0)
    cifarzoo.reset_classifier(model, 4)
    again = cifarzoo.load_model(cifarzoo.save_weights(model, tmp_path / "w.safetensors"))
    card = ModelCard("resnet20", num_classes=4, options={"shortcut": "conv"})
    assert cifarzoo.get_card(again) == card
    assert torch.equal(again.eval()(IMAGES), model.eval()(IMAGES))


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("alexnet", "classifier.6", 224),
        ("googlenet", "fc", 224),
        pytest.param("inception_v3", "fc", 299, marks=pytest.mark.slow),
        ("resnet18", "fc", 32),
        ("squeezenet1_1", "classifier.1", 224),
        ("vit_b_16", "heads.head", 224),
    ],
)
def test_networks_of_torchvision_get_a_new_last_layer(name: str, layer: str, size: int) -> None:
    # the two warn that they will start with other numbers some day
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):  # no memory, no numbers
        model = torchvision.models.get_model(name, num_classes=7, **options)
        images = torch.zeros(2, 3, size, size)
    assert cifarzoo.get_classifier(model) is model.get_submodule(layer)
    cifarzoo.reset_classifier(model, 5)
    assert cifarzoo.get_classifier(model) is model.get_submodule(layer)
    assert model.eval()(images).shape == (2, 5)
    answers = model.train()(images)  # of googlenet and inception several
    answers = answers if isinstance(answers, tuple) else (answers,)
    assert {tuple(answer.shape) for answer in answers} == {(2, 5)}
    assert getattr(model, "num_classes", 5) == 5
    assert cifarzoo.get_card(model).num_classes == 5


@pytest.mark.parametrize(
    "name", ["test_byobnet", "test_convnext", "test_efficientnet", "test_resnet", "test_vit"]
)
def test_networks_of_timm_get_a_new_last_layer(name: str) -> None:
    model = timm.create_model(name, num_classes=7).to(torch.bfloat16)
    assert cifarzoo.get_classifier(model) is model.get_classifier()
    cifarzoo.reset_classifier(model, 5, seed=3)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    size = model.pretrained_cfg["input_size"][-1]
    assert model(torch.zeros(2, 3, size, size, dtype=torch.bfloat16)).shape == (2, 5)
    assert model.num_classes == cifarzoo.get_card(model).num_classes == 5


def test_both_last_layers_of_a_distilled_network_are_replaced() -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7)
    both = cifarzoo.get_classifier(model)
    assert isinstance(both, nn.ModuleList)
    assert [*both] == [model.head, model.head_dist]
    cifarzoo.reset_classifier(model, 5)
    assert [layer.out_features for layer in cifarzoo.get_classifier(model)] == [5, 5]


def test_a_network_of_ones_own_keeps_kind_place_and_mode_of_its_last_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 6, 3, bias=False), nn.Flatten()
    ).to(torch.float64)
    model[2].eval()
    cifarzoo.reset_classifier(nn.DataParallel(model), 2)
    layer = cifarzoo.get_classifier(model)
    assert repr(layer) == "Conv2d(4, 2, kernel_size=(3, 3), stride=(1, 1), bias=False)"
    assert layer.weight.dtype == torch.float64
    assert not layer.training
    assert cifarzoo.get_card(model) == ModelCard("Sequential", num_classes=2)


def test_a_wrapper_within_the_network_keeps_its_layers() -> None:
    body = cifarzoo.create_model("resnet20", seed=0)
    body.fc = nn.Identity()
    model = nn.Sequential(nn.DataParallel(body), nn.Linear(64, 16))
    before = {name: value.clone() for name, value in body.state_dict().items()}
    cifarzoo.reset_classifier(model, 10)
    assert model[1].out_features == 10
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    images = torch.zeros(2, 3, 32, 32)
    inside = nn.Sequential(nn.Identity(), nn.DataParallel(cifarzoo.create_model("resnet20")))
    assert cifarzoo.embeddings(inside, images).shape == (2, 64)


def test_the_new_last_layer_learns_when_the_rest_is_frozen() -> None:
    model = cifarzoo.create_model("simple", seed=0).requires_grad_(False)
    cifarzoo.reset_classifier(model, 3)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["fc3.weight", "fc3.bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "at least 1 .*; got 0: .*embeddings"),
        ({"num_classes": 2.5}, "whole number"),
        ({"num_classes": 10**9}, "at most 100,000; got 1000000000"),
        ({"num_classes": 2, "classes": ["a"]}, "classes must be 2 names"),
        ({"num_classes": 2, "classes": "ab"}, "classes must be 2 names"),
        ({"num_classes": 2, "classes": {"a", "b"}}, "classes must be 2 names"),
        ({"num_classes": 2, "seed": "x"}, "seed must be a whole number"),
    ],
)
def test_what_cannot_be_a_last_layer_is_refused_and_nothing_changes(
    arguments: dict[str, object], message: str
) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    with pytest.raises(ArgumentError, match=message):
        cifarzoo.reset_classifier(model, **arguments)  # type: ignore[arg-type]
    assert cifarzoo.get_classifier(model).out_features == 10
    assert cifarzoo.get_card(model).num_classes == 10


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3072, 5), nn.Linear(3072, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.first(images.flatten(1)) + self.second(images.flatten(1))


@pytest.mark.parametrize("of_zoo", [True, False])
def test_no_layer_stands_for_a_network_whose_logits_come_from_several(of_zoo: bool) -> None:
    model = _TwoHeads()
    if of_zoo:
        members = [cifarzoo.create_model(name) for name in ("simple", "resnet20")]
        model = cifarzoo.ensemble(members)
    before = copy.deepcopy(model.state_dict())
    for ask in (
        cifarzoo.get_classifier,
        lambda model: cifarzoo.reset_classifier(model, 3),
        lambda model: cifarzoo.embeddings(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8)),
    ):
        with pytest.raises(InputError, match="other layers beside it; take its parts one by one"):
            ask(model)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_network_without_a_last_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"last layer of .* cannot be found"):
        cifarzoo.reset_classifier(nn.Sequential(nn.Conv2d(3, 4, 3)), 2)
    with pytest.raises(InputError, match=r"last layer of .* cannot be found"):
        cifarzoo.get_classifier(nn.Flatten())
