"""Weights of other people fill our networks: what fits is loaded, all else is refused."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from peers import PEERS, chenyaofo, filled, huyvnphan
from torch import Tensor, nn

import cifarzoo
from cifarzoo import Preprocessing
from cifarzoo.errors import ArgumentError, WeightsError

HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def some_images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def simple() -> nn.Module:
    return cifarzoo.create_model("simple", seed=3)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peers_network_answers_as_at_home(peer: str) -> None:
    build, name, options, side = PEERS[peer]
    theirs = filled(build())
    ours = cifarzoo.create_model(name, pretrained=theirs.state_dict(), preprocessing=HALF).eval()
    card = cifarzoo.get_card(ours)
    with torch.no_grad():
        expected = theirs(some_images(side))
        torch.testing.assert_close(ours(some_images(side)), expected, rtol=1e-4, atol=1e-4)
    assert card.options == options
    assert card.num_classes == expected.shape[1]
    assert (card.classes is not None) is (card.num_classes == 10)
    assert card.preprocessing == HALF


def test_what_was_renamed_is_told() -> None:
    theirs = {f"module.{k}": v for k, v in filled(PEERS["akamaster"][0]()).state_dict().items()}
    content = {"state_dict": theirs, "best_prec1": 91.7, "epoch": 200, "optimizer": [torch.ones(2)]}
    facts = cifarzoo.load_weights(cifarzoo.create_model("resnet20"), content, preprocessing=HALF)
    assert facts["chosen"] == "state_dict.module"
    assert facts["renamed"] == {"linear.weight": "fc.weight", "linear.bias": "fc.bias"}
    assert "akamaster" in facts["layout"]
    assert facts["left"] == ["optimizer"]


def test_an_assumed_normalization_is_told(caplog: pytest.LogCaptureFixture) -> None:
    theirs = filled(PEERS["akamaster"][0]()).state_dict()
    cifarzoo.create_model("resnet20", pretrained=theirs)
    assert "how its images were normalized is not in it" in caplog.text
    assert "2 names translated as kuangliu/pytorch-cifar, akamaster" in caplog.text
    caplog.clear()
    cifarzoo.create_model("resnet20", pretrained=theirs, preprocessing=HALF)
    assert caplog.text == ""


def test_shortcuts_are_chosen_by_the_names_in_the_file() -> None:
    theirs = filled(chenyaofo()).state_dict()
    model = cifarzoo.create_model("resnet20", pretrained=theirs, preprocessing=HALF)
    assert cifarzoo.get_card(model).options == {"shortcut": "conv"}
    assert sum(p.numel() for p in model.parameters()) == 272_474
    for padded in (
        lambda: cifarzoo.create_model("resnet20", pretrained=theirs, shortcut="pad"),
        lambda: cifarzoo.load_weights(cifarzoo.create_model("resnet20"), theirs),
    ):
        with pytest.raises(WeightsError, match=r"create_model\('resnet20', shortcut='conv'\)"):
            padded()
    padded_weights = cifarzoo.create_model("resnet20", seed=0).state_dict()
    with pytest.raises(WeightsError, match=r"create_model\('resnet20'\)\. Build that"):
        cifarzoo.create_model("resnet20", pretrained=padded_weights, shortcut="conv")


def test_chosen_shortcuts_travel_with_the_weights(tmp_path: Any) -> None:
    model = cifarzoo.create_model("resnet20", shortcut="conv", seed=0)
    path = cifarzoo.save_weights(model, tmp_path / "conv.safetensors")
    assert equal(cifarzoo.load_model(path), model)
    with pytest.raises(WeightsError, match=r"build it by create_model\('resnet20', shortcut='conv"):
        cifarzoo.load_weights(cifarzoo.create_model("resnet20"), path)
    with pytest.raises(WeightsError, match=r"build it by create_model\('resnet20', shortcut='conv"):
        cifarzoo.create_model("resnet32", pretrained=path)


def test_shortcuts_are_padded_or_convolutions() -> None:
    with pytest.raises(ArgumentError, match="shortcut must be 'pad' or 'conv'; got 'A'"):
        cifarzoo.create_model("resnet20", shortcut="A")


def settled(network: nn.Module) -> nn.Module:
    """``network`` with the running statistics of images, as training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    images = cifarzoo.load_sample("train").images[:16]
    with torch.no_grad():
        network.train()(cifarzoo.CIFAR10_PREPROCESSING.normalize(images))
    return network.eval()


def test_pooling_after_the_stem_shows_in_the_running_statistics() -> None:
    """No name and no shape tells it; unnoticed, every answer would be wrong."""
    torch.manual_seed(0)
    theirs = settled(huyvnphan())
    ours = cifarzoo.create_model("resnet18_cifar", pretrained=theirs.state_dict()).eval()
    assert cifarzoo.get_card(ours).options == {"pool": "max"}
    with torch.no_grad():
        torch.testing.assert_close(ours(some_images()), theirs(some_images()), rtol=1e-4, atol=1e-4)
    plain = cifarzoo.create_model("resnet18_cifar")
    with pytest.raises(WeightsError, match=r"are those of create_model\(.*, pool='max'\)"):
        cifarzoo.load_weights(plain, theirs.state_dict())
    again = settled(plain).state_dict()
    unpooled = cifarzoo.create_model("resnet18_cifar", pretrained=again)
    assert cifarzoo.get_card(unpooled).options == {}
    meant = cifarzoo.create_model("resnet18_cifar", pretrained=again, pool="max")
    assert cifarzoo.get_card(meant).options == {"pool": "max"}


@pytest.mark.parametrize("num_classes", [2, 10])
def test_a_foreign_file_fills_all_but_the_head_of_a_network_for_other_classes(
    num_classes: int,
) -> None:
    theirs = filled(PEERS["chenyaofo, CIFAR-100"][0]()).state_dict()
    model = cifarzoo.create_model(
        "resnet32", pretrained=theirs, num_classes=num_classes, seed=5, preprocessing=HALF
    )
    fresh = cifarzoo.create_model("resnet32", num_classes=num_classes, shortcut="conv", seed=5)
    for name, tensor in model.state_dict().items():
        expected = fresh.state_dict()[name] if name.startswith("fc.") else theirs[name]
        assert torch.equal(tensor, expected), name
    assert cifarzoo.get_card(model).num_classes == num_classes
    with pytest.raises(WeightsError, match=r"create_model\('resnet32', .*num_classes=100\)"):
        cifarzoo.load_weights(fresh, theirs)
    cifarzoo.load_weights(fresh, theirs, new_head=True)
    assert equal(fresh, model)


def test_counters_of_batches_may_be_missing() -> None:
    """Torch had none before version 0.4.1, and fills them in itself."""
    theirs = cifarzoo.create_model("deep_bn", seed=1)
    old = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(theirs.state_dict())
    assert equal(cifarzoo.create_model("deep_bn", pretrained=old), theirs)


def test_names_of_the_users_own_are_translated(simple: nn.Module) -> None:
    theirs = {
        name.replace("fc3.", "classifier.").replace("conv1.weight", "first"): tensor
        for name, tensor in simple.state_dict().items()
    }
    rename = {"classifier": "fc3", "first": "conv1.weight"}
    other = cifarzoo.create_model("simple", pretrained={"net": theirs}, rename=rename)
    assert equal(other, simple)
    facts = cifarzoo.load_weights(other, theirs, rename=rename)
    assert facts["renamed"]["classifier.bias"] == "fc3.bias"
    body = {f"body.{k}": v for k, v in simple.state_dict().items()}
    cifarzoo.load_weights(other, body | {"loss": torch.ones(3)}, rename={"body.": ""}, key=None)
    with pytest.raises(WeightsError, match="rename names clasifier, which the state dict does not"):
        cifarzoo.load_weights(other, theirs, rename={**rename, "clasifier": "fc3"})


def test_half_a_fit_is_refused_and_changes_nothing(simple: nn.Module) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    before = copy.deepcopy(model)
    good = simple.state_dict()
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({k: v for k, v in good.items() if k != "fc2.bias"}, "missing in the file: fc2.bias"),
        ({**good, "extra.weight": torch.ones(2)}, "unknown to the model: extra.weight"),
        (
            {**good, "fc1.bias": good["fc1.bias"].int()},
            r"numbers of another kind: fc1.bias \(file torch.int32",
        ),
        ({**good, "fc1.bias": good["fc1.bias"] * torch.nan}, "NaN or infinite.*: fc1.bias"),
        ({**good, "fc1.bias": good["fc1.bias"] + torch.inf}, "NaN or infinite.*: fc1.bias"),
        ({**good, "fc1.bias": good["fc1.bias"][:5]}, r"other shape: fc1.bias \(file \(5,\)"),
    ]
    for content, reason in cases:
        for wrapped in (content, {"model": {f"module.{k}": v for k, v in content.items()}}):
            with pytest.raises(WeightsError, match=reason):
                cifarzoo.load_weights(model, wrapped)
            assert equal(model, before)
    assert cifarzoo.get_card(model) == cifarzoo.get_card(before)


def test_running_statistics_are_finite() -> None:
    theirs = cifarzoo.create_model("deep_bn").state_dict()
    theirs["bn_conv1.running_var"] = torch.full((20,), torch.inf)
    with pytest.raises(WeightsError, match=r"NaN or infinite.*bn_conv1\.running_var"):
        cifarzoo.create_model("deep_bn", pretrained=theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_are_loaded_in_the_type_of_the_model(simple: nn.Module, dtype: torch.dtype) -> None:
    theirs = {name: tensor.to(dtype) for name, tensor in simple.state_dict().items()}
    model = cifarzoo.create_model("simple", pretrained=theirs)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, theirs[name].float())


def test_a_state_dict_may_hold_arrays(simple: nn.Module) -> None:
    arrays = {name: tensor.numpy() for name, tensor in simple.state_dict().items()}
    assert equal(cifarzoo.create_model("simple", pretrained=arrays), simple)


def test_a_network_is_no_state_dict(simple: nn.Module) -> None:
    with pytest.raises(ArgumentError, match=r"got a Simple: pass its state_dict\(\)"):
        cifarzoo.load_weights(simple, simple)  # type: ignore[arg-type]  # the test's point
    with pytest.raises(ArgumentError, match=r"pass its state_dict\(\)"):
        cifarzoo.create_model("simple", pretrained=simple)  # type: ignore[arg-type]  # too
    with pytest.raises(ArgumentError, match="weights are a path or a state dict; got a int"):
        cifarzoo.load_weights(simple, 3)  # type: ignore[arg-type]  # too


def test_how_to_read_weights_is_said_with_weights() -> None:
    with pytest.raises(
        ArgumentError, match="rename needs weights to be loaded; pass them as pretrained="
    ):
        cifarzoo.create_model("simple", rename={"a": "b"})


def test_a_normalization_beside_the_network_is_not_passed_over(simple: nn.Module) -> None:
    """Networks that normalize inside, as robustness papers have them, keep it in their files."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.full((3, 1, 1), 0.2)
    content = {
        "model": {
            **{f"module.model.{k}": v for k, v in simple.state_dict().items()},
            "module.normalizer.new_mean": mean,
            "module.normalizer.new_std": std,
        }
    }
    with pytest.raises(WeightsError, match=re.escape("new_mean [0.4, 0.5, 0.6]")):
        cifarzoo.create_model("simple", pretrained=content)
    stated = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    model = cifarzoo.create_model("simple", pretrained=content, preprocessing=stated)
    assert equal(model, simple)
    assert cifarzoo.get_card(model).preprocessing == stated
