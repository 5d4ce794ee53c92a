"""Networks as others make them: averaged, in other dtypes, inside other contexts, under proxies."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import cifarzoo
from cifarzoo import ImageSet, evaluate, export_program, probabilities
from cifarzoo.errors import ArgumentError
from cifarzoo.evaluation import measure_cost

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=True)


@pytest.fixture
def few(sample_test: ImageSet) -> ImageSet:
    return sample_test.subset(range(100))


def test_the_averages_of_torch_have_the_card_of_what_they_average(
    model: nn.Module, sample_test: ImageSet, tmp_path: Path
) -> None:
    """By it labels are compared by name, and images normalized."""
    known = [sample_test.classes.index(name) for name in ("cat", "dog", "ship")]
    part = sample_test.subset(torch.isin(sample_test.labels, torch.tensor(known)))
    labels = [known.index(label) for label in part.labels.tolist()]
    pets = ImageSet(part.images, labels, ("cat", "dog", "ship"))
    averaged = AveragedModel(model)
    assert evaluate(averaged, pets, **CPU).predicted == evaluate(model, pets, **CPU).predicted
    path = cifarzoo.save_weights(averaged, tmp_path / "averaged.safetensors")
    assert cifarzoo.get_card(cifarzoo.load_model(path)) == cifarzoo.get_card(model)


class Part(nn.Module):
    """Knows its owner, as the modules of Lightning know their trainer."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.__dict__["owner"] = weakref.proxy(owner)  # no part of it

    def forward(self, x: Tensor) -> Tensor:
        return x + float(self.owner.training)


def test_a_module_that_knows_another_by_a_proxy_is_evaluated(few: ImageSet) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).train()
    expected = probabilities(network, few, **CPU)
    network.append(Part(network))
    assert torch.equal(probabilities(network, few, **CPU), expected)
    assert network.training


def test_a_proxy_of_what_is_gone_is_left_alone(few: ImageSet) -> None:
    network, owner = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), nn.Identity()
    network.__dict__["owner"] = weakref.proxy(owner)
    del owner
    gc.collect()
    assert probabilities(network, few, **CPU).shape == (100, 10)


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["ours", "another's"])
def test_networks_of_other_dtypes_compute_in_theirs(
    model: nn.Module, few: ImageSet, dtype: torch.dtype, kind: str, precision: Any
) -> None:
    network = model if kind == "ours" else nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    exact = probabilities(network, few, **CPU)
    other = copy.deepcopy(network).to(dtype)
    found = probabilities(other, few, device="cpu", precision=precision)
    assert found.dtype == torch.float32
    close = {torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.2}[dtype]
    assert (found - exact).abs().max() < close
    assert next(other.parameters()).dtype == dtype


def test_a_measured_cost_names_the_dtype_that_the_network_computes_in() -> None:
    network = cifarzoo.create_model("simple").double()
    assert measure_cost(network, device="cpu", precision="bfloat16").precision == "float64"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_dtypes_are_exported(
    model: nn.Module, few: ImageSet, dtype: torch.dtype, tmp_path: Path
) -> None:
    other = copy.deepcopy(model).to(dtype)
    path = export_program(other, tmp_path / "network.pt2")
    logits = torch.export.load(path).module()(few.images)
    answers = evaluate(other, few, **CPU).predicted
    same = sum(a == b for a, b in zip(logits.argmax(1).tolist(), answers, strict=True))
    assert same >= 98


def test_float32_is_float32_within_somebodys_autocast(model: nn.Module, few: ImageSet) -> None:
    expected = probabilities(model, few, **CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = probabilities(model, few, **CPU)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_network_without_numbers_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match='device "meta", which holds no numbers'):
        export_program(cifarzoo.create_model("simple").to("meta"), tmp_path / "network.pt2")


def test_pretrained_networks_leave_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    cifarzoo.create_model("simple", pretrained=True)
    assert torch.equal(torch.get_rng_state(), before)
    heads = [cifarzoo.create_model("simple", pretrained=True, num_classes=3) for _ in range(2)]
    one, other = (cifarzoo.get_classifier(head).weight for head in heads)
    assert not torch.equal(one, other)  # a new head is drawn
