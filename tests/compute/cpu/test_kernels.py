from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from kinds import create_short, each_kind, each_kind_slowly
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import cifarzoo
from cifarzoo.compute.cpu import cpu_kernels, library
from cifarzoo.models.patches import SelfAttention


def classes(model: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in model.modules()]


def wide() -> nn.Sequential:
    """Layers for which there is another way in float32."""
    layers = [nn.Conv2d(3, 128, 3), nn.BatchNorm2d(128), nn.Conv2d(128, 128, 3, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(128), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def gradient(model: nn.Module, images: Tensor) -> Tensor:
    """Of all parameters, as one float64 vector."""
    model.zero_grad()
    torch.manual_seed(0)  # Shake-Shake draws
    model(images).square().mean().backward()
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def without_kinks(module: nn.Module) -> None:
    """Put smooth functions in the place of those where a rounding turns a gradient.

    Those of models that call functions are replaced by the test.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU):
            setattr(module, name, nn.SiLU())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        elif isinstance(child, nn.Dropout):
            child.p = 0.0
        else:
            without_kinks(child)
    if isinstance(module, SelfAttention):
        module.dropout = 0.0


@each_kind_slowly
def test_gradients_are_those_of_the_stock_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("relu", "relu_"):
        monkeypatch.setattr(F, kind, lambda x, inplace=False: F.silu(x))
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    monkeypatch.setattr(Tensor, "amax", lambda x, dims: x.mean(dims))
    model = create_short(name)
    without_kinks(model)
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    stock = gradient(model, images)
    with cpu_kernels(model):
        ours = gradient(model, images)
    difference = (ours - stock).norm() / stock.norm()
    if difference > 1e-4:  # torch's own rounding, which a deep network makes larger, may be too
        exact = gradient(model.double(), images.double())
        assert difference <= (stock - exact).norm() / exact.norm()


def test_a_network_from_elsewhere_gains_too() -> None:
    model = torchvision.models.resnet18(num_classes=10)
    with cpu_kernels(model):
        changed = sum(a is not b for a, b in zip(classes(model), stock(model), strict=True))
    assert changed == 41  # 20 convolutions, 20 normalizations, a pooling


def stock(model: nn.Module) -> list[type[nn.Module]]:
    return classes(copy.deepcopy(model))


@each_kind
def test_layers_are_exactly_torchs_before_and_after(name: str) -> None:
    model = cifarzoo.create_model(name)
    before = classes(model)
    with cpu_kernels(model):
        pass
    assert classes(model) == before
    assert all(
        c.__module__.startswith(("torch.nn.", "cifarzoo.models.", "torchvision.", "timm."))
        for c in before
    )


def test_after_an_exception_the_layers_are_as_before() -> None:
    model = wide()
    before = classes(model)
    with pytest.raises(ZeroDivisionError), cpu_kernels(model):
        raise ZeroDivisionError
    assert classes(model) == before


def test_the_last_of_nested_and_overlapping_blocks_hands_the_layers_back() -> None:
    model = wide()
    before = classes(model)
    outer, inner = cpu_kernels(model), cpu_kernels(model)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # they overlap: the first one ends first
    assert classes(model) != before
    inner.__exit__(None, None, None)
    assert classes(model) == before


def test_blocks_of_many_threads_end_with_the_network_as_it_was() -> None:
    model = wide()
    before = classes(model)

    def use() -> None:
        for _ in range(200):
            with cpu_kernels(model):
                pass

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert classes(model) == before


class OwnConv2d(nn.Conv2d):
    pass


def hooked() -> nn.Module:
    layer = nn.Conv2d(3, 3, 1)
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


def patched() -> nn.Module:
    layer = nn.Conv2d(3, 3, 1)
    layer.forward = lambda x: x  # type: ignore[method-assign]  # the point
    return layer


@pytest.mark.parametrize(
    "make",
    [lambda: OwnConv2d(3, 3, 1), hooked, patched, lambda: nn.Conv2d(3, 3, 1, device="meta")],
    ids=["subclass", "hooked", "patched", "elsewhere"],
)
def test_other_layers_are_left_alone(make: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(make())
    with cpu_kernels(model):
        assert classes(model) == stock(model)


def test_a_layer_that_stands_in_two_places_is_left_alone() -> None:
    layer = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(layer, nn.BatchNorm2d(3), layer)
    with cpu_kernels(model):
        assert type(layer) is nn.Conv2d
        assert type(model[1]) is not nn.BatchNorm2d


def test_they_can_be_turned_off() -> None:
    model = wide()
    with cpu_kernels(model, enabled=False):
        assert classes(model) == stock(model)


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_made_inside_have_stock_layers(make_copy: Callable[[nn.Module], nn.Module]) -> None:
    model = wide()
    before = classes(model)
    with cpu_kernels(model):
        copied = make_copy(model)
    assert classes(copied) == before
    assert all(map(torch.equal, copied.state_dict().values(), model.state_dict().values()))


def test_a_batch_of_one_value_per_channel_trains_inside_and_is_torchs_error_outside() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.zeros(1, 3))
    with cpu_kernels(model):
        assert model(torch.zeros(1, 3)).shape == (1, 3)


def test_what_is_computed_first_under_fake_tensors_is_right_later() -> None:
    """A cache that kept a fake tensor would give uninitialized memory."""
    layer = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1, bias=False))
    x = torch.randn(64, 128, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    with cpu_kernels(layer):
        with FakeTensorMode(allow_non_fake_inputs=True):
            layer(torch.zeros(64, 128, 4, 4))
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(32, 24, 3, padding=1), (64, 32, 8, 8)),
        (nn.Conv2d(160, 128, 3, padding=1, bias=False), (64, 160, 8, 8)),
        (nn.Conv2d(128, 32, 3, padding=1, bias=False), (128, 128, 2, 2)),
        (nn.Conv2d(128, 32, 3, padding=1), (4, 128, 1, 1)),
        (nn.Conv2d(64, 32, 1), (128, 64, 8, 8)),
        (nn.Conv2d(64, 32, 1, bias=False), (128, 64, 8, 8)),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), (4, 32, 8, 8)),
        (nn.BatchNorm2d(20), (4, 20, 8, 8)),
        (nn.BatchNorm2d(20, affine=False), (4, 20, 8, 8)),
        (nn.BatchNorm2d(32), (4, 32, 8, 8)),
    ],
)
def test_what_comes_out_may_be_changed_in_place(
    layer: nn.Module,
    shape: tuple[int, ...],
    precision: torch.dtype,
    compiled: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As ``nn.ReLU(inplace=True)`` changes it; torch forbids that for some views."""
    if compiled:
        request.getfixturevalue("built")
    else:
        monkeypatch.setattr(library, "find", lambda: None)
    tolerance = 1e-4 if precision is torch.float32 else 3e-2
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    found = []
    for enabled in (True, False):
        model = copy.deepcopy(layer)
        image = x.clone().requires_grad_()
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16)
        with cpu_kernels(model, enabled=enabled), mixed:
            y = model(image.mul(1)).mul_(2)
            y.float().mul(torch.arange(y.numel()).view_as(y)).mean().backward()
        assert image.grad is not None
        found.append((y.detach().float(), image.grad))
    for ours, theirs in zip(*found, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=scale * tolerance)
