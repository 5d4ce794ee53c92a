"""What a builder would build is known without building it, and so is what a network has."""

from __future__ import annotations

import pytest
import torch
from kinds import KINDS, each_model
from torch import nn

import cifarzoo
from cifarzoo import ModelCard
from cifarzoo.zoo.builds import describe, find_builder, other_sizes, plan
from cifarzoo.zoo.card import attach_card
from cifarzoo.zoo.classifier import find_classifier


@each_model
def test_the_last_layer_of_every_model_is_known(name: str) -> None:
    before = torch.get_rng_state()
    planned = plan(find_builder(name), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert planned is not None
    model = cifarzoo.create_model(name, num_classes=7, seed=0)
    assert {each.rpartition(".")[0] for each in planned.head} == {find_classifier(model)}
    assert planned.count_classes(model.state_dict()) == 7
    assert describe(model) == cifarzoo.get_card(model)


@pytest.mark.slow
def test_the_kinds_that_tests_take_are_the_cheapest_of_each() -> None:
    cheapest: dict[tuple[str | None, frozenset[str]], str] = {}
    specs = [cifarzoo.get_model_info(name) for name in cifarzoo.list_models()]
    for spec in sorted(specs, key=lambda spec: spec.macs):
        planned = plan(spec.builder, {})
        assert planned is not None
        classes = frozenset(type(module).__name__ for module in planned.model.modules())
        cheapest.setdefault((spec.family, classes), spec.name)
    assert sorted(cheapest.values()) == KINDS


def test_options_that_change_the_size_are_listed() -> None:
    assert other_sizes(find_builder("resnet20")) == {"shortcut='conv'": 272_474}
    assert other_sizes(find_builder("resnet18_cifar")) == {}


@pytest.mark.usefixtures("own_registries")
def test_a_builder_that_cannot_be_planned_is_believed() -> None:
    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def reads_numbers(*, num_classes: int = 10) -> nn.Module:
        layer = nn.Linear(4, num_classes)
        assert layer.weight.sum().item() != 0  # no number is there to be read in a plan
        return layer

    assert plan(reads_numbers, {}) is None
    model = cifarzoo.create_model("reads_numbers", num_classes=3)
    assert describe(model) == ModelCard("reads_numbers", num_classes=3)
    again = cifarzoo.create_model("reads_numbers", num_classes=3, pretrained=model.state_dict())
    assert torch.equal(again.get_parameter("weight"), model.get_parameter("weight"))


def test_a_network_with_a_layer_less_is_none_of_its_builder() -> None:
    model = cifarzoo.create_model("resnet20")
    model.layer3[2] = nn.Identity()  # type: ignore[operator]  # a Sequential
    assert describe(model) == ModelCard("SmallResNet", classes=cifarzoo.CIFAR10_CLASSES)


def test_a_network_for_other_images_keeps_its_card() -> None:
    model = nn.Linear(5, 2)
    attach_card(model, ModelCard("mine", num_classes=9))
    assert describe(model).num_classes == 9
