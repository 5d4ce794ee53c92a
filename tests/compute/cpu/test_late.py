"""Maps that are normalized late: whatever meets one computes and learns as with torch's layers."""

from __future__ import annotations

import copy
import functools
import gc
import io
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import cifarzoo
from cifarzoo.compute.cpu import cpu_kernels
from cifarzoo.compute.cpu.late import Late

pytestmark = pytest.mark.usefixtures("built")


class Double(torch.autograd.Function):
    """An operation past every override of Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def relu_times_three(x: Tensor) -> Tensor:
    return torch.relu(x) * 3


@functools.cache
def script(function: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is on its way out
        return torch.jit.script(function)


def scripted(x: Tensor) -> Tensor:
    y: Tensor = script(relu_times_three)(x)
    return y


def ignoring(change: Callable[[Tensor], object]) -> Callable[[Tensor, Tensor], Tensor]:
    """What an operation in place does to its argument."""

    def use(z: Tensor, other: Tensor) -> Tensor:
        change(z)
        return z * 1.5

    return use


def looked_at_before(z: Tensor, other: Tensor) -> Tensor:
    with torch.no_grad():
        assert z.mean().isfinite()
        assert F.relu(z).requires_grad is False
    return F.relu(z)


def without_gradient(z: Tensor, other: Tensor) -> Tensor:
    with torch.no_grad():
        torch.relu_(z)
    return z + 0


def changed_without_gradient(z: Tensor, other: Tensor) -> Tensor:
    with torch.no_grad():
        z += other
    return z * 2


def out_of(z: Tensor, other: Tensor) -> Tensor:
    into = torch.empty(0)
    with torch.no_grad():
        torch.relu(torch.add(z, other, out=into))
    return into + z


USES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda z, o: F.relu(z),
    "relu of torch": lambda z, o: torch.relu(input=z),
    "relu's method": lambda z, o: z.relu(),
    "relu module": lambda z, o: nn.ReLU()(z),
    "relu module in place": lambda z, o: nn.ReLU(inplace=True)(z),
    "relu in place": ignoring(nn.ReLU(inplace=True)),
    "relu_": ignoring(lambda z: z.relu_()),
    "torch.relu_": ignoring(torch.relu_),
    "relu6": lambda z, o: F.relu6(z * 1),
    "relu6 module": lambda z, o: nn.ReLU6()(z),
    "relu6 in place": ignoring(nn.ReLU6(inplace=True)),
    "hardtanh": lambda z, o: F.hardtanh(z, 0.0, 6.0),
    "hardtanh of other bounds": lambda z, o: F.hardtanh(z),
    "hardtanh in place of other bounds": ignoring(nn.Hardtanh(-0.5, 0.5, inplace=True)),
    "gelu": lambda z, o: F.gelu(z),
    "relu twice": lambda z, o: F.relu(z) + F.relu(z),
    "relu and the map": lambda z, o: F.relu(z) * z,
    "the map and relu": lambda z, o: z * 2 + F.relu(z),
    "relu, then in place": lambda z, o: F.relu(z) + z.relu_(),
    "relu of relu": lambda z, o: F.relu(F.relu_(z)),
    "add, relu": lambda z, o: F.relu(z + o),
    "add the other way round": lambda z, o: F.relu(o + z),
    "torch.add": lambda z, o: torch.relu(torch.add(z, other=o)),
    "add with a factor": lambda z, o: torch.relu(torch.add(z, o, alpha=0.5)),
    "add in place": lambda z, o: F.relu_(z.add_(o)),
    "add in place, ignored": ignoring(lambda z: z.add_(z.detach())),
    "add to another in place": lambda z, o: F.relu((o * 1).add_(z)),
    "iadd": lambda z, o: F.relu(z.__iadd__(o)),
    "add, no activation": lambda z, o: z + o,
    "add, relu6": lambda z, o: F.relu6(z + o),
    "add, add": lambda z, o: F.relu(z + o + o),
    "add it to itself": lambda z, o: F.relu(z + z),
    "add, and the map": lambda z, o: F.relu(z + o) * z,
    "sum used twice": lambda z, o: (lambda s: F.relu(s) * s)(z + o),
    "sum, relu in place": ignoring(lambda z: F.relu_(z.add_(1.0))),
    "add a number": lambda z, o: F.relu(z + 1),
    "add a channel": lambda z, o: F.relu(z + o[:, :1]),
    "add contiguous": lambda z, o: F.relu(z + o.contiguous()),
    "add an activation": lambda z, o: F.relu(z + F.relu(z)),
    "multiply": lambda z, o: z * o,
    "multiply in place, relu": lambda z, o: F.relu(z.mul_(o)),
    "multiply in place, ignored": ignoring(lambda z: z.mul_(2)),
    "set some": ignoring(lambda z: z.__setitem__((slice(None), 0), 1.0)),
    "index": lambda z, o: F.relu(z[:, 1:]),
    "concatenate": lambda z, o: F.relu(torch.cat([o, z, z], 1)),
    "chunk": lambda z, o: F.relu(z.chunk(2, 0)[0]),
    "view in place": lambda z, o: (z.view_as(z).mul_(2), z * 1)[1],
    "dropout": lambda z, o: nn.Dropout(0.0)(z),
    "pool": lambda z, o: F.max_pool2d(z, 2),
    "mean": lambda z, o: z.mean((2, 3)),
    "reshape": lambda z, o: z.flatten(1).relu(),
    "a function of its own": lambda z, o: Double.apply(z),
    "a function of its own, and relu": lambda z, o: Double.apply(z) + F.relu(z),
    "a function of the sum": lambda z, o: F.relu(Double.apply(z + o)),
    "scripted": lambda z, o: scripted(z),
    "looked at before": looked_at_before,
    "in place without gradient": without_gradient,
    "added in place without gradient": changed_without_gradient,
    "out": out_of,
    "detached": lambda z, o: z.detach() * o + F.relu(z),
    "a copy": lambda z, o: F.relu(z.clone()),
    "double": lambda z, o: F.relu(z.double()).float(),
    "where": lambda z, o: torch.where(z > 0, z, o),
    "checkpointed": lambda z, o: torch.utils.checkpoint.checkpoint(F.relu, z, use_reentrant=False),
    "its own gradient": lambda z, o: z * torch.autograd.grad(z.square().sum(), z)[0].detach(),
}


def channels(size: int, *, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A depthwise convolution, the same each time."""
    generator = torch.Generator().manual_seed(1)
    layer = nn.Conv2d(size, size, kernel, groups=size, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


BEFORE_A_CONVOLUTION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: USES[name] for name in ("relu", "relu6 module", "relu module in place", "relu_")},
    "relu6 module in place": lambda z, o: nn.ReLU6(inplace=True)(z),
    "hardtanh in place": lambda z, o: F.hardtanh_(z, 0.0, 6.0),
    "relu of relu": USES["relu of relu"],
    "relu6, looked at": lambda z, o: (lambda y: (y.mean(), y)[1])(F.relu6(z)),
    "add, relu": USES["add, relu"],
    "the map": lambda z, o: z,
    "gelu": USES["gelu"],
    "detached": lambda z, o: F.relu(z).detach() + z,
    "checkpointed": USES["checkpointed"],
}
"""What may stand between a normalization and a depthwise convolution."""

ONE_PASS = {
    "_ActivatedBackward": {
        *("relu", "relu's method", "relu module", "relu module in place", "relu6 module"),
        "hardtanh",
    },
    "_ActivatedSumBackward": {"add, relu", "add the other way round", "add in place", "iadd"},
}


def results(
    use: Callable[[Tensor, Tensor], Tensor],
    *,
    ours: bool,
    affine: bool = True,
    shape: tuple[int, ...] = (6, 8, 5, 4),
    dtype: torch.dtype = torch.float32,
    then: nn.Conv2d | None = None,
) -> list[Tensor]:
    """The output, all gradients, and the running statistics; perhaps behind a convolution."""
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(shape[1], affine=affine)
    network = nn.ModuleList([layer] if then is None else [layer, then])
    if affine:
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 6, shape[1]))
            layer.bias.copy_(torch.linspace(-1, 3, shape[1]))
    maps = [(torch.randn(shape) * 2 + 1).to(dtype) for _ in range(2)]
    if dtype == torch.float64:  # the numbers that the others have
        maps = [m.bfloat16().double() for m in maps]
        network.double()
    x, other = (m.to(memory_format=torch.channels_last).requires_grad_() for m in maps)
    with cpu_kernels(network, enabled=ours):
        z = layer(x)
        assert (type(z) is Late) == ours
        output = use(z, other)
        if then is not None:
            output = then(output)
        loss = output * torch.linspace(-1, 1, output.numel()).view(output.shape)
        loss.sum().backward()
    gradients = [t.grad for t in (x, other, *network.parameters()) if t.grad is not None]
    return [output.detach(), *gradients, layer.running_mean, layer.running_var]


@pytest.mark.parametrize("use", USES)
def test_every_use_computes_and_learns_as_torch_does(use: str) -> None:
    found, expected = (results(USES[use], ours=ours) for ours in (True, False))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


WIDE = (6, 16, 5, 8)  # a map that a depthwise convolution activates where it reads it


@pytest.mark.parametrize("use", USES)
def test_every_use_in_a_network_with_depthwise_convolutions(use: str) -> None:
    def found(ours: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.ModuleList([nn.BatchNorm2d(16), channels(16)])
        x, other = (
            torch.randn(WIDE).to(memory_format=torch.channels_last).requires_grad_()
            for _ in range(2)
        )
        with cpu_kernels(network, enabled=ours):
            output = USES[use](network[0](x), other)
            (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
        return [output.detach(), *(t.grad for t in (x, other) if t.grad is not None)]

    for one, other in zip(found(True), found(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (WIDE, {"padding": 1}),
        ((3, 32, 9, 9), {"padding": 1, "stride": 2, "bias": False}),
        ((3, 16, 8, 12), {"padding": 2, "kernel": 5}),
        ((3, 16, 7, 8), {"padding": 0, "kernel": 5, "stride": 2}),
        ((3, 24, 8, 8), {"padding": "same"}),
        ((3, 16, 9, 8), {"padding": "same", "dilation": 2}),
        ((3, 16, 9, 10), {"padding": 3, "dilation": 2, "stride": 2}),
        ((3, 20, 8, 8), {"padding": 1}),
        ((3, 16, 4, 4), {"padding": 1}),
    ],
)
@pytest.mark.parametrize("use", BEFORE_A_CONVOLUTION)
@pytest.mark.parametrize("affine", [True, False])
def test_before_a_depthwise_convolution_it_learns_as_torchs(
    shape: tuple[int, ...], options: dict[str, Any], use: str, affine: bool
) -> None:
    found, expected = (
        results(
            BEFORE_A_CONVOLUTION[use],
            ours=ours,
            affine=affine,
            shape=shape,
            then=channels(shape[1], **options),
        )
        for ours in (True, False)
    )
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=3e-4)


@pytest.mark.parametrize(
    ("activation", "stride"),
    [
        (nn.ReLU(), 1),
        (nn.ReLU6(inplace=True), 2),
        pytest.param(nn.ReLU(), 2, marks=pytest.mark.slow),
        pytest.param(nn.ReLU6(inplace=True), 1, marks=pytest.mark.slow),
    ],
)
def test_large_maps_before_a_depthwise_convolution_are_as_exact_as_torchs(
    activation: nn.Module, stride: int
) -> None:
    torch.manual_seed(0)
    convolution = channels(48, padding=1, stride=stride, bias=False)
    plain = nn.Sequential(nn.BatchNorm2d(48), activation, convolution)
    # beyond the caches, where maps are written past them
    x = (torch.randn(110, 48, 32, 32) + 1).to(memory_format=torch.channels_last)
    found = []
    for kind in ("ours", "torch's", "exact"):
        network = copy.deepcopy(plain).double() if kind == "exact" else copy.deepcopy(plain)
        inputs = x.to(next(network.parameters()).dtype).requires_grad_()
        with cpu_kernels(network, enabled=kind == "ours"):
            output = network(inputs)
            output.square().mean().backward()
        assert inputs.grad is not None
        assert inputs.grad.is_contiguous(memory_format=torch.channels_last)
        found.append([output.detach(), inputs.grad, *(p.grad for p in network.parameters())])
        x = x.detach()
    for one, other, true in zip(*found, strict=True):
        distances = [((t.double() - true).norm() / true.norm()).item() for t in (one, other)]
        assert distances[0] <= 1.5 * distances[1] + 1e-6


def test_an_activated_map_is_computed_by_the_convolution(images: Tensor) -> None:
    x = images.detach().repeat(1, 2, 1, 2).to(memory_format=torch.channels_last)
    network = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU6(inplace=True), channels(16))
    with cpu_kernels(network):
        y = network[:2](x)
        assert type(y) is Late
        assert y._value is None
        assert network[2](y).grad_fn.name() == "_ActivatedDepthwiseBackward"
        assert y._value is None
        with torch.autocast("cpu", torch.bfloat16):
            assert network[2](network[:2](x)).grad_fn.name() == "_DepthwiseBackward"
        network[2].weight.requires_grad_(False)
        assert network[2](network[:2](x)).grad_fn.name() == "ConvolutionBackward0"


def test_second_gradients_through_a_depthwise_convolution_are_torchs() -> None:
    def second(ours: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), channels(16, padding=1))
        x = torch.randn(WIDE).to(memory_format=torch.channels_last).requires_grad_()
        with cpu_kernels(network, enabled=ours):
            first = torch.autograd.grad(
                network(x).pow(3).sum(), [x, *network.parameters()], create_graph=True
            )
            total = sum(g.square().mean() for g in first)
            return [*torch.autograd.grad(total, [x, *network.parameters()])]

    for one, other in zip(second(True), second(False), strict=True):
        torch.testing.assert_close(one / other.norm(), other / other.norm(), rtol=1e-3, atol=1e-5)


def test_an_input_changed_before_the_convolution_is_refused(images: Tensor) -> None:
    x = images.detach().repeat(1, 2, 1, 2).to(memory_format=torch.channels_last)
    network = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), channels(16))
    with cpu_kernels(network):
        y = network[:2](x)
        x.mul_(2)
        for use in (network[2], F.gelu):
            with pytest.raises(RuntimeError, match=r"changed in place before.*kernels=False"):
                use(y)


@pytest.mark.parametrize("shape", [(7, 3, 5, 3), (1, 1, 2, 1), (3, 20, 3, 3), (2, 130, 3, 1)])
@pytest.mark.parametrize("use", ["relu", "relu6 module", "add, relu", "add, no activation"])
@pytest.mark.parametrize("affine", [True, False])
def test_every_shape(shape: tuple[int, ...], use: str, affine: bool) -> None:
    found, expected = (
        results(USES[use], ours=ours, shape=shape, affine=affine) for ours in (True, False)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use", ["relu", "relu6 module", "add, relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_one_pass_it_is_as_exact_as_torchs(use: str, dtype: torch.dtype) -> None:
    shape = (32, 24, 8, 8)
    ours, theirs = (results(USES[use], ours=o, shape=shape, dtype=dtype) for o in (True, False))
    exact = results(USES[use], ours=False, shape=shape, dtype=torch.float64)
    rounding = 1e-5 if dtype == torch.float32 else 4e-3
    for one, other, true in zip(ours, theirs, exact, strict=True):
        if dtype == torch.float32:  # whose maps were not rounded
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
            continue
        distances = [((t.double() - true).norm() / true.norm()).item() for t in (one, other)]
        assert distances[0] <= 1.2 * distances[1] + rounding


@pytest.mark.parametrize("use", ["relu", "relu6 module", "add, relu", "mean", "add, no activation"])
def test_second_gradients_are_torchs(use: str) -> None:
    def second(ours: bool) -> list[Tensor]:
        torch.manual_seed(0)
        layer = nn.BatchNorm2d(4)
        x, other = (
            torch.randn(4, 4, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
            for _ in range(2)
        )
        with cpu_kernels(layer, enabled=ours):
            output = USES[use](layer(x), other)
            (first,) = torch.autograd.grad(output.pow(3).sum(), x, create_graph=True)
            found = torch.autograd.grad(first.square().sum(), [x, other], allow_unused=True)
        return [g for g in found if g is not None]

    for one, other in zip(second(True), second(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("use", "name"), [(use, name) for name, uses in ONE_PASS.items() for use in sorted(uses)]
)
def test_what_can_be_computed_in_one_pass_is(use: str, name: str, images: Tensor) -> None:
    grad_fn = USES[use](late(images), images).grad_fn
    assert grad_fn is not None
    assert grad_fn.name() == name


def late(x: Tensor) -> Tensor:
    layer = nn.BatchNorm2d(x.shape[1])
    with cpu_kernels(layer):
        z: Tensor = layer(x)
    assert type(z) is Late
    return z


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()


def test_it_looks_like_the_map_it_stands_for(images: Tensor) -> None:
    z, plain = late(images), nn.BatchNorm2d(8)(images)
    assert (z.shape, z.dtype, z.device, z.stride()) == (
        plain.shape,
        plain.dtype,
        plain.device,
        plain.stride(),
    )
    assert z.requires_grad
    assert not z.is_leaf
    assert (len(z), z.ndim, z.size(1), z.numel()) == (4, 4, 8, plain.numel())
    assert z.is_contiguous(memory_format=torch.channels_last)
    assert z._now is None  # nothing of this needs its numbers
    assert repr(z).startswith("tensor(")
    assert z.grad_fn is not None


@pytest.mark.parametrize(
    "convert",
    [
        lambda z: torch.from_numpy(z.detach().numpy()),
        lambda z: torch.tensor(z.tolist()),
        lambda z: copy.deepcopy(z.detach()),
        lambda z: pickle.loads(pickle.dumps(z.detach())),
        lambda z: torch.load(save(z)),
        lambda z: torch.from_dlpack(z.detach()),
        lambda z: torch.stack([*z]),
        lambda z: z.data,
    ],
)
def test_it_can_be_handed_on(images: Tensor, convert: Callable[[Tensor], Tensor]) -> None:
    found = convert(late(images))
    assert type(found) is Tensor
    torch.testing.assert_close(found.detach(), nn.BatchNorm2d(8)(images).detach())


def save(z: Tensor) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(z.detach(), file)
    file.seek(0)
    return file


def test_hooks_and_kept_gradients_work(images: Tensor) -> None:
    z, seen = late(images), []
    z.retain_grad()
    z.register_hook(lambda grad: seen.append(grad.clone()))
    F.relu(z).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, seen[0])
    torch.testing.assert_close(z.grad, (z > 0).float())


def test_without_gradients_nothing_learns_later(images: Tensor) -> None:
    layer = nn.BatchNorm2d(8)
    with cpu_kernels(layer):
        with torch.no_grad():
            z = layer(images)
        assert not z.requires_grad
        assert not F.relu(z).requires_grad
        assert not F.relu(z + z).requires_grad


def test_an_input_that_was_changed_meanwhile_is_refused(images: Tensor) -> None:
    for use in (F.relu, F.gelu, lambda z: z + images):
        x = images * 1
        z = late(x)
        x.mul_(2)
        with pytest.raises(RuntimeError, match=r"changed in place before.*kernels=False"):
            use(z)


def test_a_summand_that_was_changed_meanwhile_is_refused(images: Tensor) -> None:
    for add in (lambda z, o: z + o, lambda z, o: z.add_(o)):
        for use in (F.relu, F.gelu):
            other = images * 1
            total = add(late(images), other)
            other.mul_(2)
            with pytest.raises(RuntimeError, match=r"changed in place before.*kernels=False"):
                use(total)


def test_weights_that_change_meanwhile_do_not_matter(images: Tensor) -> None:
    layer = nn.BatchNorm2d(8)
    with cpu_kernels(layer), torch.no_grad():
        z, again = layer(images), layer(images)
        layer.weight.fill_(100)
        layer.bias.fill_(100)
        torch.testing.assert_close(
            F.relu(z), F.relu(F.batch_norm(images, None, None, training=True))
        )
        torch.testing.assert_close(again * 1, F.batch_norm(images, None, None, training=True))


CHANGES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "relu_": lambda z, o: F.relu_(z),
    "add_": lambda z, o: z.add_(o),
    "mul_": lambda z, o: z.mul_(o),
    "set": lambda z, o: z.__setitem__(slice(2), 1.0),
    "mul_ after a use": lambda z, o: (F.gelu(z), z.mul_(o)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("call", [Double.apply, scripted, lambda z: Double.apply(z) + z])
def test_one_changed_in_place_is_known_past_python(
    change: str, call: Callable[[Tensor], Tensor]
) -> None:
    def use(z: Tensor, other: Tensor) -> Tensor:
        CHANGES[change](z, other)
        return call(z)

    found, expected = (results(use, ours=ours) for ours in (True, False))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.view_as(z).mul_(2),
        lambda z: F.relu_(F.relu_(z)),
        lambda z: F.relu_(z.add_(z.detach())),
    ],
)
@pytest.mark.parametrize("call", [Double.apply, scripted])
def test_one_changed_by_another_name_is_refused_past_python(
    images: Tensor, change: Callable[[Tensor], object], call: Callable[[Tensor], Tensor]
) -> None:
    z, plain = late(images), nn.BatchNorm2d(8)(images)
    change(z)
    with pytest.raises(RuntimeError):
        call(z)
    change(plain)
    torch.testing.assert_close(z * 1, plain)


def test_networks_of_others_learn_the_same() -> None:
    for make in (torchvision.models.resnet18, torchvision.models.mobilenet_v2):
        torch.manual_seed(0)
        network = make(num_classes=10)
        for layer in network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        x = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)
        network.to(memory_format=torch.channels_last)

        def gradients(ours: bool, network: nn.Module, x: Tensor) -> list[Tensor]:
            network.zero_grad()
            with cpu_kernels(network, enabled=ours):
                F.cross_entropy(network(x), torch.arange(4)).backward()
            return [p.grad.clone() for p in network.parameters() if p.grad is not None]

        ours, theirs = gradients(True, network, x), gradients(False, network, x)
        for one, other in zip(ours, theirs, strict=True):
            # a ReLU whose input rounds to the other side of zero makes a hundredth
            assert (one - other).norm() <= 0.1 * other.norm() + 1e-4


@pytest.mark.parametrize("name", ["resnet20", "deep_bn", "resnet18_cifar", "airbench94"])
def test_networks_of_the_zoo_meet_no_other_tensor(name: str) -> None:
    network = cifarzoo.create_model(name, seed=0)
    x = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with cpu_kernels(network):
        assert type(network(x)) is Tensor


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("compile_part", [script, lambda m: torch.compile(m, backend="eager")])
def test_networks_with_compiled_parts_are_computed_at_once(
    compile_part: Callable[[nn.Module], nn.Module],
) -> None:
    network = nn.Sequential(nn.BatchNorm2d(4), compile_part(nn.ReLU()))
    x = torch.randn(2, 4, 5, 5).to(memory_format=torch.channels_last)
    with cpu_kernels(network):
        assert type(network[0](x)) is Tensor
        assert network(x).min() == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_function_takes_one(images: Tensor) -> None:
    compiled = torch.compile(lambda z: F.relu(z) * 2, backend="eager")
    torch.testing.assert_close(compiled(late(images)), F.relu(nn.BatchNorm2d(8)(images)) * 2)


def test_nothing_is_kept_longer_than_it_is_used() -> None:
    uses = [
        "relu",
        "relu_",
        "add, relu",
        "iadd",
        "gelu",
        "relu and the map",
        "multiply in place, relu",
    ]
    gc.disable()
    try:
        for use in uses:
            x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
            z, y = late(inner := x * 1), None
            references = [weakref.ref(z), weakref.ref(inner)]
            y = USES[use](z, x * 1)
            references.append(weakref.ref(y))
            y.sum().backward()
            del z, y, inner
            assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()


def test_afterwards_the_layers_are_as_before(images: Tensor) -> None:
    network = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
    before = set(network[0].__dict__)
    with cpu_kernels(network):
        network(images)
    assert set(network[0].__dict__) == before
