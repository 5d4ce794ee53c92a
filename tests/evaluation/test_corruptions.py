"""Corruptions: laws of each, and against other implementations where there is one."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.errors import ArgumentError, InputError, UnknownNameError
from cifarzoo.evaluation import corrupt, corruptions, evaluate_robustness
from cifarzoo.evaluation.corruptions import CORRUPTIONS
from cifarzoo.evaluation.robustness import RobustnessReport

FIFTEEN = {
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}

each_corruption = pytest.mark.parametrize("name", sorted(FIFTEEN))


@pytest.fixture(scope="module")
def images(sample_test: ImageSet) -> Tensor:
    return sample_test.images[::20]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


def test_there_are_the_fifteen_of_the_benchmark() -> None:
    assert {*CORRUPTIONS} == FIFTEEN


@each_corruption
def test_images_change_more_with_severity_and_the_input_stays(name: str, images: Tensor) -> None:
    before = images.clone()
    slight, strong = corrupt(images, name, 1), corrupt(images, name, 5)
    assert torch.equal(images, before)
    for changed in (slight, strong):
        assert changed.dtype == torch.uint8
        assert changed.shape == images.shape
    assert 0 < distance(slight, images) < 80
    assert distance(strong, images) < 80
    if name != "elastic_transform":  # whose first severity moves the image most, by definition
        assert distance(slight, images) < distance(strong, images)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@each_corruption
def test_torchs_default_dtype_changes_nothing(
    name: str, images: Tensor, request: pytest.FixtureRequest
) -> None:
    expected = corrupt(images, name, 4)
    request.getfixturevalue("double")
    assert torch.equal(corrupt(images, name, 4), expected)


@each_corruption
def test_the_seed_decides(name: str, images: Tensor) -> None:
    state = torch.get_rng_state()
    first, again = (corrupt(images, name, 3, seed=1) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    draws = name not in (
        *("defocus_blur", "zoom_blur", "brightness", "contrast"),
        *("pixelate", "jpeg_compression"),
    )
    assert torch.equal(first, corrupt(images, name, 3, seed=2)) != draws


def test_images_are_drawn_for_one_by_one(images: Tensor) -> None:
    twice = images[:1].repeat(2, 1, 1, 1)
    for name in ("fog", "snow", "frost", "motion_blur", "glass_blur", "elastic_transform"):
        one, other = corrupt(twice, name, 5)
        assert not torch.equal(one, other), name


def test_gaussian_noise_has_its_spread() -> None:
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    for severity, spread in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1):
        found = corrupt(grey, "gaussian_noise", severity).float().std() / 255
        assert float(found) == pytest.approx(spread, rel=0.02)


def test_shot_noise_is_poissons() -> None:
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = corrupt(grey, "shot_noise", 3).float() / 255
    assert float(noisy.mean()) == pytest.approx(128 / 255, abs=0.003)
    assert float(noisy.var()) == pytest.approx(128 / 255 / 100, rel=0.03)


def test_impulse_noise_hits_its_share() -> None:
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = corrupt(grey, "impulse_noise", 5)
    assert float((noisy == 0).float().mean()) == pytest.approx(0.035, abs=0.003)
    assert float((noisy == 255).float().mean()) == pytest.approx(0.035, abs=0.003)


def test_brightness_is_that_of_the_hsv_space(images: Tensor) -> None:
    found = corrupt(images[:2], "brightness", 4)
    for before, after in zip(images[:2], found, strict=True):
        for row, column in ((0, 0), (7, 21), (16, 16), (31, 4)):
            red, green, blue = (float(x) / 255 for x in before[:, row, column])
            hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2))
            np.testing.assert_allclose(after[:, row, column] / 255, expected, atol=1.01 / 255)


def test_contrast_keeps_the_mean_of_each_channel(images: Tensor) -> None:
    found = corrupt(images, "contrast", 5).float()
    torch.testing.assert_close(found.mean((2, 3)), images.float().mean((2, 3)), atol=1.0, rtol=0)
    ratio = found.std((2, 3)) / images.float().std((2, 3))
    assert float(ratio.median()) == pytest.approx(0.15, abs=0.01)


def test_gaussian_blur_is_scipys(images: Tensor) -> None:
    x = images[:3].float() / 255
    found = corruptions._gaussian_blur(x, 1.3)
    expected = scipy.ndimage.gaussian_filter(
        x.numpy(), sigma=(0, 0, 1.3, 1.3), mode="nearest", truncate=4
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_zoom_is_scipys(images: Tensor) -> None:
    image = images[0].float() / 255
    found = corruptions._zoom(image[None], 1.2)[0]
    middle = image[:, 2:29, 2:29].numpy()  # 27 pixels, as 32 / 1.2 rounded up
    large = scipy.ndimage.zoom(middle, (1, 1.2, 1.2), order=1)
    np.testing.assert_allclose(found.numpy(), large[:, :32, :32], atol=1e-5)


def test_blurs_leave_an_even_image_alone() -> None:
    even = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    blurs = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate")
    for name in (*blurs, "elastic_transform"):
        assert distance(corrupt(even, name, 5), even) <= 1, name


@pytest.mark.parametrize(
    ("severity", "end"), [(1, 1.06), (2, 1.11), (3, 1.16), (4, 1.21), (5, 1.26)]
)
def test_zoom_blur_is_the_mean_of_the_published_zooms(
    severity: int, end: float, images: Tensor
) -> None:
    x = images[:2].float() / 255
    views = [x, *(corruptions._zoom(x, float(zoom)) for zoom in np.arange(1, end, 0.01))]
    expected = 255 * torch.stack(views).mean(0)
    found = corrupt(images[:2], "zoom_blur", severity).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1.01)


def test_motion_blur_moves_along_its_direction() -> None:
    dot = torch.zeros(3, 1, 32, 32)
    dot[:, :, 16, 16] = 1
    angles = torch.tensor([0.0, 90.0, 45.0])
    along = corruptions._blur_along(dot, 6, 2.0, angles)[:, 0]
    torch.testing.assert_close(along.sum((1, 2)), torch.ones(3))
    horizontal, vertical, diagonal = (x.nonzero() for x in along)
    assert set(horizontal[:, 0].tolist()) == {16}
    assert set(vertical[:, 1].tolist()) == {16}
    assert (diagonal[:, 0] == diagonal[:, 1]).all()
    assert len(horizontal) == len(vertical) == 13


def test_clouds_fill_the_range_and_differ() -> None:
    clouds = corruptions._plasma(4, 32, 2.0, torch.Generator().manual_seed(0))
    assert torch.equal(clouds.amin((1, 2)), torch.zeros(4))
    assert torch.equal(clouds.amax((1, 2)), torch.ones(4))
    # neighbours are alike, as in clouds
    assert (clouds[:, 1:] - clouds[:, :-1]).abs().mean() < 0.15
    assert distance(clouds[0], clouds[1]) > 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("fogg", 1), UnknownNameError, "did you mean 'fog'"),
        (("fog", 0), ArgumentError, "severity must be 1, 2, 3, 4 or 5; got 0"),
        (("fog", 6), ArgumentError, "got 6"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: Any, error: type[Exception], message: str, images: Tensor
) -> None:
    with pytest.raises(error, match=message):
        corrupt(images, *arguments)


def test_other_images_are_refused(images: Tensor) -> None:
    for wrong in (images.float(), images[:, :, :16], images[0]):
        with pytest.raises(InputError, match=r"uint8 images \(N, 3, 32, 32\)"):
            corrupt(wrong, "fog", 1)


def test_robustness_is_the_accuracy_on_corrupted_images(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    place: Any = {"device": "cpu", "precision": "float32"}
    report = evaluate_robustness(
        model, few, corruptions=["fog", "contrast"], severities=[2, 5], **place
    )
    assert report.clean_accuracy == cifarzoo.evaluate(model, few, **place).accuracy
    changed = ImageSet(corrupt(few.images, "contrast", 5), few.labels, few.classes)
    assert report.accuracies["contrast"][1] == cifarzoo.evaluate(model, changed, **place).accuracy
    flat = [a for row in report.accuracies.values() for a in row]
    assert report.mean_accuracy == pytest.approx(sum(flat) / 4)
    assert RobustnessReport.from_dict(report.to_dict()) == report
    text = str(report)
    assert f"{report.mean_accuracy:.2%}" in text
    assert "contrast" in text


def test_robustness_refuses_before_any_pass(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple")
    with pytest.raises(UnknownNameError):
        evaluate_robustness(model, few, corruptions=["fog", "nothing"])
    with pytest.raises(ArgumentError):
        evaluate_robustness(model, few, severities=[1, 9])


@pytest.mark.parametrize("nothing", ["corruptions", "severities"])
def test_nothing_to_measure_is_refused(nothing: str, few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="must have one or more entries"):
        evaluate_robustness(cifarzoo.create_model("simple"), few, **{nothing: []})
