"""What users do to layers and their maps: within `cpu_kernels` it ends as with torch's layers."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cifarzoo.compute.cpu import checkpointed, cpu_kernels, fast_layout

pytestmark = pytest.mark.usefixtures("built")

Use = Callable[[nn.Module, Tensor, Tensor], Tensor]
Pair = namedtuple("Pair", "first second")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).contiguous(memory_format=torch.channels_last)


def outcome(layer: nn.Module, use: Use, x: Tensor, *, ours: bool) -> Any:
    """What ``use`` returns and what is learned; or torch's error."""
    network = nn.Sequential(copy.deepcopy(layer))
    images = x.clone().requires_grad_()
    with cpu_kernels(network, enabled=ours):
        try:
            y = use(network[0], images, drawn(*x.shape, seed=1))
            if y.requires_grad:
                (y * drawn(*y.shape, seed=2) if y.ndim == 4 else y.square()).sum().backward()
        except (RuntimeError, ValueError) as error:
            return str(error)
    found = {name: p.grad for name, p in network.named_parameters()}
    return {"y": y.detach(), "x": images.grad, **found, **dict(network.named_buffers())}


def assert_alike(layer: nn.Module, use: Use, x: Tensor) -> None:
    ours, torchs = (outcome(layer, use, x, ours=each) for each in (True, False))
    if isinstance(torchs, str):
        assert ours == torchs
    else:
        torch.testing.assert_close(ours, torchs, rtol=1e-3, atol=5e-3)


LAYERS = {
    "norm": nn.BatchNorm2d(16),
    "3x3": nn.Conv2d(16, 16, 3, padding=1),
    "1x1": nn.Conv2d(16, 16, 1),
    "depthwise": nn.Conv2d(16, 16, 3, padding=1, groups=16),
}


@pytest.mark.parametrize("channels", [8, 16, 32])
@pytest.mark.parametrize("name", LAYERS)
def test_other_channels_than_the_layers_are_refused_as_by_torch(name: str, channels: int) -> None:
    assert_alike(LAYERS[name], lambda layer, x, _: layer(x), drawn(64, channels, 8, 8))


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_may_be_empty(name: str) -> None:
    assert_alike(LAYERS[name], lambda layer, x, _: layer(x), drawn(0, 16, 8, 8))


def with_bias(bias: Tensor) -> Use:
    def use(layer: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        layer.bias = nn.Parameter(bias)
        y: Tensor = layer(x)
        return y

    return use


@pytest.mark.parametrize("name", ["3x3", "1x1", "depthwise"])
@pytest.mark.parametrize(
    "bias",
    [drawn(16, 2, 1, 1)[:, 0, 0, 0], torch.ones(1).expand(16), torch.zeros(16).double()],
    ids=["a column", "expanded", "double"],
)
def test_any_bias_is_added_or_refused_as_by_torch(name: str, bias: Tensor) -> None:
    assert_alike(LAYERS[name], with_bias(bias), drawn(64, 16, 8, 8))


def test_a_window_may_lie_wholly_in_the_padding() -> None:
    layer = nn.Conv2d(4, 4, 1, stride=9, padding=3)
    assert_alike(layer, lambda layer, x, _: layer(x), drawn(2, 4, 3, 3))


def without_tracking(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    norm.track_running_stats = False  # type: ignore[assignment]
    y: Tensor = norm(x)
    return y


def without_counter(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    norm.num_batches_tracked = None  # type: ignore[assignment]
    y: Tensor = norm(x)
    return y


def added_to_itself(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    y: Tensor = norm(x)
    y += y
    return y


def added_without_gradient(norm: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    y = norm(x)
    with torch.no_grad():
        total = y + other
    return F.relu(total) + F.relu(y)


def within_a_checkpoint(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    return F.relu(checkpoint(norm, x, use_reentrant=True))


class Doubled(torch.autograd.Function):
    """An operation in place that is the user's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.mul_(2)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


def changed_by_a_function(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    y: Tensor = Doubled.apply(norm(x))
    return y.relu()


def looked_at_in_inference_mode(norm: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    y = norm(x)
    with torch.inference_mode():
        assert y.abs().mean() > 0
    return F.relu(y)


def within_a_named_tuple(norm: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    return torch.cat(Pair(norm(x), other), 1)


def kept_gradient(norm: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    y = F.relu_(norm(x))
    (grad,) = torch.autograd.grad((y * other).sum(), y)
    return grad


@pytest.mark.parametrize(
    "use",
    [
        without_tracking,
        without_counter,
        added_to_itself,
        added_without_gradient,
        within_a_checkpoint,
        changed_by_a_function,
        looked_at_in_inference_mode,
        within_a_named_tuple,
        kept_gradient,
    ],
)
@pytest.mark.filterwarnings("ignore:.*use_reentrant")
def test_a_normalized_map_may_be_used_so(use: Use) -> None:
    assert_alike(nn.BatchNorm2d(16), use, drawn(8, 16, 6, 6))


@pytest.mark.parametrize(
    "ask",
    [
        lambda y, loss: y.register_hook(lambda grad: grad),
        lambda y, loss: y.retain_grad(),
        lambda y, loss: torch.autograd.grad(loss, y),
    ],
    ids=["hook", "kept", "asked for"],
)
def test_a_gradient_that_will_not_come_by_is_refused(ask: Callable[[Tensor, Tensor], Any]) -> None:
    network = nn.Sequential(nn.BatchNorm2d(16))
    with cpu_kernels(network):
        y = network[0](drawn(8, 16, 6, 6))
        loss = F.relu(y).sum()
        with pytest.raises(RuntimeError, match=r"before that, or train with Trainer\(kernels="):
            ask(y, loss)


def late_gradient(network: nn.Module) -> tuple[Tensor, Tensor]:
    x = drawn(16, 32, 64, 64).requires_grad_()
    shared = x * 1 + x
    (grad,) = torch.autograd.grad(F.relu(network(shared)).square().sum(), shared)
    return grad, shared


def test_a_late_gradient_may_be_changed_in_place() -> None:
    network = nn.Sequential(nn.BatchNorm2d(32))
    with cpu_kernels(network):
        grad, _ = late_gradient(network)
        assert grad.abs().sum() > 0
        grad.mul_(0)
        assert grad.abs().sum() == 0


def test_a_late_gradient_whose_map_was_changed_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(32))
    with cpu_kernels(network):
        grad, shared = late_gradient(network)
        with torch.no_grad():
            shared.zero_()
        with pytest.raises(RuntimeError, match="was changed in place before"):
            grad.sum()


def test_copies_keep_no_note_of_the_block() -> None:
    network = nn.Sequential(nn.Conv2d(3, 512, 3, stride=8), nn.BatchNorm2d(512))
    with cpu_kernels(network), fast_layout(network, 32):
        assert network[0].__dict__["keeps_contiguous"]
        copied = copy.deepcopy(network)
    assert not {"keeps_contiguous", "waits_for"} & {*copied[0].__dict__, *copied[1].__dict__}


def test_filters_that_share_their_memory_stay_together() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    network[1].weight.data = network[0].weight.data
    with fast_layout(network, 32):
        network[0].weight.data.mul_(2)
        assert torch.equal(network[0].weight, network[1].weight)


NORMALIZED_DEPTHWISE = nn.Sequential(
    nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16)
)


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        *((nn.Sequential(layer), torch.float32) for layer in LAYERS.values()),
        (NORMALIZED_DEPTHWISE, torch.float32),
        (nn.Sequential(nn.GELU()), torch.bfloat16),
        (nn.Sequential(nn.SiLU()), torch.bfloat16),
        (nn.Sequential(nn.MaxPool2d(2)), torch.float32),
    ],
    ids=str,
)
def test_a_gradient_passes_each_hook_once(layer: nn.Sequential, dtype: torch.dtype) -> None:
    """Also one that is to be differentiated, which is computed in another way."""
    layer = copy.deepcopy(layer).train().to(memory_format=torch.channels_last)
    x = drawn(4, 16, 16, 16).to(dtype).requires_grad_()
    found, calls = [], []
    with cpu_kernels(layer):
        for twice in (False, True):
            passed = x * 1
            passed.register_hook(lambda grad: (calls.append(1), 10 * grad)[1])
            y = layer(passed).float()
            loss = (y * drawn(*y.shape, seed=1)).sum()
            found.append(torch.autograd.grad(loss, x, create_graph=twice)[0])
    assert len(calls) == 2
    assert (found[0] - found[1]).norm() < 0.01 * found[1].norm()


class Begins(nn.Module):
    """A checkpointed block that begins with an activation, and a shortcut past it."""

    def __init__(self, act: nn.Module, *, affine: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(16, 16, 3, padding=1, groups=16 if isinstance(act, nn.ReLU6) else 1)
        self.stem = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16, affine=affine))
        self.block = nn.Sequential(act, conv, nn.BatchNorm2d(16, affine=affine))

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        y = self.stem(x)
        z = checkpoint(self.block, y, **options) if options else self.block(y)
        return F.relu(z + y)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 6.0)], ids=str)
@pytest.mark.parametrize("is_new", [True, False], ids=["torch 2.8", "before"])
def test_a_checkpoint_computes_again_what_it_has_computed(
    act: nn.Module, affine: bool, is_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second pass comes when the map has been used elsewhere too."""
    if not is_new:
        monkeypatch.setattr(checkpointed, "_top_hooks", None)
    torch.manual_seed(0)
    network = Begins(act, affine=affine).to(memory_format=torch.channels_last)
    grads = []
    for options in ({}, {"use_reentrant": False}, {"use_reentrant": True}):
        network.zero_grad()
        with cpu_kernels(network):
            x = drawn(4, 16, 12, 12).requires_grad_()
            (network(x, **options) * drawn(4, 16, 12, 12, seed=1)).sum().backward()
        assert x.grad is not None
        grads.append([x.grad, *(p.grad for p in network.parameters())])
    for found in grads[1:]:
        torch.testing.assert_close(found, grads[0], rtol=1e-4, atol=1e-3)
