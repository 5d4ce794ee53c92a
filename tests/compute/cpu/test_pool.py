"""Maximum pooling in C: torch's, bit by bit, with ties and numbers that are none."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels


def run(layer: nn.Module, x: Tensor, *, ours: bool) -> tuple[Tensor, Tensor, bool]:
    """Result, gradient, and whether it was computed in C."""
    layer, x = copy.deepcopy(layer), x.clone().requires_grad_()
    with cpu_kernels(layer, enabled=ours):
        y = layer(x)
    (to_x,) = torch.autograd.grad(y, x, torch.arange(1.0, y.numel() + 1).view_as(y).to(y.dtype))
    return y.detach(), to_x, y.grad_fn.name() == "_PoolBackward"


@pytest.mark.parametrize("shape", [(3, 40, 9, 6), (2, 16, 2, 3), (4, 64, 8, 8), (1, 19, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_those_of_torch(
    shape: tuple[int, ...], dtype: torch.dtype, built: None
) -> None:
    torch.manual_seed(0)
    x = torch.randint(-2, 3, shape).to(dtype).to(memory_format=torch.channels_last)
    x[x == 2] = -torch.inf
    x[0, 3, :2, :2] = -torch.inf
    x[0, 5, 0, 0] = -0.0
    x[0, :3, 1, 1] = torch.nan
    y, to_x, in_c = run(nn.MaxPool2d(2), x, ours=True)
    expected, to_x_expected, _ = run(nn.MaxPool2d(2), x, ours=False)
    assert in_c
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(to_x, to_x_expected)


@pytest.mark.parametrize(
    ("layer", "shape", "in_c"),
    [
        (nn.MaxPool2d((2, 2), (2, 2), ceil_mode=True), (2, 16, 4, 6), True),
        (nn.MaxPool2d(2, ceil_mode=True), (2, 16, 5, 6), False),
        (nn.MaxPool2d(3, 2, 1), (2, 16, 8, 8), False),
        (nn.MaxPool2d(2, 1), (2, 16, 8, 8), False),
        (nn.MaxPool2d(2, padding=1), (2, 16, 8, 8), False),
        (nn.MaxPool2d(2, dilation=2), (2, 16, 8, 8), False),
        (nn.MaxPool2d((1, 2)), (2, 16, 8, 8), False),
        (nn.MaxPool2d(2), (2, 3, 8, 8), False),
    ],
)
def test_windows_of_other_kinds_are_left_to_torch(
    layer: nn.Module, shape: tuple[int, ...], in_c: bool, built: None
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last)
    y, to_x, was_in_c = run(layer, x, ours=True)
    expected, to_x_expected, _ = run(layer, x, ours=False)
    assert was_in_c == in_c
    assert torch.equal(y, expected)
    assert torch.equal(to_x, to_x_expected)


def test_other_layouts_types_and_answers_are_left_to_torch(built: None) -> None:
    pool, indices = nn.MaxPool2d(2), nn.MaxPool2d(2, return_indices=True)
    x = torch.randn(2, 16, 4, 4).to(memory_format=torch.channels_last)
    with cpu_kernels(pool), cpu_kernels(indices):
        for each in (x.contiguous(), x.double(), x[0]):
            assert torch.equal(pool(each), nn.functional.max_pool2d(each, 2))
        assert len(indices(x)) == 2
        torch.testing.assert_close(torch.func.vmap(pool)(x[:, None])[:, 0], pool(x))
        with pytest.raises(RuntimeError, match="too small"):
            pool(x[:, :, :1].contiguous(memory_format=torch.channels_last))


def test_gradients_can_be_differentiated(built: None) -> None:
    x = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    seconds = []
    for enabled in (True, False):
        layer = nn.MaxPool2d(2)
        with cpu_kernels(layer, enabled=enabled):
            (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert torch.equal(*seconds)
