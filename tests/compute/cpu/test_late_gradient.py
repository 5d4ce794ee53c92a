"""Gradients of maps that several layers read: the same sums, in fewer passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels, late_gradient, native

pytestmark = pytest.mark.usefixtures("built")

MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "concatenated": lambda x: torch.cat([x, x.sin()], 1),
    "added": lambda x: x + x.sin(),
}
READERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concatenated again": lambda x, y: torch.cat([x, y[:, :4]], 1),
    "between others": lambda x, y: torch.cat([y[:, :4], x, y], 1),
    "added": lambda x, y: x + y,
    "twice": lambda x, y: torch.cat([x, y, x.cos()], 1),
    "squared": lambda x, y: x.square() + y,
    "nobody": lambda x, y: y,
    "of other strides": lambda x, y: x.permute(0, 1, 3, 2) * y.permute(0, 1, 3, 2),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "none": torch.sigmoid,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of any size are worth it."""
    monkeypatch.setattr(late_gradient, "_LARGE", 0)


def gradients(
    make: Callable[[Tensor], Tensor],
    read: Callable[[Tensor, Tensor], Tensor],
    activate: Callable[[Tensor], Tensor],
    *,
    ours: bool,
    channels: int = 10,
    hook: Callable[[Tensor], object] | None = None,
) -> list[Tensor]:
    torch.manual_seed(0)
    images = torch.randn(3, channels, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    x = make(images)
    if hook is not None:
        hook(x)
    layer = nn.BatchNorm2d(x.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 4, x.shape[1]))
    with cpu_kernels(layer, enabled=ours):
        output = read(x, activate(layer(x)) * 1.5)
    weight = torch.linspace(-1, 1, output.numel()).view(output.shape)
    weight = weight.to(memory_format=torch.channels_last)
    (output * weight).sum().backward()
    return [t.grad for t in (images, *layer.parameters()) if t.grad is not None]


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("activate", ACTIVATIONS)
@pytest.mark.parametrize("channels", [8, 10, 18])
def test_the_sums_are_those_of_torch(make: str, read: str, activate: str, channels: int) -> None:
    found, expected = (
        gradients(MAPS[make], READERS[read], ACTIVATIONS[activate], ours=ours, channels=channels)
        for ours in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_addition_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = native.norm_gradient
    monkeypatch.setattr(
        native, "norm_gradient", lambda *args: (calls.append(args[-1].shape), real(*args))[1]
    )
    gradients(MAPS["concatenated"], READERS["concatenated again"], F.relu, ours=True)
    assert calls == [(3, 20, 5, 6)]


def test_hooks_meet_ordinary_tensors() -> None:
    seen: list[Tensor] = []

    def hook(x: Tensor) -> None:
        x.retain_grad()
        x.register_hook(lambda grad: seen.append(grad * 1))
        seen.append(x)

    for ours in (True, False):
        gradients(MAPS["added"], READERS["nobody"], F.relu, ours=ours, hook=hook)
    ours_x, ours_grad, x, grad = seen
    assert type(ours_grad) is Tensor
    torch.testing.assert_close(ours_grad, grad, rtol=1e-4, atol=1e-4)
    assert ours_x.grad is not None
    assert x.grad is not None
    torch.testing.assert_close(ours_x.grad * 1, x.grad, rtol=1e-4, atol=1e-4)
    assert ours_x.grad.numpy().shape == x.grad.shape


def test_a_whole_densenet_learns_the_same() -> None:
    torch.manual_seed(0)
    norms = nn.ModuleList(nn.BatchNorm2d(16 + 4 * i) for i in range(4))
    convs = nn.ModuleList(nn.Conv2d(16 + 4 * i, 4, 3, padding=1) for i in range(4))
    stem = nn.Conv2d(3, 16, 3, padding=1)
    network = nn.ModuleList([norms, convs, stem])
    images = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last)

    def run(ours: bool) -> list[Tensor]:
        network.zero_grad()
        with cpu_kernels(network, enabled=ours):
            x = stem(images)
            for norm, conv in zip(norms, convs, strict=True):
                x = torch.cat([x, conv(F.silu(norm(x)))], 1)
            x.square().mean().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    for one, other in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
