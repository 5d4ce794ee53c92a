from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

import cifarzoo
from cifarzoo import ImageSet, ModelCard
from cifarzoo.errors import InputError, MissingExtraError


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["simple", "resnet18_cifar"])
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


def test_a_size_the_network_does_not_take_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs 32x32 images; got 48x48"):
        cifarzoo.export_onnx(cifarzoo.create_model("simple"), tmp_path / "m.onnx", image_size=48)
