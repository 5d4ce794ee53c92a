"""Layers in C: as exact as torch's own, the same each time, and gone where there is no compiler."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from compiled import forget_kernels
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels, library, native


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


SHAPES = [(8, 16, 8, 8), (3, 20, 5, 7), (2, 1, 4, 4), (64, 100, 1, 1), (4, 512, 2, 2), (1, 3, 9, 9)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
def test_normalization_is_as_exact_as_torchs(
    shape: tuple[int, ...], dtype: torch.dtype, affine: bool, built: None
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 3 + 20).to(dtype)
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(shape, generator=generator).to(dtype)
    layers = [nn.BatchNorm2d(shape[1], affine=affine) for _ in range(3)]
    layers[2].double()
    for layer in layers:
        if affine:
            with torch.no_grad():
                layer.weight.copy_(torch.linspace(0.5, 2, shape[1]))
                layer.bias.copy_(torch.linspace(-1, 1, shape[1]))
    results = []
    for layer, values in zip(layers, (x, x, x.double()), strict=True):
        inputs = values.clone().requires_grad_()
        with cpu_kernels(layer, enabled=layer is layers[0]):
            if layer is layers[0]:
                assert native.takes(inputs)
            output = layer(inputs)
        (output.square() * weight.to(output.dtype)).sum().backward()
        gradients = [inputs.grad, *(p.grad for p in layer.parameters())]
        results.append([output.detach(), *gradients, layer.running_mean, layer.running_var])
    ours, theirs, exact = results
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    for one, other, true in zip(ours, theirs, exact, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert error(one, true) <= 1.5 * error(other, true) + rounding
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert layers[0].num_batches_tracked == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_in_the_same_pass_change_nothing_else(
    shape: tuple[int, ...], dtype: torch.dtype, built: None
) -> None:
    torch.manual_seed(0)
    x, other = (
        (torch.randn(shape) * 3).to(dtype, memory_format=torch.channels_last) for _ in range(2)
    )
    x[0, 0, 0, 0] = 1e-3
    weight, bias = torch.linspace(0.5, 4, shape[1]), torch.zeros(shape[1])
    running = torch.zeros(shape[1]), torch.ones(shape[1])
    of = native.norm_statistics(x, weight, bias, running, 0.1, 1e-5)
    plain = native.norm_apply(x, of)
    assert torch.equal(native.norm_apply(x, of, "relu"), plain.relu())
    assert torch.equal(native.norm_apply(x, of, "relu6"), plain.clamp(0, 6))
    if dtype == torch.float32:  # in bfloat16 the sum is rounded once, not twice
        assert torch.equal(native.norm_apply(x, of, "none", other), plain + other)
        assert torch.equal(native.norm_apply(x, of, "relu", other), (plain + other).relu())


@pytest.mark.parametrize("shape", [(7, 256, 9, 16), (4, 36, 5, 5), (1, 5, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_channels_are_as_exact_as_torchs(
    shape: tuple[int, ...], dtype: torch.dtype, built: None
) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) + 3).to(dtype).to(memory_format=torch.channels_last)
    exact = x.double().sum((0, 2, 3))
    with torch.no_grad():
        found = native.channel_sums(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=2**-22, atol=0)
    assert torch.equal(native.channel_sums(x), x.sum((0, 2, 3), dtype=torch.float32))


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding", "dilation"),
    [
        (16, 8, 3, 1, 1, 1),
        (32, 9, 3, 2, 1, 1),
        (5, 7, 5, 1, 2, 1),
        (24, 8, 5, 2, 0, 1),
        (8, 6, 7, 1, 3, 1),
        (12, 16, 7, 1, 9, 3),
        (16, 12, 3, 2, 2, 2),
        (16, 9, 5, 1, 7, 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_gradients_are_as_exact_as_torchs(
    channels: int,
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    dtype: torch.dtype,
    bias: bool,
    built: None,
) -> None:
    torch.manual_seed(0)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias}
    layer = nn.Conv2d(channels, channels, kernel, groups=channels, **options)
    layers = [layer, copy.deepcopy(layer), copy.deepcopy(layer).double()]
    x = torch.randn(6, channels, size, size + 1).to(memory_format=torch.channels_last)
    results = []
    for each in layers:
        inputs = x.to(torch.float64 if each is layers[2] else torch.float32).detach()
        inputs = inputs.clone().requires_grad_()
        mixed = dtype == torch.bfloat16 and each is not layers[2]
        with (
            cpu_kernels(each, enabled=each is layers[0]),
            torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        ):
            output = each(inputs)
        output.double().square().sum().backward()
        results.append([output.detach(), inputs.grad, *(p.grad for p in each.parameters())])
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    for one, other, true in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert error(one, true) <= 1.5 * error(other, true) + rounding


@pytest.mark.parametrize(
    ("size", "inputs", "outputs"),
    [
        ((3, 5, 7), 3, 16),
        ((2, 4, 4), 16, 96),
        ((5, 3, 3), 96, 48),
        ((4, 8, 8), 64, 80),
        ((3, 5, 5), 7, 32),
        ((2, 9, 9), 24, 20),
        ((4, 7, 7), 132, 48),
        ((3, 5, 5), 36, 45),  # which fill no registers
        ((130, 16, 16), 24, 144),  # which is written past the caches
        ((130, 17, 17), 12, 132),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_of_pixels_are_as_exact_as_torchs(
    size: tuple[int, int, int], inputs: int, outputs: int, bias: bool, built: None
) -> None:
    torch.manual_seed(0)
    batch, *sides = size
    layer = nn.Conv2d(inputs, outputs, 1, bias=bias)
    layers = [layer, copy.deepcopy(layer), copy.deepcopy(layer).double()]
    x = torch.randn(batch, inputs, *sides).to(memory_format=torch.channels_last)
    results = []
    for each in layers:
        image = x.to(each.weight.dtype).detach().clone().requires_grad_()
        with cpu_kernels(each, enabled=each is layer):
            output = each(image)
            output.square().sum().backward()
        assert output.is_contiguous(memory_format=torch.channels_last)
        results.append([output.detach(), image.grad, *(p.grad for p in each.parameters())])
    for one, other, true in zip(*results, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert error(one, true) <= 1.5 * error(other, true) + 1e-6


def test_a_convolution_of_pixels_is_computed_in_c(built: None) -> None:
    layer = nn.Conv2d(16, 32, 1)
    x = torch.randn(2, 16, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    with cpu_kernels(layer):
        y = layer(x)
        assert y.grad_fn.name() == "_PixelsBackward"
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        found = torch.autograd.grad(first.square().sum(), [x, layer.weight])
    (first,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
    expected = torch.autograd.grad(first.square().sum(), [x, layer.weight])
    for one, other in zip(found, expected, strict=True):
        assert error(one, other.double()) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_large_maps_of_a_depthwise_convolution_are_those_of_torch(stride: int, built: None) -> None:
    # beyond the caches, where maps are written past them
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(48, 48, 3, stride=stride, padding=1, groups=48)
    x = torch.randn(110 * stride**2, 48, 32, 32, generator=generator)
    x = x.to(memory_format=torch.channels_last)
    expected = layer(x).detach()
    with cpu_kernels(layer):
        found = layer(x).detach()
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("adds", [True, False])
def test_large_normalized_maps_are_those_of_torch(adds: bool, built: None) -> None:
    # beyond the caches; the rows do not begin at whole registers, and one of them is left over
    generator = torch.Generator().manual_seed(0)
    shape = (1, 36, 345, 345)
    x, grad, other = (
        torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
        for _ in range(3)
    )
    more = torch.randn(1, 40, 345, 345, generator=generator)
    more = more.to(memory_format=torch.channels_last)[:, 2:38]
    weight, running = torch.linspace(0.5, 2, 36), (torch.zeros(36), torch.ones(36))
    of = native.norm_statistics(x, weight, None, running, 0.1, 1e-5)
    y = native.norm_apply(x, of, "relu", other if adds else None)
    inputs = [t.double().requires_grad_() for t in (x, other)]
    expected = F.batch_norm(inputs[0], None, None, weight.double(), training=True)
    expected = F.relu(expected + inputs[1]) if adds else F.relu(expected)
    expected.backward(grad)
    assert (y - expected).abs().max() < 1e-5
    if adds:
        found = native.norm_add_backward(grad, x, y, of)[:2]
        assert inputs[1].grad is not None
        assert (found[1] - inputs[1].grad).abs().max() < 1e-5
    else:
        plan = native.norm_plan(grad, x, of, "relu")[0]
        alone = native.norm_gradient(grad, x, of, plan, "relu", None)
        both = native.norm_gradient(grad, x, of, plan, "relu", more)
        assert torch.equal(both, alone + more)
        found = native.norm_backward(grad, x, of, "relu")[:1]
        assert torch.equal(found[0], alone)
    assert inputs[0].grad is not None
    gates = (y > 0) == (expected > 0)  # a number at the edge may round to the other side
    assert gates.double().mean() > 0.99999
    assert ((found[0] - inputs[0].grad).abs() * gates).max() < 1e-4


def test_the_same_numbers_come_each_time(built: None) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.Conv2d(48, 48, 3, padding=1, groups=48),
        nn.BatchNorm2d(48),
    )
    images = torch.randn(32, 3, 16, 16).to(memory_format=torch.channels_last)

    def gradients() -> list[Tensor]:
        network.zero_grad()
        with cpu_kernels(network):
            network(images).square().mean().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    first = gradients()
    assert all(all(map(torch.equal, first, gradients())) for _ in range(5))


def test_second_gradients_are_torchs(built: None) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
    )
    images = torch.randn(4, 8, 5, 5).to(memory_format=torch.channels_last).requires_grad_()

    def second(enabled: bool) -> Tensor:
        with cpu_kernels(network, enabled=enabled):
            (first,) = torch.autograd.grad(network(images).pow(3).sum(), images, create_graph=True)
            return torch.autograd.grad(first.square().sum(), images)[0]

    torch.testing.assert_close(second(True), second(False), rtol=1e-3, atol=1e-3)


def test_what_is_not_a_number_stays_so(built: None) -> None:
    layer = nn.BatchNorm2d(4)
    images = torch.full((2, 4, 3, 3), float("nan")).to(memory_format=torch.channels_last)
    with cpu_kernels(layer):
        assert layer(images).isnan().all()
        assert layer(images.bfloat16()).isnan().all()


@pytest.mark.parametrize("wrong", ["no compiler", "a compiler that fails", "a full disk"])
def test_without_them_layers_compute_as_before(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "cache_directory", lambda: tmp_path)
    forget_kernels(monkeypatch)
    if wrong == "no compiler":
        monkeypatch.setenv("CC", "no-such-compiler")
    elif wrong == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    else:
        (tmp_path / "kernels").write_text("a file in its place")
    assert library.build() is False
    layer, images = nn.BatchNorm2d(4), torch.randn(3, 4, 5, 5)
    images = images.to(memory_format=torch.channels_last)
    with cpu_kernels(layer):
        assert not native.takes(images)
        torch.testing.assert_close(layer(images), F.batch_norm(images, None, None, training=True))
    assert [p.name for p in tmp_path.rglob("*.so")] == []
    library._place.cache_clear()
    library._compiler.cache_clear()


def test_they_are_found_by_the_next_process(built: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = library._place()
    assert path is not None
    assert path.is_file()
    monkeypatch.setattr(library, "_compiled", None)
    monkeypatch.setattr(library, "_is_sought", False)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("compiled again"))
    assert library.build()


def test_a_file_of_another_machine_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "cache_directory", lambda: tmp_path)
    forget_kernels(monkeypatch)
    path = library._place()
    if path is None:
        pytest.skip("only for Linux")
    path.parent.mkdir()
    path.write_bytes(b"no library")
    assert library.find() is None
    library._place.cache_clear()


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "kernel", "stride", "batch"),
    [
        (16, 16, 8, 3, 1, 5),
        (32, 48, 7, 3, 1, 3),
        (20, 5, 9, 3, 2, 1),
        (17, 33, 6, 5, 1, 4),
        (64, 16, 5, 5, 2, 70),
        (40, 40, 1, 3, 1, 9),
        (48, 32, 2, 3, 1, 33),
        (16, 16, 33, 3, 1, 40),
        (72, 20, 31, 1, 1, 9),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_weight_gradients_of_the_matrix_unit_are_more_exact_than_torchs(
    inputs: int,
    outputs: int,
    size: int,
    kernel: int,
    stride: int,
    batch: int,
    bias: bool,
    built: None,
) -> None:
    if not native.has_tiles():
        pytest.skip("the processor has no matrix unit")
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    layers = [layer, copy.deepcopy(layer), copy.deepcopy(layer).double()]
    x = torch.randn(batch, inputs, size, size + 1).bfloat16()
    with torch.no_grad():
        for each in layers:
            each.weight.copy_(each.weight.bfloat16())
    results = []
    for each in layers:
        exact = each is layers[2]
        values = x.to(torch.float64 if exact else torch.bfloat16, memory_format=torch.channels_last)
        values = values.clone().requires_grad_()
        with (
            cpu_kernels(each, enabled=each is layer),
            torch.autocast("cpu", torch.bfloat16, enabled=not exact),
        ):
            output = each(values)
        if each is layer and size > 1:
            assert output.grad_fn is not None
            assert output.grad_fn.name() == "_OwnWeightGradientBackward"
        signs = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).sign()
        (output * signs.to(output.dtype)).sum().backward()
        results.append([output.detach(), values.grad, *(p.grad for p in each.parameters())])
    ours, theirs, exact_ones = results
    for one, other, true in zip(ours, theirs, exact_ones, strict=True):
        assert one.dtype == other.dtype
        assert error(one, true) <= 1.1 * error(other, true) + 1e-6
    if size > 1:
        assert error(ours[2], exact_ones[2]) < 1e-5  # not rounded to bfloat16


def test_second_gradients_of_the_matrix_unit_are_torchs(built: None) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3, padding=1)
    images = torch.randn(2, 16, 6, 6).to(memory_format=torch.channels_last).requires_grad_()

    def second(enabled: bool) -> Tensor:
        with (
            cpu_kernels(layer, enabled=enabled),
            torch.autocast("cpu", torch.bfloat16),
        ):
            output = layer(images).float().pow(3).sum()
        (first,) = torch.autograd.grad(output, layer.weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), images)[0]

    torch.testing.assert_close(second(True), second(False), rtol=2e-2, atol=2e-1)


def test_only_what_they_compute_takes_the_matrix_unit(built: None) -> None:
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    others = [
        nn.Conv2d(32, 16, 3, padding=1, dilation=2),
        nn.Conv2d(32, 32, 3, padding=1, groups=2),
        nn.Conv2d(32, 16, 3, padding=0),
        nn.Conv2d(32, 16, (3, 5), padding=(1, 2)),
        nn.Conv2d(32, 16, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(32, 16, 3, padding=1, stride=(1, 2)),
        nn.Conv2d(32, 16, 3, padding=1).requires_grad_(False),
        nn.Conv2d(32, 16, 2, padding=1),
        nn.Conv2d(32, 16, 1, stride=2),
        nn.Conv2d(32, 16, 1, padding=1),
    ]
    for layer in others:
        with cpu_kernels(layer), torch.autocast("cpu", torch.bfloat16):
            output = layer(x.clone().requires_grad_())
        assert "OwnWeight" not in output.grad_fn.name()
    with cpu_kernels(layer := nn.Conv2d(32, 16, 3, padding=1)):
        assert "OwnWeight" not in layer(x).grad_fn.name()  # float32
