"""What is particular to a family, and the sizes that papers and peers state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peers import filled
from torch import Tensor, nn

import cifarzoo
from cifarzoo.errors import ArgumentError
from cifarzoo.models import MixingBlock, PreActResNet, RepVGG, ShakeBlock, fuse_branches
from cifarzoo.models.shakeshake import ShiftedShortcut

# parameters in millions and MACs in millions, as the papers and the peers' tables have them:
# He et al. 2015, table 6; Zagoruyko & Komodakis 2016, table 4; chenyaofo/pytorch-cifar-models,
# README; osmr/imgclsmob, the counts in its tests; open-mmlab/mmpretrain, configs/resnet
PUBLISHED = {
    "resnet20": (0.27, 41),
    "resnet32": (0.46, 69),
    "resnet44": (0.66, 97),
    "resnet56": (0.85, 125),
    "resnet110": (1.73, 253),
    "resnet18_cifar": (11.17, 555),
    "resnet34_cifar": (21.28, 1159),
    "resnet50_cifar": (23.52, 1298),
    "resnet101_cifar": (42.51, 2510),
    "resnet152_cifar": (58.16, 3722),
    "wrn16_2": (0.69, 101),
    "wrn16_4": (2.75, 393),
    "wrn16_8": (10.96, 1548),
    "wrn28_10": (36.48, 5243),
    "wrn40_1": (0.56, 83),
    "wrn40_2": (2.24, 328),
    "wrn40_4": (8.95, 1299),
    "vgg11_bn": (9.23, 153),
    "mobilenetv2": (2.24, 88),
    "mobilenetv2_x0_5": (0.70, 28),
    "mobilenetv2_x0_75": (1.37, 59),
    "mobilenetv2_x1_4": (4.33, 170),
    "shufflenetv2_x0_5": (0.35, 11),
    "shufflenetv2_x1_0": (1.26, 45),
    "shufflenetv2_x1_5": (2.49, 94),
    "shufflenetv2_x2_0": (5.37, 188),
    "repvgg_a0": (7.84, 489),
    "repvgg_a1": (12.82, 851),
    "repvgg_a2": (26.82, 1850),
    "convmixer256_8": (0.59, 149),
    "cct_7_3x1": (3.76, 1183),
}
# exactly, as the tests in osmr/imgclsmob, pytorch/pytorchcv/models, count them; the last as its
# README does
COUNTED = {
    "preresnet20": 272_282,
    "preresnet56": 855_578,
    "preresnet110": 1_730_522,
    "preresnet164": 1_703_258,
    "seresnet20": 274_847,
    "seresnet56": 862_889,
    "wrn28_10": 36_479_194,
    "densenet_bc40_k12": 176_122,
    "densenet_bc100_k12": 769_162,
    "resnext29_32x4d": 4_775_754,
    "pyramidnet110_a48": 1_772_706,
    "pyramidnet110_a84": 3_904_446,
    "shakeshake26_2x32d": 2_923_162,
    "tiniest": 97_530,
}


def noise(count: int, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    parameters, macs = PUBLISHED[name]
    spec = cifarzoo.get_model_info(name)
    assert round(spec.parameters / 1e6, 2) == parameters
    assert spec.macs / 1e6 == pytest.approx(macs, abs=0.7)


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_those_of_the_peer(name: str) -> None:
    assert cifarzoo.get_model_info(name).parameters == COUNTED[name]


def test_at_least_forty_networks_are_registered() -> None:
    assert len(cifarzoo.list_models()) >= 40


def test_models_of_a_family_differ_by_sizes_that_are_no_options() -> None:
    small, large = (cifarzoo.get_model_info(name) for name in ("wrn16_2", "wrn40_4"))
    assert small.family == large.family == "wrn"
    assert small.options == large.options == {"dropout": 0.0}
    assert small.builder.__name__ == "wrn16_2"
    with pytest.raises(ArgumentError, match=r"unknown option 'depth' of model 'wrn16_2'"):
        cifarzoo.create_model("wrn16_2", depth=22)


@pytest.mark.parametrize("name", ["wrn16_2", "preact_resnet18", "preresnet164"])
def test_a_pre_activated_network_passes_its_input_on_unchanged(name: str) -> None:
    """He et al. 2016, equation 5: what the blocks add stands beside the input of the first."""
    model = cifarzoo.create_model(name, seed=0).eval()
    assert isinstance(model, PreActResNet)
    with torch.no_grad():
        for layer_name, layer in model.named_modules():
            if layer_name.endswith(("conv2", "conv3")) and isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
        x = model.layer1(model.conv1(noise(2)))
        last = list(model.layer1)[1:]
        again = x
        for block in last:
            again = block(again)
        assert torch.equal(again, x)


def test_dropout_is_active_in_training_only() -> None:
    model = cifarzoo.create_model("wrn16_2", seed=0, dropout=0.3)
    torch.manual_seed(0)
    first, second = model(noise(4)), model(noise(4))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(noise(4)), model(noise(4)))
    with pytest.raises(ArgumentError, match="dropout must be at least 0 and below 1; got 1"):
        cifarzoo.create_model("wrn16_2", dropout=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_branches_give_the_same_logits(dtype: torch.dtype) -> None:
    model = filled(cifarzoo.create_model("repvgg_a0", seed=0)).to(dtype)
    assert isinstance(model, RepVGG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = fuse_branches(model)
    images = noise(3).to(dtype)
    with torch.no_grad():
        expected = model(images)
        scale = expected.abs().max()
        torch.testing.assert_close(plain(images) / scale, expected / scale, rtol=0, atol=1e-4)
    convolutions = [m for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 22
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert not plain.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_a_fused_network_is_saved_and_loaded_as_what_it_is(tmp_path: Path) -> None:
    model = cifarzoo.create_model("repvgg_a0", num_classes=3, seed=0)
    assert isinstance(model, RepVGG)
    plain = fuse_branches(model)
    cifarzoo.save_weights(plain, tmp_path / "plain.safetensors")
    again = cifarzoo.load_model(tmp_path / "plain.safetensors").eval()
    assert cifarzoo.get_card(again).options == {"form": "plain"}
    assert torch.equal(again(noise(2)), plain(noise(2)))
    with pytest.raises(ArgumentError, match="RepVGG of form 'plain'"):
        fuse_branches(plain)


def test_shares_of_the_branches_are_drawn_in_training_for_value_and_gradient_apart() -> None:
    torch.manual_seed(0)
    block = ShakeBlock(4, 4)
    ones, zeros = torch.ones(64, 4, 1, 1), torch.zeros(64, 4, 1, 1)
    first = ones.clone().requires_grad_()
    block.branch1.forward = lambda x: first  # type: ignore[method-assign]
    block.branch2.forward = lambda x: zeros  # type: ignore[method-assign]
    y = block(zeros)
    y.sum().backward()
    share, back = y.detach()[:, 0, 0, 0], first.grad[:, 0, 0, 0]  # type: ignore[index]
    for drawn in (share, back):
        assert 0 <= drawn.min() < 0.1
        assert 0.9 < drawn.max() <= 1
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.12)
    assert torch.corrcoef(torch.stack((share, back)))[0, 1].abs() < 0.3
    assert torch.equal(y[:, 0], y[:, 3])  # one share for an image
    block.eval()
    assert torch.equal(block(zeros), 0.5 * ones)


def test_the_shifted_shortcut_sees_other_pixels() -> None:
    shortcut = ShiftedShortcut(1, 2, stride=2).eval()
    with torch.no_grad():
        shortcut.conv1.weight.fill_(1)
        shortcut.conv2.weight.fill_(1)
        x = torch.arange(1.0, 17).view(1, 1, 4, 4)
        y = shortcut(x) * (1 + shortcut.bn.eps) ** 0.5
    torch.testing.assert_close(y[0, 0], torch.tensor([[1.0, 3], [9, 11]]))
    torch.testing.assert_close(y[0, 1], torch.tensor([[0.0, 0], [0, 6]]))


def test_squeeze_and_excitation_scales_each_channel() -> None:
    model = cifarzoo.create_model("seresnet20", seed=0).eval()
    squeeze = model.get_submodule("layer1.0.se")
    x = torch.rand(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    ratio = squeeze(x) / x
    assert ratio.min() > 0
    assert ratio.max() < 1
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))


def test_the_pyramid_grows_by_the_same_amount_in_each_block() -> None:
    model = cifarzoo.create_model("pyramidnet110_a48")
    blocks = [*model.layer1, *model.layer2, *model.layer3]  # type: ignore[misc]
    widths = [block.conv2.out_channels for block in blocks]
    assert len(widths) == 54
    assert widths[-1] == 16 + 48
    assert {b - a for a, b in zip([16, *widths], widths, strict=False)} <= {0, 1}


def test_a_dense_layer_puts_its_output_behind_its_input() -> None:
    model = cifarzoo.create_model("densenet_bc40_k12", seed=0).eval()
    layer = model.get_submodule("block1.0")
    x = torch.randn(2, 24, 8, 8, generator=torch.Generator().manual_seed(0))
    y = layer(x)
    assert y.shape == (2, 36, 8, 8)
    assert torch.equal(y[:, :24], x)


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("mobilenetv2", "features.18", 4),
        ("shufflenetv2_x1_0", "conv5", 4),
        ("repvgg_a0", "stage4", 4),
        ("wrn16_2", "layer3", 8),
        ("densenet_bc40_k12", "block3", 8),
        ("vgg11_bn", "features", 1),
    ],
)
def test_the_last_map_is_as_large_as_the_stem_for_32_pixels_leaves_it(
    name: str, layer: str, size: int
) -> None:
    model = cifarzoo.create_model(name, seed=0).eval()
    maps: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda m, i, output: maps.append(output))
    model(noise(1))
    assert maps[0].shape[2:] == (size, size)


def test_tokens_are_weighted_by_shares_of_one() -> None:
    model = cifarzoo.create_model("cct_7_3x1", seed=0).eval()
    with torch.no_grad():
        x = model.norm(model.blocks(model.tokenizer(noise(2)) + model.positions))  # type: ignore[operator]
        weights = F.softmax(model.pool(x), 1)  # type: ignore[operator]
        expected = model.fc(torch.einsum("btc,btd->bcd", weights, x).squeeze(1))  # type: ignore[operator]
        torch.testing.assert_close(model(noise(2)), expected, rtol=1e-4, atol=1e-4)


def test_macs_of_dense_layers_are_counted_for_every_token_and_attention_too() -> None:
    """256 tokens of 256 numbers: seven blocks as Hassani et al. 2021 count them."""
    block = 256 * (256 * 768 + 256 * 256 + 256 + 2 * 256 * 512 + 768) + 2 * 4 * 256 * 256 * 64
    statistics = cifarzoo.summary(cifarzoo.create_model("cct_7_3x1"))
    convolution = 27 * 256 * 32 * 32
    assert statistics.total_mult_adds == pytest.approx(7 * block + convolution, rel=0.001)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            x = images.flatten(2).transpose(1, 2)[:, :5].repeat(1, 1, 3)[..., :8]
            return self.attention(x, x, x, need_weights=False)[0].mean(1)

    found = cifarzoo.summary(Tokens()).total_mult_adds
    assert found == 5 * 8 * (24 + 8) + 2 * 5 * 5 * 8


def test_a_gate_of_large_numbers_has_finite_gradients() -> None:
    """exp of more than 88 is infinite in float32, and the gradient through it was NaN."""
    block = MixingBlock(16)
    with torch.no_grad():
        block.expand.bias.fill_(100)
    images = noise(2).repeat(1, 6, 1, 1)[:, :16].requires_grad_()
    y = block(images)
    y.sum().backward()
    assert y.isfinite().all()
    assert images.grad is not None
    assert images.grad.isfinite().all()
