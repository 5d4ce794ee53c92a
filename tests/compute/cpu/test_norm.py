from __future__ import annotations

import pytest
import torch
from torch import nn

from cifarzoo.compute.cpu import library
from cifarzoo.compute.cpu.norm import BatchNorm1d, BatchNorm2d


@pytest.fixture(autouse=True)
def without_compiled_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an earlier run on this machine would take the place of what is tested here."""
    monkeypatch.setattr(library, "_compiled", None)
    monkeypatch.setattr(library, "_is_sought", True)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_torchs_for_ordinary_batches(training: bool) -> None:
    ours, theirs = BatchNorm2d(4).train(training), nn.BatchNorm2d(4).train(training)
    images = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.running_mean, theirs.running_mean)


def test_batch_of_one_is_normalized_by_the_running_statistics() -> None:
    layer = BatchNorm1d(3, affine=False)
    layer.running_mean.fill_(1.0)
    expected = (torch.tensor([[2.0, 3.0, 4.0]]) - 1) / (1 + layer.eps) ** 0.5
    torch.testing.assert_close(layer(torch.tensor([[2.0, 3.0, 4.0]])), expected)
    assert torch.equal(layer.running_mean, torch.ones(3))


def test_batch_norm_still_refuses_other_ranks() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        BatchNorm2d(3)(torch.zeros(1, 3))


@pytest.mark.parametrize("channels", [3, 20, 24, 48, 72])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_odd_numbers_of_channels_are_normalized_as_torch_does(
    channels: int, dtype: torch.dtype
) -> None:
    """With the gradient and the running statistics, whatever way the channels are grouped."""
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(16, channels, 6, 8, generator=generator) * 3 + 2
    x = x.to(dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(x.shape, generator=generator)
    ours, theirs = BatchNorm2d(channels, affine=False), nn.BatchNorm2d(channels, affine=False)
    results = []
    for layer, values in ((ours, x), (theirs, x.float())):
        inputs = values.clone().requires_grad_()
        output = layer(inputs)
        # depends on the output in a way that the two sums of the backward pass matter
        (output.float() ** 2 * weight + output.float() * 5).sum().backward()
        assert inputs.grad is not None
        results.append((output.detach().float(), inputs.grad.float()))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for found, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-4)


def test_a_network_may_be_bfloat16_throughout() -> None:
    layer = BatchNorm2d(20, affine=False).bfloat16()
    x = torch.ones(4, 20, 4, 4, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    assert layer(x).dtype == layer.running_mean.dtype == torch.bfloat16


def test_grouping_is_left_out_where_it_does_not_fit() -> None:
    x = torch.randn(1, 20, 3, 3).to(memory_format=torch.channels_last)  # 9 pixels
    assert torch.equal(BatchNorm2d(20, affine=False)(x), nn.BatchNorm2d(20, affine=False)(x))


def test_gradients_of_grouped_normalization_may_be_differentiated() -> None:
    """Second gradients do not depend on the memory format."""
    x = torch.randn(8, 20, 4, 4, generator=torch.Generator().manual_seed(0))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        inputs = x.to(memory_format=memory_format).requires_grad_()
        output = BatchNorm2d(20, affine=False)(inputs).pow(3).sum()
        (gradient,) = torch.autograd.grad(output, inputs, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), inputs)[0])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
