"""Summaries beyond those of the zoo's own models, which the contract tests check."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cifarzoo
from cifarzoo.errors import InputError


def test_a_size_the_network_is_not_bound_to_is_the_networks_own_error() -> None:
    with pytest.raises(InputError, match="needs 32x32 images; got 64x64"):
        cifarzoo.summary(cifarzoo.create_model("simple"), image_size=64)


def test_other_failures_are_torchinfos() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("no")

    with pytest.raises(RuntimeError, match="torchinfo"):
        cifarzoo.summary(Broken())


def test_work_grows_with_the_image() -> None:
    model = cifarzoo.create_model("airbench94")
    small, large = (cifarzoo.summary(model, image_size=size) for size in (16, 32))
    assert small.total_params == large.total_params
    assert small.total_mult_adds < large.total_mult_adds / 3
    assert torch.is_grad_enabled()
    assert model.training
