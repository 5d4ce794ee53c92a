"""Summaries beyond those of the zoo's own models, which the contract tests check."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from kinds import KINDS, hollow
from torch import Tensor, nn

import cifarzoo
from cifarzoo.errors import InputError


def test_a_size_the_network_is_not_bound_to_is_the_networks_own_error() -> None:
    with pytest.raises(InputError, match="needs 32x32 images; got 64x64"):
        cifarzoo.summary(cifarzoo.create_model("simple"), image_size=64)


def test_another_failure_names_the_network_the_size_and_the_reason() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("no")

    message = "Broken cannot be measured .* 32x32 pixels, .* ValueError: no; pass image_size="
    with pytest.raises(InputError, match=message):
        cifarzoo.summary(Broken())


def test_work_grows_with_the_image() -> None:
    model = cifarzoo.create_model("airbench94")
    small, large = (cifarzoo.summary(model, image_size=size) for size in (16, 32))
    assert small.total_params == large.total_params
    assert small.total_mult_adds < large.total_mult_adds / 3
    assert torch.is_grad_enabled()
    assert model.training


@pytest.mark.parametrize("name", [*KINDS, "timm:efficientnet_b0"])
def test_a_summary_fits_100_columns_and_names_no_unit_of_torchinfo(name: str) -> None:
    spec = cifarzoo.get_model_info(name)
    text = str(cifarzoo.summary(hollow(name)))
    assert max(map(len, text.splitlines())) <= 100
    assert "Units" not in text
    assert f"\nparameters  {spec.parameters:,}" in text
    assert f"\nMACs        {spec.macs:,} for one image\n" in text


def test_a_summary_has_a_row_for_each_layer() -> None:
    model = cifarzoo.create_model("deep_bn")
    model.get_parameter("fc1.weight").requires_grad_(False)
    text = str(cifarzoo.summary(model, batch_size=4))
    for name, _ in model.named_children():
        assert f"({name})" in text
    assert "for 4 images" in text
    assert re.search(r"parameters  453,242, [\d,]+ of them frozen", text)


class ByName(nn.Module):
    """Passes tensors by their names, as torch allows."""

    def __init__(self, by_name: bool) -> None:
        super().__init__()
        self.by_name = by_name

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        if self.by_name:
            seen = F.scaled_dot_product_attention(query=tokens, key=tokens, value=tokens)
            return torch.matmul(input=seen.mT, other=seen).flatten(1)
        seen = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return torch.matmul(seen.mT, seen).flatten(1)


def test_products_of_tensors_that_come_by_name_are_counted() -> None:
    plain, named = (cifarzoo.summary(ByName(by_name)).total_mult_adds for by_name in (False, True))
    assert named == plain == 2 * 1024 * 1024 * 3 + 3 * 1024 * 3
