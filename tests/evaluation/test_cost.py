"""What a prediction costs."""

from __future__ import annotations

import itertools
import sys
import types

import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo.evaluation import measure_cost


@pytest.mark.parametrize("name", ["simple", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_costs_are_those_of_the_registry(name: str) -> None:
    model = cifarzoo.create_model(name).train()
    cost = measure_cost(model, device="cpu", precision="float32")
    spec = cifarzoo.get_model_info(name)
    assert (cost.parameters, cost.macs) == (spec.parameters, spec.macs)
    assert min(cost.images_per_second_1, cost.images_per_second_256) > 0
    assert (cost.device, cost.precision) == ("cpu", "float32")
    assert model.training


def test_speed_is_images_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks) / 8)  # a pass takes one tick
    monkeypatch.setattr("cifarzoo.evaluation.cost.time", clock)
    cost = measure_cost(cifarzoo.create_model("simple"), device="cpu", precision="float32")
    assert (cost.images_per_second_1, cost.images_per_second_256) == (8, 256 * 8)
    assert (cost.middle_half_1, cost.middle_half_256) == ((8, 8), (256 * 8, 256 * 8))


def test_half_of_the_repetitions_are_as_fast_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.accumulate(itertools.cycle([1 / 16, 1 / 8, 1 / 2, 1 / 4, 1 / 32]))
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr("cifarzoo.evaluation.cost.time", clock)
    cost = measure_cost(cifarzoo.create_model("simple"), device="cpu", precision="float32")
    low, high = cost.middle_half_1
    assert low < high
    assert low <= cost.images_per_second_1 <= high


class Hungry(nn.Module):
    """Holds a megabyte for each image while it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        held = torch.ones(len(images), 2**18)
        logits: torch.Tensor = self.head(images.mean((2, 3)) + 0 * held.mean())
        return logits


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak")
def test_peak_memory_is_what_a_pass_holds_at_once() -> None:
    cost = measure_cost(Hungry(), device="cpu", precision="float32")
    assert cost.peak_bytes_1 is not None
    assert cost.peak_bytes_256 is not None
    assert 0.9 * 2**20 < cost.peak_bytes_1 < 2**23  # the system counts in batches
    assert 0.98 * 2**28 < cost.peak_bytes_256 < 1.2 * 2**28
    assert torch.is_grad_enabled()


def test_unknown_peak_memory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarzoo.compute.cpu.pages._glibc", lambda: None)
    cost = measure_cost(Hungry(), device="cpu", precision="float32")
    assert cost.peak_bytes_1 is cost.peak_bytes_256 is None
