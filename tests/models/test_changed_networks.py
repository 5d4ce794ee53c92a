"""Networks that users changed, wrapped or put together: right, or refused."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import cifarzoo
from cifarzoo import adapt_stem, create_model, ensemble, get_card, load_sample
from cifarzoo.errors import ArgumentError, InputError, WeightsError
from cifarzoo.models import (
    AirBench,
    DenseNet,
    PreActResNet,
    PyramidNet,
    RepVGG,
    ResNet,
    SmallResNet,
    fuse_branches,
)
from cifarzoo.models.stem import _images, _last_side, _passes
from cifarzoo.zoo.foreign import is_average


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# weights of another network


@pytest.mark.parametrize(
    ("made", "loaded"),
    [
        (("resnet18", {}), ("torchvision:resnet18", {})),
        (
            ("airbench94", {"widths": (128, 384, 384), "early_pooling": (1, 2)}),
            ("airbench95", {}),
        ),
    ],
)
def test_weights_of_a_network_that_computes_otherwise_are_no_secret(
    made: tuple[str, dict[str, Any]],
    loaded: tuple[str, dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = cifarzoo.save_weights(
        create_model(made[0], seed=0, **made[1]), tmp_path / "a.safetensors"
    )
    caplog.set_level(logging.WARNING, "cifarzoo")
    network = create_model(loaded[0], pretrained=path, **loaded[1])
    assert "computes something else" in caplog.text
    assert get_card(network).name == loaded[0]


def test_a_network_with_another_stem_is_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = cifarzoo.save_weights(create_model("resnet18", seed=0), tmp_path / "a.safetensors")
    caplog.set_level(logging.WARNING, "cifarzoo")
    cifarzoo.load_weights(create_model("resnet18"), path)
    assert not caplog.text
    cifarzoo.load_weights(adapt_stem(create_model("resnet18")), path)
    assert "computes something else" in caplog.text


def test_a_new_last_layer_stays_also_with_as_many_classes() -> None:
    source, network = create_model("resnet20", seed=1), create_model("resnet20", seed=2)
    cifarzoo.reset_classifier(network, 10, classes=list("abcdefghij"), seed=3)
    before = network.fc.weight.clone()  # type: ignore[union-attr]
    cifarzoo.load_weights(network, source.state_dict(), new_head=True)
    assert torch.equal(network.fc.weight, before)  # type: ignore[union-attr, arg-type]
    assert torch.equal(network.conv1.weight, source.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert get_card(network).classes == tuple("abcdefghij")


def test_a_last_layer_that_cannot_be_told_is_not_replaced() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    with pytest.raises(WeightsError, match="cannot be told where file and model have as many"):
        cifarzoo.load_weights(network, network.state_dict(), new_head=True)


@pytest.mark.parametrize(
    ("prefix", "is_one"),
    [
        ("model_ema.", True),
        ("state_dict_ema.", True),
        ("EMA.module.", True),
        ("model_without_ema.", False),
        ("non_ema.", False),
        ("no-ema.", False),
        ("exp_avg.", False),
    ],
)
def test_words_tell_an_average(prefix: str, is_one: bool) -> None:
    assert is_average(prefix, {}) == is_one


def test_a_network_without_numbers_is_not_loaded_or_saved(tmp_path: Path) -> None:
    network = create_model("resnet20").to("meta")
    with pytest.raises(ArgumentError, match="to_empty"):
        cifarzoo.load_weights(network, create_model("resnet20").state_dict())
    with pytest.raises(ArgumentError, match="holds no numbers"):
        cifarzoo.save_weights(network, tmp_path / "a.safetensors")


def test_only_dtypes_that_can_be_read_again_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must be one of torch\.float16, torch"):
        cifarzoo.save_weights(
            create_model("resnet20"), tmp_path / "a.safetensors", dtype=torch.float8_e4m3fn
        )


# branches


def test_branches_are_fused_with_the_strides_that_they_have(images: Tensor) -> None:
    network = RepVGG((1, 1, 1, 1), (8,) * 5).eval()
    block = network.stage2[0]
    block.dense.conv.stride = block.pointwise.conv.stride = (1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(fuse_branches(network)(images), network(images))
    adapted = adapt_stem(create_model("repvgg_a0", seed=0).eval(), size=16)
    fused = fuse_branches(adapted)  # type: ignore[arg-type]
    torch.testing.assert_close(fused(images), adapted(images), rtol=1e-3, atol=1e-4)
    assert get_card(fused).name == "RepVGG"  # no builder would build it


def test_branches_of_different_strides_are_refused() -> None:
    network = RepVGG((1, 1, 1, 1), (8,) * 5)
    network.stage2[0].dense.conv.stride = (1, 1)  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match="no single convolution"):
        fuse_branches(network)


def test_the_fused_copy_checks_its_images() -> None:
    fused = fuse_branches(create_model("repvgg_a0", seed=0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="normalize them first"):
        fused(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


# ensembles


def test_an_ensemble_refuses_what_is_no_pixels(images: Tensor) -> None:
    together = ensemble([create_model("simple", seed=0)])
    pixels = load_sample("test").images[:4]
    assert together(pixels / 255).shape == (4, 10)
    for wrong, message in (
        (pixels, "got torch.uint8"),
        (pixels.float(), r"pixels in 0..1.* got 0 to 25\d"),
        (cifarzoo.CIFAR10_PREPROCESSING.normalize(pixels), r"pixels in 0..1.* got -"),
        (images[:, :1], r"got \(2, 1, 32, 32\)"),
    ):
        with pytest.raises(InputError, match=message):
            together(wrong)


def test_members_of_other_dtypes_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"torch.float32 on cpu and torch.float64 on cpu"):
        ensemble([create_model("simple"), create_model("simple").double()])


# stems


class Rough(nn.Module):
    """A stride that does not divide the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=10, padding=1)
        self.fc = nn.Linear(4 * 26 * 26, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(images).flatten(1))
        return logits


def test_a_stride_is_put_back_as_it_was() -> None:
    network = Rough()
    with pytest.raises(ArgumentError, match="cannot be adapted"):
        adapt_stem(network)
    assert network.conv.stride == (10, 10)


@pytest.mark.parametrize("size", [24, 32, 40])
def test_maps_without_padding_have_four_pixels_too(size: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2),
        nn.MaxPool2d(2),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    for each in (network, torchvision.models.squeezenet1_1()):
        adapted = adapt_stem(each, size=size)
        assert _last_side(_passes(adapted, _images(adapted, size))) >= 4


# options and calls


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet([2, 2, 2, 2], stem="ImageNet"),  # type: ignore[arg-type]
        lambda: ResNet([1] * 4, stem="cifar", block="Basic"),  # type: ignore[arg-type]
        lambda: ResNet([1] * 5, stem="cifar"),
        lambda: SmallResNet(1, block="Basic"),  # type: ignore[arg-type]
        lambda: PreActResNet([1] * 3, [16] * 4, block="Basic"),  # type: ignore[arg-type]
        lambda: AirBench((24, 24, 24), depth=4),
        lambda: DenseNet(43, 12),
        lambda: PyramidNet(109, 48),
    ],
)
def test_values_that_an_option_cannot_have_are_refused(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ArgumentError, match=r"must be|4 stages"):
        build()


def test_images_may_be_given_by_name(images: Tensor) -> None:
    network = create_model("resnet20", seed=0).eval()
    assert torch.equal(network(images=images), network(images))
    with pytest.raises(InputError, match="got a list"):
        network([images])


@pytest.mark.usefixtures("own_registries")
def test_a_network_without_parameters_answers(images: Tensor) -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    def mean(*, num_classes: int = 3) -> nn.Module:
        return Mean()

    cifarzoo.register_model(description="a", source="b", parameters=0, macs=0)(mean)
    assert create_model("mean", num_classes=3)(images).shape == (2, 3)


def test_a_builder_without_a_name_needs_one() -> None:
    def named(*, num_classes: int = 10, width: int = 4) -> nn.Module:
        return nn.Linear(width, num_classes)

    register = cifarzoo.register_model(description="a", source="b", parameters=0, macs=0)
    with pytest.raises(ArgumentError, match="pass name="):
        register(functools.partial(named, width=3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_any_dtype_are_summarized(dtype: torch.dtype) -> None:
    network = create_model("resnet20").to(dtype)
    assert cifarzoo.summary(network).total_params == 269_722


def test_a_last_layer_that_is_computed_is_not_replaced() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(3072, 10))
    )
    with pytest.raises(InputError, match="computes its weight from other parameters"):
        cifarzoo.reset_classifier(network, 3)
