from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cifarzoo.compute.cpu import cpu_kernels, library, native
from cifarzoo.compute.cpu.conv import Conv2d

LAST = torch.channels_last


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding"),
    [(128, 4, 3, 1, 1), (160, 7, 3, 2, 1), (128, 6, (3, 2), (2, 1), (0, 1)), (128, 5, 5, 1, 2)],
)
@pytest.mark.parametrize("mixed", [True, False])
def test_the_weight_gradient_as_a_product_is_torchs(
    channels: int,
    size: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    memory_format: torch.memory_format,
    mixed: bool,
) -> None:
    """Mixed precision has float32 parameters, the other case bfloat16 throughout."""
    generator = torch.Generator().manual_seed(size)
    ours = Conv2d(channels, 24, kernel, stride=stride, padding=padding, bias=False)
    ours = ours.to(memory_format=memory_format)
    ours = ours if mixed else ours.to(torch.bfloat16)
    x = torch.randn(5, channels, size, size, generator=generator).to(ours.weight.dtype)
    x = x.to(memory_format=memory_format)
    results = []
    for forward in (ours.forward, functools.partial(nn.Conv2d.forward, ours)):
        inputs = x.clone().requires_grad_()
        ours.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            assert ours._way(inputs) == "product"
            output = forward(inputs)
        output.float().square().sum().backward()
        assert inputs.grad is not None
        assert ours.weight.grad is not None
        assert ours.weight.grad.dtype == ours.weight.dtype
        results.append((output.detach(), inputs.grad, ours.weight.grad.clone()))
    for found, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-2 * scale)


def test_gradients_of_a_product_may_be_differentiated() -> None:
    """Mixed precision casts parameters to bfloat16; they have a share in the second gradient."""
    layer = Conv2d(128, 8, 3, bias=False)
    x = torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for forward in (layer.forward, functools.partial(nn.Conv2d.forward, layer)):
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(x).float()
        (gradient,) = torch.autograd.grad(output.pow(3).sum(), x, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), (x, layer.weight)))
    for found, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=5e-2, atol=2e-2 * scale)


def test_a_map_smaller_than_the_filters_is_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        Conv2d(4, 8, 3)(torch.zeros(1, 4, 1, 1))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        Conv2d(128, 8, 3, bias=False)(torch.zeros(128, 128, 1, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("late", [True, False])
def test_a_map_smaller_than_depthwise_filters_is_refused_as_by_torch(
    stride: int, late: bool, built: None
) -> None:
    layer = nn.Conv2d(16, 16, 3, stride=stride, dilation=2, groups=16)
    network = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), layer) if late else layer
    for size in (3, 4):
        x = torch.zeros(2, 16, size, 8).to(memory_format=torch.channels_last)
        with cpu_kernels(network), pytest.raises(RuntimeError, match="greater than actual input"):
            network(x)
    with cpu_kernels(network):
        assert network(torch.zeros(2, 16, 5, 8)).shape[2] == 1


def test_one_pixel_of_no_images_is_no_image() -> None:
    assert Conv2d(6, 5, 3, padding=1)(torch.zeros(0, 6, 1, 1)).shape == (0, 5, 1, 1)


@pytest.mark.filterwarnings("ignore")  # torch wants another way
def test_a_traced_network_can_be_saved(tmp_path: Path) -> None:
    network = nn.Sequential(Conv2d(3, 128, 3, bias=False), Conv2d(128, 128, 3, bias=False))
    torch.jit.trace(network, torch.zeros(64, 3, 8, 8)).save(tmp_path / "traced.pt")
    assert (tmp_path / "traced.pt").stat().st_size > 0


def test_the_input_may_need_no_gradient() -> None:
    layer = Conv2d(128, 8, 3, bias=False).to(torch.bfloat16)
    layer(torch.ones(2, 128, 4, 4, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.min()) == 8  # two images of 2x2 outputs


def test_other_convolutions_are_torchs_own() -> None:
    def way(x: torch.Tensor, **options: Any) -> str:
        layer = Conv2d(128, 128, **{"kernel_size": 3, "padding": 1, "bias": False, **options})
        return layer.to(x.dtype)._way(x)

    small = torch.zeros(2, 128, 4, 4, dtype=torch.bfloat16)
    assert way(small) == "product"
    assert way(small[:, :, :1, :1].float()) == "dense"
    assert way(small[0]) == "torch"
    assert way(small.float(), stride=2) == "torch"
    assert way(small, bias=True) == "torch"
    assert way(small, groups=2) == "torch"
    assert way(small, dilation=2) == "torch"
    assert way(small, padding="same") == "torch"
    assert way(small, padding_mode="circular") == "torch"
    assert way(small, kernel_size=1, padding=0) == "torch"
    assert way(torch.zeros(2, 128, 128, 128, dtype=torch.bfloat16)) == "torch"
    with torch.no_grad():
        assert way(small) == "torch"


def test_wide_layers_in_float32_take_winograds_way() -> None:
    def way(size: int, channels: tuple[int, int] = (128, 128), **options: Any) -> str:
        layer = Conv2d(*channels, **{"kernel_size": 3, "padding": 1, "bias": False, **options})
        layer.to(memory_format=LAST)
        return layer._way(torch.zeros(16, channels[0], size, size))

    assert way(7) == way(8, padding=0, channels=(256, 128)) == "winograd"
    assert way(5) == way(4) == "torch"  # two tiles for five pixels each way; few tiles
    assert way(7, (64, 256)) == way(7, (256, 64)) == "torch"
    assert way(7, kernel_size=1, padding=0) == way(7, kernel_size=5, padding=2) == "torch"
    assert way(7, bias=True) == way(7, stride=2) == way(7, padding=2) == "torch"
    with torch.no_grad():
        assert way(7) == "winograd"
    with torch.autocast("cpu", torch.bfloat16):
        assert way(7) == "product"
    layer = Conv2d(128, 128, 3, bias=False)
    x = torch.randn(64, 128, 6, 6, generator=torch.Generator().manual_seed(0))
    assert layer._way(x) == "torch"  # it would come out in another format
    layer.to(memory_format=LAST)
    assert layer._way(x) == "winograd"
    torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), nn.Conv2d.forward(layer, x), rtol=1e-4, atol=1e-4)


def test_layers_in_float32_take_winograds_way_in_c(built: None) -> None:
    def way(channels: tuple[int, int] = (16, 24), size: int = 16, **options: Any) -> str:
        layer = Conv2d(*channels, **{"kernel_size": 3, "padding": 1, **options})
        x = torch.zeros(16, channels[0], size, size)
        return layer._way(x.contiguous(memory_format=torch.channels_last))

    in_c = "winograd in C"
    assert way() == way(padding=0) == way((24, 16)) == way((128, 128)) == way(bias=False) == in_c
    few = native.filled(1)
    assert [way((channels, 16)) for channels in (few - 1, few)] == ["torch", in_c]
    assert way(kernel_size=5, padding=2) == way(stride=2) == "torch"
    assert way((256, 128)) == way((64, 512)) == way((144, 128), bias=False) == in_c
    assert way((32, 640)) == way((640, 32)) == "torch"  # too many filters for so few channels
    assert way((130, 256)) == "torch"  # which fill no registers
    assert way((130, 256), bias=False) == "winograd"
    assert way(size=5) == way(padding=2) == way(dilation=2) == "torch"
    with torch.no_grad():
        assert way() == in_c
    with torch.autocast("cpu", torch.bfloat16):
        assert way() != in_c
    assert Conv2d(16, 16, 3, padding=1)._way(torch.zeros(16, 16, 16, 16)) == "torch"  # contiguous
    half = Conv2d(16, 16, 3, padding=1).half()
    assert half._way(torch.zeros(16, 16, 16, 16, dtype=torch.half)) == "torch"


def test_transforms_of_functions_have_torchs_own() -> None:
    """Per-sample gradients, as `torch.func` takes them."""
    layer = Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=LAST)
    x = torch.randn(64, 128, 4, 4, generator=torch.Generator().manual_seed(0))
    assert layer._way(x) == "winograd"

    def loss(weight: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        result = torch.func.functional_call(layer, {"weight": weight}, (image[None],))
        return result.square().sum()

    weight = layer.weight.detach()
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    layer(x).square().sum().backward()
    torch.testing.assert_close(each.sum(0), layer.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.vmap(layer)(x[None])[0], layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((1, 1), 3, 1, 1),
        ((2, 2), 3, 2, 1),
        ((2, 1), (3, 5), (2, 1), (1, 2)),
        ((1, 1), 7, 2, 3),
        ((3, 4), (3, 4), 1, 0),
        ((2, 2), 1, 2, 0),
        ((4, 4), 3, 3, 0),
    ],
)
def test_one_pixel_of_output_is_a_dense_layer(
    size: tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    bias: bool,
    memory_format: torch.memory_format,
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Conv2d(6, 5, kernel, stride=stride, padding=padding, bias=bias)
    x = torch.randn(4, 6, *size, generator=generator)
    assert_torchs_results(layer.to(memory_format=memory_format), x.to(memory_format=memory_format))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((2, 2), 3, 1, 1),
        ((4, 4), 3, 2, 1),
        ((2, 1), (3, 2), 1, (1, 1)),
        ((3, 4), (2, 5), 1, (0, 1)),
        ((9, 2), (3, 2), (3, 2), 0),
    ],
)
def test_each_of_a_few_pixels_of_output_is_a_dense_layer(
    size: tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    memory_format: torch.memory_format,
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Conv2d(128, 6, kernel, stride=stride, padding=padding, bias=False)
    x = torch.randn(128, 128, *size, generator=generator)
    assert layer._way(x[1:]) == "torch"
    with torch.no_grad():
        assert layer._way(x) == "torch"
    layer, x = layer.to(memory_format=memory_format), x.to(memory_format=memory_format)
    assert_torchs_results(layer, x, rtol=1e-4, atol=1e-4)  # gradients are sums over 128 images


def assert_torchs_results(layer: Conv2d, x: torch.Tensor, **tolerance: float) -> None:
    """Computed as dense layers, the output and all gradients are those of torch's convolution."""
    results = []
    for forward in (layer.forward, functools.partial(nn.Conv2d.forward, layer)):
        inputs = x.clone().requires_grad_()
        layer.zero_grad()
        assert layer._way(inputs) == "dense"
        output = forward(inputs)
        output.square().sum().backward()
        assert inputs.grad is not None
        grads = [parameter.grad for parameter in layer.parameters()]
        results.append([output.detach(), inputs.grad, *(g.clone() for g in grads if g is not None)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_part_of_a_map_is_convolved_in_c(dilation: int, built: None) -> None:
    layer = Conv2d(16, 16, 3, padding="same", dilation=dilation, groups=16)
    x = torch.randn(2, 40, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = x.to(memory_format=torch.channels_last).requires_grad_()
    y = layer(parts[:, 9:25])
    assert y.grad_fn is not None
    assert y.grad_fn.name() == "_DepthwiseBackward"
    y.square().sum().backward()
    found, parts.grad = parts.grad, None
    nn.Conv2d.forward(layer, parts[:, 9:25]).square().sum().backward()
    torch.testing.assert_close(found, parts.grad)


class Flat(nn.Module):
    """Looks at its map as rows of numbers, which only torch's own layout allows."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y.view(len(y), -1)


@pytest.mark.parametrize("options", [{"kernel_size": 1}, {"kernel_size": 3, "groups": 16}])
def test_a_map_keeps_the_layout_that_torch_gives_it(options: dict[str, Any], built: None) -> None:
    network = Flat(nn.Conv2d(16, 16, **options))
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    with cpu_kernels(network):
        torch.testing.assert_close(network(x), expected)


def test_a_compiler_need_not_follow_how_the_layers_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find() -> None:
        raise AssertionError("the layers in C were looked for")

    monkeypatch.setattr(library, "find", find)
    layer = nn.Conv2d(16, 16, 1)
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    with cpu_kernels(layer):
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)


def test_taps_very_far_apart_have_torchs_way(built: None) -> None:
    layer = Conv2d(16, 16, 3, padding="same", dilation=20_000, groups=16)
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, nn.Conv2d.forward(layer, x))


def test_other_kinds_of_autocast_have_torchs_way(built: None) -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    with cpu_kernels(layer), torch.autocast("cpu", torch.float16):
        layer(x).float().sum().backward()
    assert layer.weight.grad is not None
