"""The page of `cifarzoo demo`, in a browser without a window; and its heat map against captum's."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from browser import find_chromium, miss, open_browser
from captum.attr import LayerGradCam
from kinds import KINDS, create_short
from PIL import Image
from torch import Tensor, nn

import cifarzoo
from cifarzoo.demo import _answer, _last_map, grad_cam
from cifarzoo.errors import ArgumentError, MissingExtraError
from cifarzoo.zoo.about import mean_accuracy

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build/demo/bin/python"  # see the Makefile


@pytest.mark.parametrize("name", KINDS)
def test_the_heat_map_is_captums(name: str) -> None:
    model = create_short(name)
    image = cifarzoo.load_sample("test").images[0]
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    found = grad_cam(model, image, 3)
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    batch = cifarzoo.get_card(model).preprocessing.normalize(image[None])
    layer = _last_map(model.eval(), batch)
    if layer is None:
        assert found is None
        assert name.startswith(("vit", "cct"))
        return
    assert found is not None
    coarse = LayerGradCam(model, layer).attribute(batch, target=3).detach()
    if name in ("densenet_bc40_k12", "pyramidnet110_a48"):
        # captum takes the maps before the ReLU that follows in place, we those after it; as they
        # are averaged and weighted by a dense layer, Grad-CAM is what came before it, CAM
        maps: list[Tensor] = []
        layer.register_forward_hook(lambda _, __, output: maps.append(output.relu()))
        model(batch)
        coarse = (cifarzoo.get_classifier(model).weight[3, :, None, None] * maps[0]).sum(1)[None]
    fine = F.interpolate(coarse.detach().relu(), (32, 32), mode="bilinear")[0, 0]
    fine = fine - fine.min()
    torch.testing.assert_close(found, fine / fine.max().clamp_min(1e-7), rtol=0, atol=1e-3)


class ChannelsLast(nn.Module):
    """A network whose last maps have their channels last, as some of timm have them."""

    def __init__(self, *, turned: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 24, 5, stride=4)
        self.mixed = nn.Linear(24, 24)
        self.turned = nn.Identity() if turned else None
        self.head = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.mixed(self.first(images).permute(0, 2, 3, 1))
        if self.turned is None:
            logits: Tensor = self.head(maps.mean((1, 2)))
        else:
            logits = self.head(self.turned(maps.permute(0, 3, 1, 2)).mean((2, 3)))
        return logits


@pytest.mark.parametrize("label", [0, 8])
def test_maps_with_their_channels_last_are_read_as_such(label: int) -> None:
    image = cifarzoo.load_sample("test").images[0]
    found, expected = (grad_cam(ChannelsLast(turned=each), image, label) for each in (False, True))
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected)


def test_an_ensemble_has_no_maps_of_its_own() -> None:
    together = cifarzoo.ensemble([create_short("resnet20"), create_short("simple")])
    with pytest.raises(ArgumentError, match="each member of an ensemble has maps of its own"):
        grad_cam(together, cifarzoo.load_sample("test").images[0], 3)


def test_a_file_that_is_written_again_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    image = cifarzoo.load_sample("test").images[0].permute(1, 2, 0).numpy()
    answers = []
    for seed in (1, 2):
        cifarzoo.save_weights(cifarzoo.create_model("simple", seed=seed), path)
        answers.append(_answer(RuntimeError, str(path), image)[0])
    assert answers[0] != answers[1]


def test_a_network_that_nobody_can_build_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    cifarzoo.save_weights(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), path)
    with pytest.raises(RuntimeError, match="'Sequential'"):
        _answer(RuntimeError, str(path), cifarzoo.load_sample("test").images[0].numpy())


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cifarzoo\[demo\]'"):
        cifarzoo.demo.launch_demo("resnet20")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `cifarzoo demo` serves its page."""
    find_chromium()
    if not PYTHON.exists():
        miss("build/demo, which `make test-all` makes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    source = str(ROOT / "src")
    environment = {**os.environ, "PYTHONPATH": source, "GRADIO_ANALYTICS_ENABLED": "False"}
    environment["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    command = [str(PYTHON), "-m", "cifarzoo", "demo", "resnet20", "--port", port, "--no-browser"]
    process = subprocess.Popen(command, env=environment)
    try:
        found = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(found, timeout=5)
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        yield found
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("width", [390, 1000])
def test_a_dropped_image_is_answered(width: int, address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    image = cifarzoo.load_sample("test").images[3]
    photo = tmp_path / "photo.png"
    Image.fromarray(image.permute(1, 2, 0).numpy()).resize((480, 320)).save(photo)
    deep = tmp_path / "deep.png"
    gray = image.float().mean(0).mul(257).numpy().astype("uint16")
    Image.fromarray(gray).save(deep)
    models = {
        name: cifarzoo.create_model(name, pretrained=True) for name in ("resnet20", "airbench94")
    }
    expected = {name: cifarzoo.predict(model, photo) for name, model in models.items()}
    weights = {name: cifarzoo.get_model_info(name).weights["default"] for name in models}
    about = {
        name: f"It is right about {mean_accuracy(info):.2%} of the test images of cifar10."
        for name, info in weights.items()
    }
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        errors: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.get_by_text(about["resnet20"])).to_be_visible(timeout=60_000)
        page.locator("input[type=file]").first.set_input_files(photo)
        answer = page.get_by_test_id("label-output-value")
        expect(answer).to_have_text(expected["resnet20"].label, timeout=60_000)
        shown = {name: f"{100 * each.probability:.0f}%" for name, each in expected.items()}
        assert shown["resnet20"] != shown["airbench94"]
        expect(page.get_by_text(shown["resnet20"])).to_be_visible()
        expect(page.get_by_text("resized from 480x320 to 32x32")).to_be_visible()
        heat = page.locator(".heat img").first
        expect(heat).to_be_visible()
        assert heat.evaluate("image => image.naturalWidth") == 320
        page.get_by_label("Network").click()
        page.get_by_role("option", name=re.compile("^airbench94.default")).click()
        expect(page.get_by_text(about["airbench94"])).to_be_visible()
        expect(page.get_by_text(shown["airbench94"])).to_be_visible(timeout=60_000)
        expect(answer).to_have_text(expected["airbench94"].label)
        # 16 bits and transparent parts reach the network as `predict` reads them
        page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
        page.locator("input[type=file]").first.set_input_files(deep)
        expect(page.get_by_text("scaled from 16 bits to 8")).to_be_visible(timeout=60_000)
        expect(answer).to_have_text(cifarzoo.predict(models["airbench94"], deep).label)
        too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(too_wide)
        if folder := os.environ.get("CIFARZOO_SCREENSHOTS"):
            page.wait_for_timeout(1000)  # until nothing fades
            page.screenshot(path=f"{folder}/demo-{width}.png", full_page=True)
    assert not errors
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()


def test_a_port_that_is_taken_is_an_error(address: str) -> None:
    port = address.rpartition(":")[2]
    command = [str(PYTHON), "-m", "cifarzoo", "demo", "simple", "--port", port, "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert f"no page can be served on 127.0.0.1:{port}; pass another --port" in result.stderr
