from __future__ import annotations

import re

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
    theirs = str(torchvision.models.resnet18(num_classes=10))
    theirs = re.sub(r"bias=(True|False), track", "track", theirs)  # newer torch versions add it
    assert str(cifarzoo.create_model("resnet18")) == theirs


def test_cifar_stem_keeps_the_resolution() -> None:
    statistics = cifarzoo.summary(cifarzoo.create_model("resnet18_cifar"))
    shapes = {layer.var_name: layer.output_size for layer in statistics.summary_list}
    assert shapes["layer1"] == [1, 64, 32, 32]
    assert shapes["layer4"] == [1, 512, 4, 4]
