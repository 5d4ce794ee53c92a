from __future__ import annotations

import torch
import torchvision

import cifarzoo


def test_resnet18_is_torchvisions_network() -> None:
    ours = cifarzoo.create_model("resnet18", num_classes=1000, seed=0).eval()
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_resnet18_lists_itself_as_torchvisions_does() -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    assert str(cifarzoo.create_model("resnet18")) == str(theirs)


def test_cifar_stem_keeps_the_resolution() -> None:
    statistics = cifarzoo.summary(cifarzoo.create_model("resnet18_cifar"))
    shapes = {layer.var_name: layer.output_size for layer in statistics.summary_list}
    assert shapes["layer1"] == [1, 64, 32, 32]
    assert shapes["layer4"] == [1, 512, 4, 4]


def test_small_resnet_has_the_papers_layers_and_size() -> None:
    """Section 4.2: 6n + 2 layers, 0.27 M parameters, shortcuts without any."""
    model = cifarzoo.create_model("resnet20")
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 20
    assert round(cifarzoo.get_model_info("resnet20").parameters / 1e6, 2) == 0.27
    statistics = cifarzoo.summary(model)
    shapes = {layer.var_name: layer.output_size for layer in statistics.summary_list}
    expected = {"layer1": [1, 16, 32, 32], "layer2": [1, 32, 16, 16], "layer3": [1, 64, 8, 8]}
    assert {name: shapes[name] for name in expected} == expected


def test_padded_shortcut_keeps_every_second_pixel() -> None:
    shortcut = cifarzoo.create_model("resnet20").layer2[0].downsample  # type: ignore[index, union-attr]
    x = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    y = shortcut(x)
    assert y.shape == (1, 32, 2, 2)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() + y[:, 24:].abs().sum() == 0
