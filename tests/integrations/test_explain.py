"""Grad-CAM, captum and feature extractors see through the networks of the zoo."""

from __future__ import annotations

from typing import Any

import howto
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from torch import Tensor

import cifarzoo


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return howto.run("explain")


def enlarged(coarse: Tensor) -> Tensor:
    """captum's map (B, 1, H, W) as the other package shows it: (B, 32, 32) in 0..1."""
    fine = F.interpolate(coarse.detach().relu(), (32, 32), mode="bilinear")[:, 0]
    fine = fine - fine.amin((1, 2), keepdim=True)
    return fine / (fine.amax((1, 2), keepdim=True) + 1e-7)


def test_both_packages_have_the_same_grad_cam(page: dict[str, Any]) -> None:
    found = torch.from_numpy(page["maps"])
    torch.testing.assert_close(found, enlarged(page["coarse"]), rtol=0, atol=1e-5)
    assert page["picture"].shape == (32, 32, 3)
    assert abs(page["why_dog"] - page["maps"]).max() > 0.1


def test_pixels_add_up_to_the_logit(page: dict[str, Any]) -> None:
    model, batch, classes = page["model"], page["batch"], page["classes"]
    with torch.no_grad():
        gained = model(batch) - model(torch.zeros_like(batch))
    gained = gained.gather(1, classes[:, None])[:, 0]
    added = page["pixels"].sum((1, 2, 3)).float()
    torch.testing.assert_close(added, gained, rtol=0.02, atol=0.1)
    assert (page["rest"].abs() < 0.1 + 0.02 * gained.abs()).all()


@pytest.mark.parametrize(
    ("name", "layer"),
    [("airbench94", "group3"), ("resnet18_cifar", "layer4"), ("seresnet20", "layer3")],
)
def test_the_packages_agree_on_other_networks(name: str, layer: str) -> None:
    weights = name in cifarzoo.list_models(pretrained=True)
    model = cifarzoo.create_model(name, pretrained=weights, seed=0).eval()
    part = model.get_submodule(layer)
    images = cifarzoo.load_sample("test").images[:4]
    batch = cifarzoo.get_card(model).preprocessing.normalize(images)
    with GradCAM(model, target_layers=[part]) as cam:
        found = torch.from_numpy(cam(batch, targets=None))
    coarse = LayerGradCam(model, part).attribute(batch, target=model(batch).argmax(1))
    torch.testing.assert_close(found, enlarged(coarse), rtol=0, atol=1e-4)


def test_features_of_the_last_layer_and_of_others() -> None:
    page = howto.run("features")
    sample, model = page["sample"], page["model"]
    label = sample.labels[0]
    assert (sample.labels[page["nearest"]] == label).float().mean() > 0.5
    vectors = cifarzoo.embeddings(model, sample)
    is_animal = ((sample.labels >= 2) & (sample.labels <= 7)).numpy()
    assert page["probe"].score(vectors, is_animal) > 0.95
    assert {name: tuple(found.shape) for name, found in page["maps"].items()} == {
        "middle": (8, 32, 16, 16),
        "late": (8, 64, 8, 8),
    }
    expected = cifarzoo.embeddings(model, sample.images[:8], precision="float32")
    torch.testing.assert_close(page["maps"]["late"].mean((2, 3)), expected, rtol=1e-3, atol=1e-4)
