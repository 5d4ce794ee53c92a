from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cifarzoo.compute.cpu import native, winograd
from cifarzoo.compute.cpu.winograd import (
    compiled_winograd_conv2d,
    compiled_winograd_takes,
    winograd_conv2d,
    winograd_pays,
)


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


@given(
    batch=st.integers(1, 30),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    padding=st.integers(0, 1),
    has_bias=st.booleans(),
    needs=st.tuples(st.booleans(), st.booleans()),
)
def test_narrow_layers_in_c_have_torchs_result_and_gradients(
    built: None,
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    padding: int,
    has_bias: bool,
    needs: tuple[bool, bool],
) -> None:
    """Tiles that lie partly beside the map, blocks that are not full, registers that are not."""
    images = _random(batch, channels[0], *size).detach()
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_(needs[0])
    weight = _random(channels[1], channels[0], 3, 3).detach().requires_grad_(needs[1])
    bias = _random(channels[1]) if has_bias else None
    expected = F.conv2d(images, weight, bias, padding=padding)
    found = compiled_winograd_conv2d(images, weight, bias, padding)
    _assert_same((found,), (expected,))
    inputs = [x for x in (images, weight, bias) if x is not None and x.requires_grad]
    if inputs:
        errors = _random(*expected.shape).detach()
        gradients = [torch.autograd.grad(y, inputs, errors) for y in (found, expected)]
        _assert_same(*gradients)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers are wide, and their tiles are taken in several chunks."""
    monkeypatch.setattr(winograd, "_NARROW", 0)
    monkeypatch.setattr(winograd, "_WIDE", 1)
    monkeypatch.setattr(winograd, "_CHUNK", 512)


@pytest.mark.parametrize("channels", [(16, 16), (32, 16), (16, 64)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("size", [(3, 9), (8, 8), (7, 12)])
def test_wide_layers_in_c_have_torchs_result_and_gradients(
    built: None,
    wide: None,
    channels: tuple[int, int],
    padding: int,
    has_bias: bool,
    size: tuple[int, int],
) -> None:
    images = _random(5, channels[0], *size).detach()
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = _random(channels[1], channels[0], 3, 3)
    bias = _random(channels[1]) if has_bias else None
    assert compiled_winograd_takes(images, weight)
    expected = F.conv2d(images, weight, bias, padding=padding)
    found = compiled_winograd_conv2d(images, weight, bias, padding)
    assert found.is_contiguous(memory_format=torch.channels_last)
    _assert_same((found,), (expected,))
    inputs = [x for x in (images, weight, bias) if x is not None]
    errors = _random(*expected.shape).detach()
    gradients = [torch.autograd.grad(y, inputs, errors) for y in (found, expected)]
    _assert_same(*gradients)


def test_tiles_of_a_batch_are_taken_once(wide: None) -> None:
    taken = list(winograd._some_tiles(5, (9, 6), 64))
    assert len(taken) > 1
    assert [tile for tiles in taken for tile in tiles] == [*range(5 * 3 * 2)]
    assert list(winograd._some_tiles(1, (4, 4), 10**6)) == [range(1)]


@pytest.mark.parametrize("kind", ["narrow", "wide"])
def test_layers_in_c_write_nothing_beside_the_map(
    built: None, kind: str, request: pytest.FixtureRequest
) -> None:
    """Not even where a tile reaches beyond it: what lies around the memory stays what it is."""
    inputs, outputs = 9, 11
    if kind == "wide":
        request.getfixturevalue("wide")
        inputs, outputs = 16, 32
    images = _random(3, inputs, 5, 7).detach().contiguous(memory_format=torch.channels_last)
    weight = _random(outputs, inputs, 3, 3).detach()
    memory = torch.full((3 * 5 * 7 * outputs + 2 * 64,), 7.0)
    y = memory[64:-64].view(3, 5, 7, outputs).permute(0, 3, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "new_map", lambda *size: y)
        compiled_winograd_conv2d(images, weight, None, 1)
    torch.testing.assert_close(y, F.conv2d(images, weight, padding=1), rtol=1e-4, atol=1e-4)
    assert (memory[:64] == 7).all()
    assert (memory[-64:] == 7).all()


@pytest.mark.parametrize("channels", [64, 160])
def test_layers_in_c_are_nearly_as_exact_as_torchs(built: None, channels: int) -> None:
    """Against float64: Winograd's sums lose a digit in the result, less in the gradients."""
    images = _random(32, channels, 16, 16).detach().contiguous(memory_format=torch.channels_last)
    weight = _random(channels, channels, 3, 3).detach()
    errors = _random(32, channels, 16, 16).detach().contiguous(memory_format=torch.channels_last)

    def compute(convolve: Callable[[Tensor, Tensor], Tensor], kind: torch.dtype) -> list[Tensor]:
        leaves = [x.to(kind).requires_grad_() for x in (images, weight)]
        y = convolve(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, errors.to(kind))]

    exact = compute(lambda x, w: F.conv2d(x, w, padding=1), torch.float64)
    ours = compute(lambda x, w: compiled_winograd_conv2d(x, w, None, 1), torch.float32)
    for found, true in zip(ours, exact, strict=True):
        assert (found - true).abs().max() < 3e-5 * true.abs().max()


def test_a_gradient_of_a_narrow_layer_may_be_differentiated(built: None) -> None:
    images = _random(2, 3, 6, 6).detach().contiguous(memory_format=torch.channels_last)
    images, weight = images.requires_grad_(), _random(4, 3, 3, 3)
    results = []
    for y in (
        compiled_winograd_conv2d(images, weight, None, 1),
        F.conv2d(images, weight, padding=1),
    ):
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), images, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), (images, weight)))
    _assert_same(*results)


def test_few_tiles_or_tiles_beside_the_map_do_not_pay() -> None:
    found = {size: winograd_pays(64, size, size) for size in (2, 3, 4, 5, 7, 16)}
    assert found == {2: False, 3: True, 4: True, 5: False, 7: True, 16: True}
    assert [winograd_pays(batch, 7, 8) for batch in (15, 16)] == [False, True]
