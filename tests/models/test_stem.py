"""Networks of other packages get a stem for small images, or are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import cifarzoo
from cifarzoo import adapt_stem
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.zoo.registry import register_source


def last_map(model: nn.Module, layer: str, side: int = 32) -> tuple[int, ...]:
    maps: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda m, i, out: maps.append(out))
    model.eval()(torch.zeros(1, 3, side, side))
    hook.remove()
    return tuple(maps[0].shape[2:])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v2", "features"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("squeezenet1_1", "features"),
        ("efficientnet_b0", "features"),
        ("regnet_y_400mf", "trunk_output"),
    ],
)
def test_the_last_map_has_at_least_four_pixels_a_side(name: str, layer: str) -> None:
    model = torchvision.models.get_model(name, num_classes=10)
    names = list(model.state_dict())
    assert last_map(model, layer)[0] < 4
    assert adapt_stem(model) is model
    assert 4 <= last_map(model, layer)[0] < 8
    assert list(model.state_dict()) == names
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_it_lowers_the_strides_that_the_zoos_own_networks_lower() -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for theirs, ours in (("mobilenet_v2", "mobilenetv2"), ("shufflenet_v2_x1_0",) * 2):
        name = ours if ours == "mobilenetv2" else "shufflenetv2_x1_0"
        model = adapt_stem(torchvision.models.get_model(theirs, num_classes=10)).eval()
        same = cifarzoo.create_model(name).eval()
        same.load_state_dict(model.state_dict())
        assert torch.equal(model(images), same(images))


def test_larger_images_need_less() -> None:
    model = adapt_stem(torchvision.models.resnet18(), size=64)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, nn.MaxPool2d)
    assert last_map(model, "layer4", 64) == (4, 4)
    untouched = str(torchvision.models.resnet18())
    assert str(adapt_stem(torchvision.models.resnet18(), size=128)) == untouched


def test_a_network_that_needs_nothing_is_left_as_it_is() -> None:
    model = cifarzoo.create_model("resnet18_cifar")
    before = str(model)
    assert str(adapt_stem(model)) == before


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "convnext_tiny"])
def test_networks_of_patches_are_refused(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    model = model.to_empty(device="cpu")
    with pytest.raises(ArgumentError, match=r"cuts images into patches of \d+x\d+ pixels"):
        adapt_stem(model)


def test_a_reduction_whose_stride_is_unknown_is_refused_and_nothing_is_changed() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::16, ::16]

    model = nn.Sequential(Halves(), nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    before = str(model)
    with pytest.raises(ArgumentError, match=r"smaller in '0', whose stride is not known \(Halves"):
        adapt_stem(model)
    assert str(model) == before


class _Pools(nn.Module):
    """Makes maps 16 times smaller, by one layer or by a function."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.pool = pool
        self.head = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        for convolution in self.convolutions:
            images = self.pool(convolution(images))
        return self.head(images.mean((2, 3)))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (nn.MaxPool2d(2), r"applies 'pool' in several places, and another stride would be that"),
        (lambda x: F.max_pool2d(x, 2), r"'max_pool2d' makes its maps smaller, which is no layer"),
        (lambda x: F.interpolate(x, scale_factor=0.5), r"'interpolate' makes its maps smaller"),
    ],
)
def test_what_a_stride_cannot_undo_is_refused_and_nothing_is_changed(
    pool: Callable[[Tensor], Tensor], message: str
) -> None:
    model = _Pools(pool)
    with pytest.raises(ArgumentError, match=message):
        cifarzoo.adapt_stem(model)
    assert model.pool is pool


def test_strides_that_differ_down_and_across_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, (2, 1), 1), nn.Conv2d(8, 8, 3, (1, 2), 1))
    with pytest.raises(ArgumentError, match=r"'0' has the stride \(2, 1\)"):
        adapt_stem(model)
    assert (model[0].stride, model[1].stride) == ((2, 1), (1, 2))


def test_a_network_that_fails_on_small_images_is_given_back_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=16, padding=1), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ArgumentError, match="cannot be adapted to 32x32 images: with other stride"):
        adapt_stem(model)
    assert model[0].stride == (16, 16)


def test_networks_of_other_packages_are_built_by_their_names() -> None:
    for name in ("torchvision:mobilenet_v2", "timm:mobilenetv3_small_050"):
        model = cifarzoo.create_model(name, num_classes=7, seed=0)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
        card = cifarzoo.get_card(model)
        assert (card.name, card.num_classes) == (name, 7)
        spec = cifarzoo.get_model_info(name)
        assert spec.parameters == sum(
            p.numel() for p in cifarzoo.create_model(name, seed=0).parameters()
        )
        assert spec.macs > 5e6
        assert not spec.weights


def test_they_are_saved_and_loaded_like_the_zoos(tmp_path: object) -> None:
    model = cifarzoo.create_model("torchvision:shufflenet_v2_x0_5", num_classes=3, seed=0)
    path = cifarzoo.save_weights(model, f"{tmp_path}/w.safetensors")
    again = cifarzoo.load_model(path)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.eval()(images), again.eval()(images))


def test_they_are_listed_when_asked_for_only() -> None:
    assert not any(":" in name for name in cifarzoo.list_models())
    assert "timm:resnet18" in cifarzoo.list_models("timm:resnet*")
    assert "torchvision:resnet18" in cifarzoo.list_models("torchvision:*")
    assert cifarzoo.list_models("torchvision:*", pretrained=True) == []
    assert cifarzoo.list_models("elsewhere:*") == []


def test_unknown_names_there_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model of torchvision 'resnet17'; did you"):
        cifarzoo.create_model("torchvision:resnet17")
    with pytest.raises(UnknownNameError, match="unknown model 'elsewhere:resnet18'"):
        cifarzoo.create_model("elsewhere:resnet18")


@pytest.mark.usefixtures("own_registries")
def test_a_colon_is_for_other_packages() -> None:
    facts = {"description": "A test.", "source": "here", "parameters": 1, "macs": 1}
    with pytest.raises(ArgumentError, match="'my:net' has a colon"):
        cifarzoo.register_model(name="my:net", **facts)(  # type: ignore[arg-type]
            lambda *, num_classes=10: nn.Identity()
        )
    with pytest.raises(DuplicateNameError, match="'timm' is already registered"):
        register_source("timm", list, lambda name: cifarzoo.get_model_info("simple"))


def test_a_network_of_another_package_trains() -> None:
    name = "torchvision:shufflenet_v2_x0_5"
    model = cifarzoo.create_model(name, seed=0)
    recipe = cifarzoo.get_model_info(name).recipe.replace(epochs=1, batch_size=50, image_sizes=())
    images = cifarzoo.load_sample("train").subset(range(100))
    history = cifarzoo.Trainer(model, recipe).fit(images)
    assert len(history) == 1
