"""What a builder would build is known without building it, and so is what a network has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kinds import KINDS, each_model_slowly, hollow
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ModelCard
from cifarzoo.compute.cpu import cpu_kernels, fast_layout
from cifarzoo.zoo.builds import describe, find_builder, other_sizes, plan
from cifarzoo.zoo.card import attach_card
from cifarzoo.zoo.classifier import find_classifier


@each_model_slowly
def test_the_last_layer_of_every_model_is_known(name: str) -> None:
    before = torch.get_rng_state()
    planned = plan(find_builder(name), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert planned is not None
    model = hollow(name, num_classes=7)
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
@pytest.mark.parametrize("read", [lambda x: [y.item() for y in x], torch.Tensor.tolist])
def test_a_builder_may_read_what_it_writes_down(read: Callable[[Tensor], list[float]]) -> None:
    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def drops(*, num_classes: int = 10) -> nn.Module:
        rates = read(torch.linspace(0, 0.5, 3))
        layers = [nn.Conv2d(3, 3, 3, stride=1 + (rate > 1)) for rate in rates]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 26 * 26, num_classes))

    assert plan(drops, {}) is not None
    model = cifarzoo.create_model("drops")
    assert describe(model).name == "drops"
    model[0].dilation = (2, 2)
    assert describe(model).name == "Sequential"


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


def _set_part(name: str, part: nn.Module) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.get_submodule(name)  # it is there
        model.set_submodule(name, part)

    return change


def _set_value(name: str, value: object) -> Callable[[nn.Module], None]:
    layer, _, attribute = name.rpartition(".")
    return lambda model: setattr(model.get_submodule(layer), attribute, value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("resnet18", cifarzoo.adapt_stem),
        ("resnet18", _set_part("maxpool", nn.Identity())),
        ("resnet18_cifar", _set_value("layer2.0.conv1.stride", (1, 1))),
        ("resnet20", _set_value("layer2.0.downsample.added", 8)),
        ("resnet20", _set_value("bn1.eps", 1e-3)),
        ("deep_bn", _set_value("conv1.padding_mode", "reflect")),
        ("simple", _set_part("pool2", nn.MaxPool2d(2))),
        ("resnet20", _set_part("layer1.0.relu", nn.GELU())),
        ("airbench94", _set_value("group1.activation.approximate", "tanh")),
        ("airbench94", _set_value("group3.pools_first", True)),
        ("mobilenetv2", _set_value("features.0.2.max_val", 20.0)),
    ],
)
def test_a_network_whose_layers_do_something_else_is_none_of_its_builder(
    name: str, change: Callable[[nn.Module], object]
) -> None:
    model = cifarzoo.create_model(name)
    assert describe(model).name == name
    before = {key: tensor.shape for key, tensor in model.state_dict().items()}
    change(model)
    assert {key: tensor.shape for key, tensor in model.state_dict().items()} == before
    assert describe(model).name == type(model).__name__


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("deep_bn", _set_value("dropout1.p", 0.1)),
        ("deep_bn", _set_part("dropout1", nn.Identity())),
        ("deep_bn", _set_value("bn_conv1.momentum", 0.01)),
        ("mobilenetv2", _set_value("features.0.2.inplace", False)),
        ("resnet20", nn.SyncBatchNorm.convert_sync_batchnorm),
        ("resnet20", lambda model: model.requires_grad_(False).train().half()),
        ("resnet20", lambda model: model.to(memory_format=torch.channels_last)),
        ("resnet20", _set_value(".run", 3)),
        ("cct_7_3x1", lambda model: [setattr(m, "p", 0.3) for m in model.modules()]),
        ("vit_tiny_patch4", lambda model: model.set_grad_checkpointing()),
    ],
)
def test_what_changes_no_answer_leaves_a_network_that_of_its_builder(
    name: str, change: Callable[[nn.Module], object]
) -> None:
    model = cifarzoo.create_model(name)
    change(model)
    assert describe(model) == cifarzoo.get_card(model)


@pytest.mark.parametrize("name", KINDS)
def test_a_network_in_training_is_that_of_its_builder(name: str) -> None:
    model = hollow(name)
    with cpu_kernels(model), fast_layout(model, 32):  # a checkpoint is written within
        assert describe(model) == cifarzoo.get_card(model)


def test_a_network_for_other_images_keeps_its_card() -> None:
    model = nn.Linear(5, 2)
    attach_card(model, ModelCard("mine", num_classes=9))
    assert describe(model).num_classes == 9
