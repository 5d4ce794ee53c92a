from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from cifarzoo import ImageSet, load_sample
from cifarzoo.errors import ArgumentError
from cifarzoo.zoo.card import CIFAR10_CLASSES

CHECKSUMS = {
    "train": "49729379adbc0efb53c950aade0698a013d0eb527d42f4d43a11676a5c8f62b2",
    "test": "533410b608537fd16fc8193ca5ae2f26acc7cf9d77d6772fa3a9e0f13abe291c",
}


@pytest.mark.parametrize(("split", "members"), [("train", 200), ("test", 100)])
def test_sample_is_balanced(split: str, members: int, request: pytest.FixtureRequest) -> None:
    images: ImageSet = request.getfixturevalue(f"sample_{split}")
    assert images.images.shape == (10 * members, 3, 32, 32)
    assert images.labels.bincount().tolist() == [members] * 10
    assert images.classes == CIFAR10_CLASSES
    assert images.name == f"cifar10 sample {split}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_never_changes(split: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(f"sample_{split}").sha256() == CHECKSUMS[split]


def test_sample_is_of_training_images_unless_asked(sample_train: ImageSet) -> None:
    assert load_sample().sha256() == sample_train.sha256()


def test_samples_share_no_image(sample_train: ImageSet, sample_test: ImageSet) -> None:
    train, test = (
        {bytes(image.flatten().tolist()) for image in images.images}
        for images in (sample_train, sample_test)
    )
    assert len(train) == 2000
    assert len(test) == 1000
    assert not train & test


@pytest.mark.realdata
@pytest.mark.parametrize(("split", "members"), [("train", 200), ("test", 100)])
def test_sample_is_the_first_official_images_of_each_class(
    split: str, members: int, real_root: Path | None, request: pytest.FixtureRequest
) -> None:
    if real_root is None:
        pytest.skip("$CIFARZOO_DATA does not point at the official files")
    official: ImageSet = request.getfixturevalue(f"cifar_{split}")
    firsts = [(official.labels == label).nonzero().flatten()[:members] for label in range(10)]
    expected = official.subset(torch.cat(firsts).sort().values)
    assert load_sample(split).sha256() == expected.sha256()  # type: ignore[arg-type]  # parametrized


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ArgumentError, match="split must be 'train' or 'test'; got 'val'"):
        load_sample("val")  # type: ignore[arg-type]  # the point


def test_sample_adds_at_most_six_megabytes_to_the_package() -> None:
    files = list((resources.files("cifarzoo.data") / "sample").iterdir())
    assert {file.name for file in files} == {"labels.json", "test.webp", "train.webp"}
    assert sum(len(file.read_bytes()) for file in files) <= 6_000_000
