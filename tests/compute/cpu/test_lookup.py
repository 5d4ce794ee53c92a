"""Activations that are looked up: the exact results rounded once, for every bfloat16 there is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels, library
from cifarzoo.compute.cpu.lookup import _Lookup, _tables

LAYERS = [nn.GELU(), nn.GELU("tanh"), nn.SiLU()]
EVERY = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)


def run(layer: nn.Module, x: Tensor, grad: Tensor, *, ours: bool) -> tuple[Tensor, Tensor]:
    layer, x = copy.deepcopy(layer), x.clone().requires_grad_()
    with cpu_kernels(layer, enabled=ours):
        y = layer(x)
    assert (y.grad_fn.name() == "_LookupBackward") == ours
    (to_x,) = torch.autograd.grad(y, x, grad)
    return y.detach(), to_x


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_number_has_the_exact_result(layer: nn.Module, built: None) -> None:
    y, slope = run(layer, EVERY, torch.ones_like(EVERY), ours=True)
    x = EVERY.double().requires_grad_()
    exact = layer(x)
    (exact_slope,) = torch.autograd.grad(exact.sum(), x)
    torch.testing.assert_close(y, exact.detach().bfloat16(), rtol=0, atol=0, equal_nan=True)
    tiny = torch.finfo(torch.bfloat16).tiny  # below it, some processors round to 0
    torch.testing.assert_close(slope, exact_slope.bfloat16(), rtol=0, atol=tiny, equal_nan=True)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("shape", [(2, 65, 193), (4, 33, 12, 11), (2**14 + 1,)])
def test_gradients_are_as_exact_as_torchs(
    layer: nn.Module, shape: tuple[int, ...], built: None
) -> None:
    torch.manual_seed(0)
    x, grad = (2 * torch.randn(shape).bfloat16() for _ in range(2))
    if x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)  # the gradient is not
    exact = run(layer, x.double(), grad.double(), ours=False)
    ours, theirs = (run(layer, x, grad, ours=which) for which in (True, False))
    for found, other, true in zip(ours, theirs, exact, strict=True):
        assert found.stride() == x.stride()
        assert (found - true).norm() <= (other - true).norm()


def test_gradients_can_be_differentiated(built: None) -> None:
    x = torch.linspace(-3, 3, 2**14).bfloat16().requires_grad_()
    seconds = []
    for enabled in (True, False):
        layer = nn.GELU()
        with cpu_kernels(layer, enabled=enabled):
            (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        seconds.append(second.float())
    torch.testing.assert_close(*seconds, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2**14),
        torch.randn(2**14).double(),
        torch.randn(100).bfloat16(),
        torch.randn(2**15).bfloat16()[::2],
        torch.randn(8, 64, 64).bfloat16().transpose(1, 2),
    ],
    ids=["float32", "float64", "few", "every second", "transposed"],
)
def test_other_numbers_are_left_to_torch(x: Tensor, built: None) -> None:
    layer = nn.GELU()
    expected = layer(x)
    with cpu_kernels(layer):
        assert torch.equal(layer(x), expected)


def test_in_place_means_in_place(built: None) -> None:
    layer, x = nn.SiLU(inplace=True), torch.randn(2**14).bfloat16()
    with cpu_kernels(layer):
        assert layer(x) is x


def test_transformations_and_places_without_compiler(
    built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = nn.GELU(), torch.randn(2, 2**14).bfloat16()
    with cpu_kernels(layer):
        torch.testing.assert_close(torch.func.vmap(layer)(x), nn.functional.gelu(x))
        monkeypatch.setattr(library, "find", lambda: None)
        assert torch.equal(layer(x), nn.functional.gelu(x))


def test_tables_that_were_made_in_inference_serve_training(built: None) -> None:
    _tables.cache_clear()
    with torch.inference_mode():
        _tables("gelu")
    x = torch.randn(2**14).bfloat16().requires_grad_()
    _Lookup.apply(x, "gelu").sum().backward()
    assert x.grad is not None
