"""Every network is plain torch: torch's own tools see through it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.fx
from kinds import create_short, each_kind, each_kind_slowly, each_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import cifarzoo
from cifarzoo.zoo.builds import plan

PLAIN = ("torch.nn.modules.", "cifarzoo.models.", "torchvision.", "timm.")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def deprecated() -> Iterator[None]:
    """Tools that torch is about to give up, and people still use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated.*")
        warnings.filterwarnings("ignore", message=".*reduce_range.*")
        yield


@each_model
def test_layers_are_exactly_torchs(name: str) -> None:
    planned = plan(cifarzoo.get_model_info(name).builder, {})
    assert planned is not None
    for layer_name, layer in planned.model.named_modules():
        assert type(layer).__module__.startswith(PLAIN), layer_name
        assert not isinstance(layer, nn.Conv2d) or type(layer) is nn.Conv2d
        assert not isinstance(layer, nn.BatchNorm2d) or type(layer) is nn.BatchNorm2d


@each_kind
def test_fx_traces_it(name: str, images: Tensor) -> None:
    model = create_short(name).eval()
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))


# Shake-Shake draws in training, and that graph has more nodes
@pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing the model in eval mode")
@each_kind
def test_features_can_be_taken_at_every_stage(name: str, images: Tensor) -> None:
    model = create_short(name).eval()
    stages = [child for child, _ in model.named_children() if any(True for _ in child)]
    nodes = get_graph_node_names(model)[1]
    wanted = [s for s in stages if any(n == s or n.startswith(f"{s}.") for n in nodes)]
    assert wanted
    features = create_feature_extractor(model, wanted)(images)
    assert features.keys() == set(wanted)
    assert all(len(feature) == len(images) for feature in features.values())


@each_kind_slowly
def test_it_can_be_scripted(name: str, images: Tensor, deprecated: None) -> None:
    if name == "vit_tiny_patch4":
        pytest.skip("timm's network takes masks, which a scripted check of the images would need")
    model = create_short(name).eval()
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(images), model(images))


@each_kind_slowly
def test_static_quantization_reaches_every_convolution(
    name: str, images: Tensor, deprecated: None
) -> None:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model = create_short(name).eval()
    count = sum(isinstance(layer, nn.Conv2d) for layer in model.modules())
    # torch cannot fuse a dense layer with a normalization that has no scale, as deep_bn's
    known = get_native_backend_config().configs
    backend = BackendConfig("x86").set_backend_pattern_configs(
        [config for config in known if config.pattern != (nn.Linear, nn.BatchNorm1d)]
    )
    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(model, mapping, (images,), backend_config=backend)
    prepared(images)
    quantized = convert_fx(prepared, backend_config=backend)
    left = [layer for layer in quantized.modules() if isinstance(layer, nn.Conv2d)]
    assert not left
    found = [m for m in quantized.modules() if "quantized" in type(m).__module__]
    assert sum("Conv" in type(m).__name__ for m in found) == count
    assert quantized(images).shape == (2, 10)


@each_kind_slowly
def test_second_gradients_do_not_depend_on_the_memory_format(name: str, images: Tensor) -> None:
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = create_short(name).eval().double()
        x = images.double().to(memory_format=memory_format).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # the only attention that has them
            (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(results[1], results[0])
