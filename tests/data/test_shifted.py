"""The official files of other test sets, here written as their authors publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cifarzoo
from cifarzoo import CIFAR10_CLASSES
from cifarzoo.errors import ArgumentError, DataError, DataNotFoundError, InputError
from cifarzoo.evaluation import compare_with_humans, evaluate_robustness

TEST = 10_000
COLOURED = (0, 7, TEST - 1)


@pytest.fixture(scope="module")
def cifar10c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10-C of one corruption; three images of severity s have the colour (s, s + 10, s + 20).

    The others are black, and take no room on the disk. The labels repeat, as those of the official
    file do.
    """
    root = tmp_path_factory.mktemp("shifted")
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    pixels = np.lib.format.open_memmap(
        folder / "fog.npy", "w+", dtype=np.uint8, shape=(5 * TEST, 32, 32, 3)
    )
    for severity in range(1, 6):
        for number in COLOURED:
            pixels[(severity - 1) * TEST + number] = severity, severity + 10, severity + 20
    np.save(folder / "labels.npy", np.tile(np.arange(TEST) % 10, 5).astype(np.uint8))
    return root


@pytest.mark.parametrize("severity", [1, 3, 5, np.int16(5), np.int8(2)])
def test_a_severity_is_its_part_of_the_file(cifar10c: Path, severity: int) -> None:
    images = cifarzoo.load_cifar10c("fog", severity, root=cifar10c)
    assert images.images.shape == (TEST, 3, 32, 32)
    for number in COLOURED:
        colours = images.images[number].flatten(1).unique(dim=1)
        assert colours.flatten().tolist() == [severity, severity + 10, severity + 20]
    assert not images.images[1:7].any()
    assert images.labels[:12].tolist() == [*range(10), 0, 1]
    assert (images.name, images.classes) == (f"cifar10-c fog {severity}", CIFAR10_CLASSES)


def test_the_folder_may_be_named_itself_or_by_the_environment(
    cifar10c: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = cifarzoo.load_cifar10c("fog", 2, root=cifar10c / "CIFAR-10-C")
    monkeypatch.setenv("CIFARZOO_DATA", str(cifar10c))
    assert torch.equal(named.images, cifarzoo.load_cifar10c("fog", 2).images)


def test_robustness_by_the_official_files(cifar10c: Path) -> None:
    clean = cifarzoo.ImageSet(
        torch.zeros(TEST, 3, 32, 32, dtype=torch.uint8), torch.arange(TEST) % 10, CIFAR10_CLASSES
    )
    model = cifarzoo.create_model("simple", seed=0)
    options: dict[str, Any] = {"corruptions": ["fog"], "files": cifar10c}
    report = evaluate_robustness(model, clean, severities=[1, 2], **options)
    assert report.is_official
    assert "CIFAR-10-C files" in str(report)
    # all images are alike, so one class is right
    assert report.accuracies == {"fog": (0.1, 0.1)}
    with pytest.raises(InputError, match="show the CIFAR-10 test images"):
        evaluate_robustness(model, cifarzoo.load_sample("test"), severities=[1], **options)
    with pytest.raises(DataNotFoundError, match=r"no snow\.npy"):
        evaluate_robustness(model, clean, corruptions=["snow"], files=cifar10c)


def test_a_severity_outside_is_refused(cifar10c: Path) -> None:
    for severity in (0, 6, "1", 3.0, True):
        with pytest.raises(ArgumentError, match=r"severity must be a whole number in 1\.\.5"):
            cifarzoo.load_cifar10c("fog", severity, root=cifar10c)  # type: ignore[arg-type]  # wrong


@pytest.mark.parametrize(("version", "count"), [("v4", 2021), ("v6", 2000)])
def test_cifar10_1_is_read(tmp_path: Path, version: Any, count: int) -> None:
    pixels = np.arange(count, dtype=np.int64)[:, None, None, None] % 251
    np.save(
        tmp_path / f"cifar10.1_{version}_data.npy",
        np.broadcast_to(pixels, (count, 32, 32, 3)).astype(np.uint8),
    )
    np.save(tmp_path / f"cifar10.1_{version}_labels.npy", np.arange(count, dtype=np.int32) % 10)
    images = cifarzoo.load_cifar10_1(version, root=tmp_path)
    assert len(images) == count
    assert images.images[252].unique().tolist() == [1]
    assert images.labels.dtype == torch.int64
    assert images.name == f"cifar10.1 {version}"


def test_cifar10_1_has_two_versions() -> None:
    with pytest.raises(ArgumentError, match="version must be one of"):
        cifarzoo.load_cifar10_1("v5")  # type: ignore[arg-type]  # wrong on purpose


@pytest.fixture
def humans(tmp_path: Path) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(10), TEST)
    (tmp_path / "cifar-10h").mkdir()
    np.save(tmp_path / "cifar-10h" / "cifar10h-probs.npy", shares)
    return shares


def test_cifar10h_is_read(tmp_path: Path, humans: np.ndarray[Any, Any]) -> None:
    found = cifarzoo.load_cifar10h(root=tmp_path)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.numpy(), humans)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a * 2, "no distributions"),
        (lambda a: np.where(a > 0.5, np.nan, a), "no distributions"),
        (lambda a: a[:-1], "must hold floating"),
        (lambda a: (a * 100).astype(np.int64), "must hold floating"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, humans: np.ndarray[Any, Any], change: Any, message: str
) -> None:
    np.save(tmp_path / "cifar-10h" / "cifar10h-probs.npy", change(humans))
    with pytest.raises(DataError, match=message):
        cifarzoo.load_cifar10h(root=tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar10h-probs.npy"
    path.write_bytes(b"\x93NUMPY cut")
    with pytest.raises(DataError, match="altered or truncated"):
        cifarzoo.load_cifar10h(root=tmp_path)
    np.save(path, np.array([{"code": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match="altered or truncated"):
        cifarzoo.load_cifar10h(root=tmp_path)


@pytest.mark.parametrize(
    ("load", "address"),
    [
        (lambda root: cifarzoo.load_cifar10c("fog", 1, root=root), "zenodo.org/records/2535967"),
        (lambda root: cifarzoo.load_cifar10_1(root=root), "modestyachts/CIFAR-10.1"),
        (lambda root: cifarzoo.load_cifar10h(root=root), "jcpeterson/cifar-10h"),
    ],
)
def test_missing_files_say_where_they_are_to_be_had(
    tmp_path: Path, load: Any, address: str
) -> None:
    with pytest.raises(DataNotFoundError, match=address):
        load(tmp_path)


def test_comparison_with_people_is_by_cross_entropy(sample_test: cifarzoo.ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    few = sample_test.subset(range(40))
    generator = np.random.default_rng(1)
    humans = torch.from_numpy(generator.dirichlet(np.ones(10), 40))
    found = compare_with_humans(model, few, humans, precision="float32")
    with torch.no_grad():
        pixels = cifarzoo.get_card(model).preprocessing.normalize(few.images)
        logits = model.eval()(pixels).double()
    expected = torch.nn.functional.cross_entropy(logits, humans)
    assert found.cross_entropy == pytest.approx(float(expected), abs=1e-5)
    assert found.human_entropy == pytest.approx(
        float(torch.distributions.Categorical(humans).entropy().mean())
    )
    assert found.human_entropy < found.cross_entropy
    assert found.human_accuracy == pytest.approx(
        float((humans.argmax(1) == few.labels).double().mean())
    )
    order = torch.distributions.Categorical(humans).entropy().argsort(descending=True)[:4]
    hits = (logits.argmax(1) == few.labels).double()
    assert found.accuracy_where_unsure == float(hits[order].mean())
    assert (found.accuracy, found.num_images) == (float(hits.mean()), 40)
    cooled = compare_with_humans(model, few, humans, precision="float32", temperature=2.0)
    expected = torch.nn.functional.cross_entropy(logits / 2, humans)
    assert cooled.cross_entropy == pytest.approx(float(expected), abs=1e-5)


def test_people_must_have_seen_the_images(sample_test: cifarzoo.ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    with pytest.raises(InputError, match=r"humans must be \(1000, 10\)"):
        compare_with_humans(model, sample_test, torch.full((999, 10), 0.1))
    counts = torch.nn.functional.one_hot(sample_test.labels, 10) * 50
    for wrong in (counts, counts.double() * torch.nan, counts - 1):
        with pytest.raises(InputError, match=r"must hold shares of people.*divide counts"):
            compare_with_humans(model, sample_test, wrong)
    wider = cifarzoo.create_model("simple", num_classes=12)
    with pytest.raises(InputError, match="12 outputs"):
        compare_with_humans(wider, sample_test, torch.full((1000, 10), 0.1))
