from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import cifarzoo
from cifarzoo import ImageSet, ModelCard
from cifarzoo.errors import ArgumentError, InputError, MissingExtraError


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["simple", pytest.param("resnet18_cifar", marks=pytest.mark.slow)])
def test_onnx_takes_pixels_and_agrees(name: str, tmp_path: Path, sample_test: ImageSet) -> None:
    model = cifarzoo.create_model(name, seed=0).train()
    path = cifarzoo.export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = sample_test.images[:5]
    (found,) = session.run(None, {"images": pixels.numpy()})
    with torch.no_grad():
        expected = model.eval()(cifarzoo.get_card(model).preprocessing.normalize(pixels))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert ModelCard.from_dict(json.loads(metadata["card"])) == cifarzoo.get_card(model)


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with warnings.catch_warnings(), pytest.raises(MissingExtraError, match=r"cifarzoo\[export\]"):
        cifarzoo.export_onnx(cifarzoo.create_model("simple"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("opset", [17, 1000, 18.5, True, "18"])
def test_an_opset_that_cannot_be_written_is_refused(opset: object, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="opset must be a whole number from 18 to"):
        cifarzoo.export_onnx(
            cifarzoo.create_model("simple"),
            tmp_path / "model.onnx",
            opset=opset,  # type: ignore[arg-type]
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_opset_that_torch_does_not_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifarzoo.export._LOWEST_OPSET", 17)  # torch's own limit stays
    with pytest.raises(ArgumentError, match="cannot write this network for opset 17, only for 18"):
        cifarzoo.export_onnx(cifarzoo.create_model("resnet20"), tmp_path / "x.onnx", opset=17)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["simple", "resnet20", "airbench94"])
def test_a_program_takes_pixels_and_agrees(
    name: str, tmp_path: Path, sample_test: ImageSet
) -> None:
    model = cifarzoo.create_model(name, seed=0).train()
    path = cifarzoo.export_program(model, tmp_path / "model.pt2")
    assert model.training
    extra = {"card": ""}
    network = torch.export.load(path, extra_files=extra).module()
    card = cifarzoo.get_card(model)
    assert ModelCard.from_dict(json.loads(extra["card"])) == card
    for count in (1, 5):
        pixels = sample_test.images[:count]
        with torch.no_grad():
            expected = model.eval()(card.preprocessing.normalize(pixels))
        torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-4)


def test_a_program_of_a_half_network_answers_in_float32(tmp_path: Path) -> None:
    network = cifarzoo.create_model("simple", seed=0).to(torch.bfloat16)
    path = cifarzoo.export_program(network, tmp_path / "w.pt2")
    logits = torch.export.load(path).module()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert logits.dtype == torch.float32


def test_a_program_with_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"ends in \.pt2; got"):
        cifarzoo.export_program(cifarzoo.create_model("simple"), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_a_size_the_network_does_not_take_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 32x32 images; got 48x48"):
        cifarzoo.export_onnx(cifarzoo.create_model("simple"), tmp_path / "m.onnx", image_size=48)


def test_the_card_in_a_file_is_that_of_the_network_as_it_is(tmp_path: Path) -> None:
    model = cifarzoo.create_model("resnet20", pretrained=True)
    model.fc = nn.Linear(64, 3)
    extra = {"card": ""}
    torch.export.load(cifarzoo.export_program(model, tmp_path / "m.pt2"), extra_files=extra)
    card = json.loads(extra["card"])
    assert (card["num_classes"], card.get("classes")) == (3, None)


def test_options_that_no_file_can_hold_are_refused(own_registries: None, tmp_path: Path) -> None:
    @cifarzoo.register_model(name="mine", description="M.", source="Me.", parameters=1, macs=1)
    def mine(*, num_classes: int = 10, act: type[nn.Module] = nn.ReLU) -> nn.Module:
        return nn.Sequential(nn.Flatten(), act(), nn.Linear(3072, num_classes))

    model = cifarzoo.create_model("mine", act=nn.GELU)
    with pytest.raises(ArgumentError, match="options of 'mine' must be plain data"):
        cifarzoo.export_program(model, tmp_path / "m.pt2")
    assert json.loads(json.dumps(cifarzoo.get_model_info("mine").to_dict()))["options"] == {
        "act": "ReLU"
    }
