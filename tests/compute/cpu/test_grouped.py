"""Groups of few channels, several of which are computed as one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels
from cifarzoo.compute.cpu.conv import Conv2d
from cifarzoo.compute.cpu.grouped import groups_at_once

LAST = torch.channels_last


def learn(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype, *, ours: bool) -> tuple[Tensor, ...]:
    """Output, and the gradients of the map, the filters and the bias."""
    layer.zero_grad()
    x = x.detach().to(layer.weight.dtype).requires_grad_()
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with cpu_kernels(layer, enabled=ours), mixed:
        y = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    assert x.grad is not None
    return y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "count", "options"),
    [
        (32, 32, 8, 4, {"padding": 1}),
        (48, 80, 16, 4, {"stride": 2, "padding": 1, "kernel_size": 4}),
        (24, 12, 6, 6, {"bias": False}),
        (30, 20, 5, 5, {"padding": "same", "dilation": 2}),
        (36, 36, 9, 9, {"kernel_size": (3, 1), "padding": (1, 0)}),
    ],
)
def test_the_result_is_as_exact_as_torchs(
    inputs: int, outputs: int, groups: int, count: int, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, **{"kernel_size": 3, "groups": groups, **options})
    assert groups_at_once(layer) == count
    x = torch.randn(4, inputs, 9, 8).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16), cpu_kernels(layer):
        assert isinstance(layer, Conv2d)
        assert layer._way(x) == "groups"
    ours = learn(layer, x, torch.bfloat16, ours=True)
    theirs = learn(layer, x, torch.bfloat16, ours=False)
    exact = learn(copy.deepcopy(layer).double(), x, torch.float64, ours=False)
    for found, other, true in zip(ours, theirs, exact, strict=True):
        assert found.dtype == other.dtype
        assert (found - true).norm() <= 1.05 * (other - true).norm()


def test_other_groups_are_torchs() -> None:
    def way(x: Tensor, channels: int, groups: int, **options: Any) -> str:
        return Conv2d(channels, channels, 3, groups=groups, **options).to(x.dtype)._way(x)

    few, many = (
        torch.zeros(2, channels, 8, 8, dtype=torch.bfloat16).to(memory_format=LAST)
        for channels in (32, 64)
    )
    assert way(few, 32, 8) == "groups"
    assert way(few.float(), 32, 8) == "torch"
    assert way(few.contiguous(), 32, 8) == "torch"
    assert way(few, 32, 8, padding=1, padding_mode="reflect") == "torch"
    assert way(few, 32, 32, padding=3) == "torch"  # one channel each
    assert way(many, 64, 4) == "torch"  # 16 channels each
    prime = torch.zeros(2, 37 * 2, 8, 8, dtype=torch.bfloat16).to(memory_format=LAST)
    assert way(prime, 37 * 2, 37) == "torch"  # would be all channels at once
    with torch.no_grad():
        assert way(few, 32, 8) == "groups"
