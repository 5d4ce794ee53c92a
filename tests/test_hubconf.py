"""torch.hub finds the zoo in a checkout."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cifarzoo

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_checkout_serves_torch_hub_with_its_own_package(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "path = list(sys.path)\n"
        f"model = torch.hub.load({str(ROOT)!r}, 'resnet20', source='local', pretrained=True)\n"
        "import cifarzoo\n"
        f"assert cifarzoo.__file__.startswith({str(ROOT)!r}), cifarzoo.__file__\n"
        "expected = cifarzoo.create_model('resnet20', pretrained=True).state_dict()\n"
        "for name, tensor in model.state_dict().items(): assert tensor.equal(expected[name])\n"
        "assert path == sys.path\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_torch_hub_lists_the_models_and_nothing_else() -> None:
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entries = {n for n, x in vars(module).items() if callable(x) and not n.startswith("_")}
    assert entries == {*cifarzoo.list_models()}
    assert cifarzoo.get_model_info("simple").description in module.simple.__doc__


def test_torch_hub_takes_the_options_of_create_model() -> None:
    model = torch.hub.load(str(ROOT), "resnet20", source="local", num_classes=7, shortcut="conv")
    assert cifarzoo.get_card(model).options == {"shortcut": "conv"}
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(ValueError, match="no pretrained weights"):
        torch.hub.load(str(ROOT), "resnet110", source="local", pretrained=True)
