from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cifarzoo
from cifarzoo.compute.cpu import conv, cpu_kernels, fast_layout

LAST = torch.channels_last


def strides(model: nn.Module) -> list[tuple[int, ...]]:
    return [parameter.stride() for parameter in model.parameters()]


@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
def test_every_parameter_lies_afterwards_as_before(given: torch.memory_format) -> None:
    model = cifarzoo.create_model("resnet18_cifar", seed=0).to(memory_format=given)
    before = strides(model)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    with contextlib.suppress(ZeroDivisionError), fast_layout(model, 32):
        assert model.conv1.weight.is_contiguous(memory_format=LAST)
        raise ZeroDivisionError
    assert strides(model) == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def test_wide_convolutions_on_maps_of_a_few_pixels_are_contiguous() -> None:
    model = cifarzoo.create_model("resnet18_cifar")
    with fast_layout(model, 32):
        assert model.layer4[1].conv1.weight.is_contiguous()
        assert not model.layer4[1].conv1.weight.is_contiguous(memory_format=LAST)
        assert model.layer3[1].conv1.weight.is_contiguous(memory_format=LAST)
    with fast_layout(model, 64):
        assert model.layer4[1].conv1.weight.is_contiguous(memory_format=LAST)
    with fast_layout(model):
        assert model.layer4[1].conv1.weight.is_contiguous(memory_format=LAST)
    with fast_layout(model, 32, enabled=False):
        assert model.layer3[1].conv1.weight.is_contiguous()


def test_the_answers_stay_the_same() -> None:
    model = cifarzoo.create_model("resnet18_cifar", seed=0).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    with cpu_kernels(model), fast_layout(model, 32):
        found = model(images.to(memory_format=LAST))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tensors_of_other_dimensions_and_gradients_keep_and_get_their_layout() -> None:
    model = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv3d(1, 4, 3)])
    model.register_buffer("means", torch.zeros(2, 1, 3, 1, 1))
    model.register_buffer("blur", torch.ones(3, 2, 3, 3))
    flat = model[0].weight
    flat.grad = torch.ones_like(flat)
    tensors = {**model.state_dict(keep_vars=True), "gradient": flat.grad}
    before = {name: tensor.stride() for name, tensor in tensors.items()}
    with fast_layout(model, 32):
        for name in ("0.weight", "blur", "gradient"):
            assert tensors[name].is_contiguous(memory_format=LAST), name
            assert not tensors[name].is_contiguous(), name
    assert {name: tensor.stride() for name, tensor in tensors.items()} == before


def test_shuffled_channels_are_brought_in_order(built: None) -> None:
    model = cifarzoo.create_model("shufflenetv2_x0_5", seed=0)
    found: set[bool] = set()
    forward = conv.Conv2d.forward

    def look(layer: conv.Conv2d, x: Tensor) -> Tensor:
        y = forward(layer, x)
        found.add(y.is_contiguous(memory_format=LAST))
        return y

    with cpu_kernels(model), fast_layout(model, 32), pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv.Conv2d, "forward", look)
        model(torch.zeros(4, 3, 32, 32).to(memory_format=LAST))
    assert found == {True}


def test_torch_takes_filters_of_1x1_for_channels_last() -> None:
    layer = nn.Conv2d(32, 16, 1)
    with fast_layout(layer):
        found = layer(torch.zeros(2, 32, 8, 8))
        assert found.is_contiguous(memory_format=LAST)
        assert not found.is_contiguous()
    assert layer.weight.stride() == (32, 1, 1, 1)


def test_memory_that_is_shared_stays_shared() -> None:
    network = nn.Sequential(nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 3, groups=16)).share_memory()
    places = [each.data_ptr() for each in network.parameters()]
    with fast_layout(network, 32):
        assert all(each.is_shared() for each in network.parameters())
    assert [each.data_ptr() for each in network.parameters()] == places


def test_a_network_for_other_images_has_no_narrow_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 512, 3), nn.Flatten(), nn.Linear(9, 2))
    with fast_layout(model, 32):
        assert model[0].weight.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("is_parametrized", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("dilation", [2, (2, 1)], ids=str)
def test_torch_gets_no_map_that_it_makes_wrong_gradients_of(
    dilation: Any, enabled: bool, is_parametrized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For dilated depthwise convolutions, torch 2.14 takes memory that nobody has written."""
    given = []
    stock = nn.Conv2d._conv_forward

    def note(layer: nn.Conv2d, x: Tensor, *rest: Any) -> Tensor:
        given.append((torch.is_autocast_enabled("cpu"), x.is_contiguous()))
        return stock(layer, x, *rest)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", note)
    layer = nn.Conv2d(32, 32, 3, padding=dilation, dilation=dilation, groups=32, bias=False)
    if is_parametrized:
        nn.utils.parametrizations.weight_norm(layer)
    network = nn.Sequential(layer)
    x = torch.randn(4, 32, 40, 40).contiguous(memory_format=LAST)
    grads = []
    with cpu_kernels(network, enabled=enabled), fast_layout(network, 32, enabled=enabled):
        for is_mixed in (False, True):
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                network(x).float().sum().backward()
            (grad, *_) = (p.grad for p in network.parameters())
            assert grad is not None
            grads.append(grad)
    assert (grads[1] - grads[0]).norm() < 0.02 * grads[0].norm()
    assert given  # there are no layers in C here
    assert all(is_contiguous for is_mixed, is_contiguous in given if is_mixed)
