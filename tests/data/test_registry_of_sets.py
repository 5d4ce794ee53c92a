"""Image sets by name, and folders of images."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from PIL import Image

import cifarzoo
from cifarzoo import ImageSet, Preprocessing, load_dataset, load_folder, register_dataset
from cifarzoo.errors import (
    ArgumentError,
    DataError,
    DataNotFoundError,
    DuplicateNameError,
    InputError,
    UnknownNameError,
)


@pytest.fixture(autouse=True)
def _own(own_registries: None) -> None:
    """What a test registers is forgotten."""


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((noise + colour).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Red and blue pictures: 24 to train on, of two sizes, and 8 to measure on."""
    for part, count in (("train", 12), ("test", 4)):
        for number in range(count):
            size = (40, 48) if number == 0 else (32, 32)
            picture(tmp_path / "photos" / part / "red" / f"{number}.png", (200, 20, 20), size)
            picture(tmp_path / "photos" / part / "blue" / f"{number}.png", (20, 20, 200))
    return tmp_path / "photos"


def test_the_official_sets_are_known(sample_test: ImageSet) -> None:
    assert {"cifar10", "cifar100", "cifar10.1", "sample"} <= set(cifarzoo.list_datasets())
    found = load_dataset("sample", "test")
    assert found.sha256() == sample_test.sha256()
    assert found.name == sample_test.name


def test_cifar10_is_what_its_function_loads(real_root: Path | None) -> None:
    if real_root is None:
        pytest.skip("the official files are not here")
    found = load_dataset("cifar10", "test", root=real_root)
    assert found.sha256() == cifarzoo.load_cifar10("test", root=real_root).sha256()
    assert found.name == "cifar10 test"


def test_each_set_has_its_own_normalization(sample_train: ImageSet) -> None:
    ten, hundred = (cifarzoo.get_dataset_info(name) for name in ("cifar10", "cifar100"))
    assert ten.preprocessing == cifarzoo.CIFAR10_PREPROCESSING
    assert hundred.preprocessing != ten.preprocessing
    assert len(hundred.md5) == 3


def test_classes_are_known_without_files(sample_test: ImageSet) -> None:
    for name in ("cifar10", "cifar10.1", "sample"):
        assert cifarzoo.get_dataset_info(name).classes == sample_test.classes


def test_cifar100_is_what_is_known_of_it(hundred_root: Path) -> None:
    train = cifarzoo.load_cifar100("train", root=hundred_root)
    assert cifarzoo.get_dataset_info("cifar100").classes == train.classes
    found = cifarzoo.get_dataset_info("cifar100").preprocessing
    values = torch.arange(256).double() / 255
    for channel, mean, std in zip(range(3), found.mean, found.std, strict=True):
        counts = torch.bincount(train.images[:, channel].flatten(), minlength=256)
        shares = counts / counts.sum()
        known = (shares * values).sum()
        assert mean == pytest.approx(float(known), abs=1e-4)
        deviation = (shares * (values - known) ** 2).sum().sqrt()
        assert std == pytest.approx(float(deviation), abs=1e-4)


def test_a_set_of_ones_own_is_loaded_by_name(few: ImageSet) -> None:
    normalization = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    asked: list[Any] = []

    @register_dataset("mine", preprocessing=normalization, splits=("train",), md5={"a": "b"})
    def mine(split: str, *, root: Any = None, download: bool = True) -> ImageSet:
        asked.append((split, root, download))
        return few

    found = load_dataset("mine", "train", root="somewhere", download=False)
    assert asked == [("train", "somewhere", False)]
    assert found.name == "mine train"
    assert found.sha256() == few.sha256()
    info = cifarzoo.get_dataset_info("mine")
    assert (info.preprocessing, info.md5) == (normalization, {"a": "b"})
    with pytest.raises(ArgumentError, match="'mine' has no 'test' images, only 'train'"):
        load_dataset("mine", "test")
    with pytest.raises(DuplicateNameError, match="'mine' is already registered"):
        register_dataset("mine")(mine)


def test_what_is_no_image_set_is_refused() -> None:
    @register_dataset("wrong")
    def wrong(split: str, **ignored: Any) -> Any:
        return [1, 2]

    with pytest.raises(InputError, match="must return an ImageSet; it returned list"):
        load_dataset("wrong")


def test_an_unknown_set_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'cifar11'; did you mean 'cifar10.*'\? Images of"):
        load_dataset("cifar11")


def test_a_folder_is_read_in_the_order_of_names(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cifarzoo"):
        found = load_folder(photos / "train")
    assert found.classes == ("blue", "red")
    assert found.labels.tolist() == [0] * 12 + [1] * 12
    assert found.images.shape == (24, 3, 32, 32)
    red, blue = found.images[:, 0].float().mean((1, 2)), found.images[:, 2].float().mean((1, 2))
    assert torch.equal(red > blue, found.labels == 1)
    assert "1 of 24 images were resized to 32x32" in caplog.text


def test_parts_of_a_folder(photos: Path) -> None:
    assert len(load_dataset(f"folder:{photos}", "train")) == 24
    assert len(load_dataset(f"folder:{photos}", "test")) == 8
    (photos / "test").rename(photos / "val")
    assert load_dataset(f"folder:{photos}", "test").name == "photos test"
    assert len(load_folder(photos / "val", "test")) == 8  # no parts in it: all of it
    with pytest.raises(DataNotFoundError, match="holds no folder 'train'; put the images"):
        load_folder(photos / "val", "train")


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAINING", "Val"), ("Train", "validation")]
)
def test_parts_may_be_written_in_capitals(train: str, test: str, photos: Path) -> None:
    (photos / "train").rename(photos / train)
    (photos / "test").rename(photos / test)
    assert len(load_folder(photos, "train")) == 24
    assert len(load_folder(photos, "test")) == 8
    with pytest.raises(ArgumentError, match=r"the parts .*, and no classes; choose one"):
        load_folder(photos)


def test_a_class_may_be_called_as_a_part_is(photos: Path) -> None:
    (photos / "train" / "red").rename(photos / "train" / "Train")  # what a locomotive pulls
    classes = load_folder(photos / "train")
    assert classes.classes == ("Train", "blue")
    assert load_folder(photos / "train", "test").classes == classes.classes
    with pytest.raises(DataNotFoundError, match="holds no folder 'train'; put the images"):
        load_folder(photos / "train", "train")


def test_parts_are_not_taken_for_classes(photos: Path) -> None:
    with pytest.raises(ArgumentError, match="the parts test and train, and no classes; choose one"):
        load_folder(photos)
    picture(photos / "train" / "toy.png", (9, 9, 9))  # trains, tests: they may be classes
    assert load_folder(photos).classes == ("test", "train")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_folders_are_followed_once(photos: Path, tmp_path: Path) -> None:
    picture(tmp_path / "more" / "a.png", (190, 20, 20))
    (photos / "test" / "red" / "more").symlink_to(tmp_path / "more")
    (photos / "test" / "red" / "again").symlink_to(tmp_path / "more")
    (photos / "test" / "red" / "round").symlink_to(photos / "test")
    (photos / "test" / "red" / "round2").symlink_to(photos / "test" / "red")
    found = load_folder(photos, "test")
    assert found.labels.tolist() == [0] * 4 + [1] * 9


def test_what_is_no_folder_of_classes_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="there is no folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match="holds no folder with images"):
        load_folder(photos / "train" / "red")
    (photos / "train" / "red" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png.*remove it, or repair it"):
        load_folder(photos, "train")


def test_other_files_are_passed_over_and_told(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "test" / "red" / "notes.txt").write_text("mine")
    (photos / "test" / "empty").mkdir()
    (photos / "test" / ".hidden").mkdir()
    with caplog.at_level(logging.WARNING, "cifarzoo"):
        assert load_folder(photos, "test").classes == ("blue", "red")
    assert "other files than images were left out: 1" in caplog.text


@pytest.mark.usefixtures("without_pictures")
def test_a_folder_from_the_command_line(photos: Path, tmp_path: Path) -> None:
    """Trained, resumable, evaluated and reported by the same name."""
    folder = tmp_path / "run"
    run(
        *("train", "simple", "--data", f"folder:{photos}", "--output", folder),
        *("--set", "epochs=2", "--set", "batch_size=8", "--set", "learning_rate=0.01"),
        *("--set", "augmentation.flip=none"),
    )
    model = cifarzoo.load_model(folder)
    assert cifarzoo.get_card(model).classes == ("blue", "red")
    shown = run("evaluate", folder, "--json")
    assert '"data": "photos test"' in shown.output
    assert '"accuracy": 1.0' in shown.output


def test_a_module_of_ones_own_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_sets.py").write_text(
        "import cifarzoo\n"
        "@cifarzoo.register_dataset('tiny')\n"
        "def tiny(split, *, root=None, download=True):\n"
        "    return cifarzoo.load_sample(split).subset(range(20))\n"
    )
    done = run("--import", "my_sets", "data", "tiny")
    assert done.output.splitlines()[0] == "tiny train: 20 images, 10 classes, intact"
    done = run("--import", "no_such_module", "models", code=1)
    assert "module 'no_such_module' cannot be imported" in done.output


@pytest.mark.usefixtures("without_pictures")
def test_a_network_takes_the_normalization_of_what_it_is_trained_on(tmp_path: Path) -> None:
    @register_dataset("odd", preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3))
    def odd(split: str, **ignored: Any) -> ImageSet:
        return cifarzoo.load_sample(split).subset(range(40))

    folder = tmp_path / "run"
    run(
        *("train", "simple", "--data", "odd", "--output", folder),
        *("--set", "epochs=1", "--set", "batch_size=20"),
    )
    assert cifarzoo.get_card(cifarzoo.load_model(folder)).preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_new_network_may_be_told_its_normalization() -> None:
    own = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    model = cifarzoo.create_model("simple", preprocessing=own)
    assert cifarzoo.get_card(model).preprocessing == own
