from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cifarzoo.compute.cpu import winograd
from cifarzoo.compute.cpu.winograd import winograd_conv2d, winograd_pays


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, requires_grad=True)


def _assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * scale)


@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    padding=st.integers(0, 1),
    needs_input=st.booleans(),
)
def test_result_and_gradients_are_torchs(
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    padding: int,
    needs_input: bool,
) -> None:
    images = _random(batch, channels[0], *size).detach().requires_grad_(needs_input)
    weight = _random(channels[1], channels[0], 3, 3)
    expected = F.conv2d(images, weight, padding=padding)
    found = winograd_conv2d(images, weight, padding)
    _assert_same((found,), (expected,))
    errors = _random(*expected.shape).detach()
    inputs = (images, weight) if needs_input else (weight,)
    gradients = [torch.autograd.grad(y, inputs, errors) for y in (found, expected)]
    _assert_same(*gradients)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_in_several_chunks(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last chunk is not full; the layouts are those that torch's convolution would give."""
    monkeypatch.setattr(winograd, "_CHUNK", 2 * 4 * 6)  # two images of four tiles and six channels
    images = _random(5, 6, 8, 8).detach().to(memory_format=memory_format).requires_grad_()
    weight = _random(4, 6, 3, 3).detach().to(memory_format=memory_format).requires_grad_()
    found, expected = winograd_conv2d(images, weight, 1), F.conv2d(images, weight, padding=1)
    gradients = [torch.autograd.grad(y.square().sum(), (images, weight)) for y in (found, expected)]
    _assert_same((found, *gradients[0]), (expected, *gradients[1]))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert gradients[0][1].is_contiguous(memory_format=memory_format)


def test_a_gradient_may_be_differentiated() -> None:
    images, weight = _random(2, 3, 6, 6), _random(4, 3, 3, 3)
    results = []
    for y in (winograd_conv2d(images, weight, 1), F.conv2d(images, weight, padding=1)):
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), images, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), (images, weight)))
    _assert_same(*results)


def test_few_tiles_or_tiles_beside_the_map_do_not_pay() -> None:
    found = {size: winograd_pays(64, size, size) for size in (2, 3, 4, 5, 7, 16)}
    assert found == {2: False, 3: True, 4: True, 5: False, 7: True, 16: True}
    assert [winograd_pays(batch, 7, 8) for batch in (15, 16)] == [False, True]
