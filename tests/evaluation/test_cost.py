"""What a prediction costs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo.evaluation import measure_cost


@pytest.mark.parametrize("name", ["simple", "airbench94"])
def test_costs_are_those_of_the_registry(name: str) -> None:
    model = cifarzoo.create_model(name).train()
    cost = measure_cost(model, device="cpu", precision="float32")
    spec = cifarzoo.get_model_info(name)
    assert (cost.parameters, cost.macs) == (spec.parameters, spec.macs)
    assert cost.images_per_second_256 > cost.images_per_second_1 > 0
    assert (cost.device, cost.precision) == ("cpu", "float32")
    assert model.training


def test_activations_are_those_of_the_two_largest_neighbours() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 10))
    cost = measure_cost(model, device="cpu", precision="float32")
    assert cost.activation_bytes == 4 * 2 * 8 * 30 * 30


def test_a_single_layer_has_no_neighbours() -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 32))
    assert measure_cost(model, device="cpu", precision="float32").activation_bytes == 40
    assert torch.is_grad_enabled()
