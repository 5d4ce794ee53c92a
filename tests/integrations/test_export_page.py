"""What the how-to page exports runs elsewhere, with the same answers."""

from __future__ import annotations

from pathlib import Path

import howto
import onnx
import pytest
import torch

import cifarzoo


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_both_files_answer_as_the_network_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = howto.run("export")
    model, images = page["model"], torch.from_numpy(page["images"])
    with torch.no_grad():
        expected = model.eval()(cifarzoo.get_card(model).preprocessing.normalize(images))
    torch.testing.assert_close(torch.from_numpy(page["logits"]), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(page["found"], expected, rtol=1e-4, atol=1e-4)
    assert page["card"]["classes"] == page["classes"] == list(cifarzoo.CIFAR10_CLASSES)
    (found,) = (each.version for each in onnx.load(page["older"]).opset_import if not each.domain)
    assert found == 18
