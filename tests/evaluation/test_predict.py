from __future__ import annotations

import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cifarzoo
from cifarzoo import ImageSet, Prediction
from cifarzoo.errors import InputError
from cifarzoo.files.writing import make_directory
from cifarzoo.zoo.card import attach_card


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return cifarzoo.create_model("simple", seed=0)


@pytest.fixture
def picture(sample_test: ImageSet) -> Image.Image:
    return Image.fromarray(sample_test.images[0].permute(1, 2, 0).numpy())


def test_every_kind_of_image_gives_the_same_answer(
    model: nn.Module, picture: Image.Image, tmp_path: Path
) -> None:
    picture.save(tmp_path / "image.png")
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds: list[Any] = [
        picture,
        picture.convert("RGBA"),
        array,
        tensor,
        tensor.float() / 255,
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
    ]
    answers = {cifarzoo.predict(model, kind) for kind in kinds}
    assert len(answers) == 1
    answer = answers.pop()
    assert answer.note == ""
    assert answer.label == answer.top[0][0] in cifarzoo.get_card(model).classes


def test_several_images_give_a_list(model: nn.Module, sample_test: ImageSet) -> None:
    batch = sample_test.images[:3]
    answers = cifarzoo.predict(model, list(batch), precision="float32")
    assert len(answers) == 3
    assert cifarzoo.predict(model, batch, precision="float32") == answers
    as_arrays = batch.permute(0, 2, 3, 1).numpy()
    assert cifarzoo.predict(model, as_arrays, precision="float32") == answers


def test_probabilities_are_a_distribution(model: nn.Module, picture: Image.Image) -> None:
    answer = cifarzoo.predict(model, picture)
    assert isinstance(answer, Prediction)
    values = [probability for _, probability in answer.top]
    assert len(values) == 5
    assert values == sorted(values, reverse=True)
    assert 0 < sum(values) <= 1


def test_other_sizes_are_resized_with_a_note(model: nn.Module, picture: Image.Image) -> None:
    answer = cifarzoo.predict(model, picture.resize((640, 480)))
    assert isinstance(answer, Prediction)
    assert answer.note == "resized from 640x480 to 32x32"


def test_grey_images_work(model: nn.Module) -> None:
    assert cifarzoo.predict(model, np.zeros((32, 32), np.uint8)) == cifarzoo.predict(
        model, torch.zeros(3, 32, 32)
    )


def test_classes_without_names_are_numbered() -> None:
    wide = cifarzoo.create_model("simple", num_classes=3)
    answer = cifarzoo.predict(wide, torch.zeros(3, 32, 32))
    assert isinstance(answer, Prediction)
    assert {name for name, _ in answer.top} == {"0", "1", "2"}


def test_outputs_that_the_card_does_not_name_are_numbered(model: nn.Module) -> None:
    pair = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    attach_card(pair, cifarzoo.get_card(model))
    answer = cifarzoo.predict(pair, torch.zeros(3, 32, 32))
    assert isinstance(answer, Prediction)
    assert {name for name, _ in answer.top} == {"0", "1"}


def test_a_set_is_classified_in_batches(model: nn.Module, sample_test: ImageSet) -> None:
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda _, images, __: sizes.append(len(images[0])))
    found = cifarzoo.predict(model, sample_test)
    handle.remove()
    assert len(sizes) > 1
    assert sum(sizes) == len(found) == len(sample_test)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 32, 32), r"shape \(3, height, width\)"),
        (torch.full((3, 32, 32), 200.0), r"uint8 in 0\.\.255.* or float in 0\.\.1"),
        (torch.zeros(3, 32, 32) - 1, "not normalized"),
        (np.zeros((32, 32, 3)) + 2, "must be uint8"),
        (np.zeros((32, 32, 2), np.uint8), r"\(height, width, 3\); got \(32, 32, 2\)"),
        ([], "no images"),
        ("missing.png", r"cannot read an image from missing\.png"),
    ],
)
def test_other_things_are_refused(model: nn.Module, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cifarzoo.predict(model, image)


def test_a_file_that_is_no_image_is_refused(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="cannot read an image from"):
        cifarzoo.predict(model, tmp_path / "text.png")


# where images come from


def test_several_come_from_every_iterable_in_order(
    model: nn.Module, sample_test: ImageSet, tmp_path: Path
) -> None:
    images = list(sample_test.images[:3])
    for place, image in enumerate(images):
        array = image.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(tmp_path / f"{place}.png")
    expected = cifarzoo.predict(model, images, precision="float32")
    assert len({answer.probability for answer in expected}) == 3
    paths = sorted(tmp_path.glob("*.png"))
    with paths[1].open("rb") as file:
        several: list[Any] = [
            tuple(images),
            (image for image in images),
            iter(images),
            map(str, paths),
            [paths[0].read_bytes(), file, Image.open(paths[2])],
            (io.BytesIO(path.read_bytes()) for path in paths),
            np.stack([image.permute(1, 2, 0).numpy() for image in images]),
            np.stack([image.numpy() for image in images]),
            tmp_path,
            str(tmp_path),
        ]
        for form in several:
            assert cifarzoo.predict(model, form, precision="float32") == expected
    found = cifarzoo.predict(model, (path for path in paths), precision="float32")
    assert [answer.file for answer in found] == [str(path) for path in paths]
    one = cifarzoo.predict(model, tmp_path.glob("0.*"))
    assert [answer.label for answer in one] == [expected[0].label]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"a.png", "b.png"}, "images in a set have no order"),
        (iter(()), "there are no images to classify"),
        (Path().glob("*.nothing"), "there are no images to classify"),
        ({"img": 1, "label": 2}, "a dict with the keys 'img', 'label'"),
        ([torch.zeros(3, 32, 32), 5], "image 1: an image must be a path, .*; got 5"),
        ([(torch.zeros(3, 32, 32), 5)], "image 0: .*; got a tuple of 2"),
        ([torch.zeros(2, 3, 32, 32)], "image 0: .*pass a batch as it is, not in a list"),
    ],
)
def test_what_is_no_images_is_refused(model: nn.Module, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cifarzoo.predict(model, images)


def test_a_folder_is_read_with_all_in_it_by_path(model: nn.Module, tmp_path: Path) -> None:
    for name in ("b.PNG", "a/2.jpg", "a/1.webp", ".hidden/c.png", ".d.png", "a/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.new("RGB", (8, 8)).save(path)
    found = cifarzoo.predict(model, tmp_path)
    names = [Path(answer.file).relative_to(tmp_path).as_posix() for answer in found]
    assert names == ["a/1.webp", "a/2.jpg", "b.PNG"]
    with pytest.raises(InputError, match="no images in the folder"):
        cifarzoo.predict(model, make_directory(tmp_path / "empty"))


def test_photos_of_a_generator_are_not_held_all_at_once(model: nn.Module) -> None:
    made: list[weakref.ref[Image.Image]] = []
    most = 0

    def photos() -> Iterator[Image.Image]:
        nonlocal most
        for _ in range(20):
            photo = Image.new("RGB", (64, 64))
            made.append(weakref.ref(photo))
            most = max(most, sum(each() is not None for each in made))
            yield photo
            del photo

    assert len(cifarzoo.predict(model, photos())) == 20
    assert most <= 3


# what is done to photos


def note(model: nn.Module, image: Any) -> str:
    answer = cifarzoo.predict(model, image)
    assert isinstance(answer, Prediction)
    return answer.note


def test_what_is_done_to_a_photo_is_noted(model: nn.Module, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = tmp_path / "a.png"
    Image.new("RGBA", (48, 64), (9, 9, 9, 9)).save(turned, exif=exif)
    assert note(model, turned) == (
        "turned upright (EXIF orientation 6); transparent parts put on white; "
        "resized from 64x48 to 32x32"
    )
    tiff = tmp_path / "a.tif"
    Image.new("RGB", (32, 32)).save(tiff, exif=exif)
    assert note(model, tiff) == "turned upright (EXIF orientation 6)"
    assert note(model, np.full((32, 32), 40000, np.uint16)) == "scaled from 16 bits to 8"
    assert note(model, Image.new("LA", (32, 32), (9, 255))) == ""
    frames = [Image.new("L", (3000, 2), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    expected = "first of several frames; resized from 3000x2 to 32x32"
    assert note(model, tmp_path / "a.gif") == expected


@pytest.mark.realdata
def test_photos_get_the_answers_of_their_upright_pixels(cifar_test: ImageSet) -> None:
    model = cifarzoo.create_model("simple", pretrained=True)
    upright = [
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize((64, 64))
        for image in cifar_test.images[:12]
    ]
    expected = [answer.top for answer in cifarzoo.predict(model, upright, precision="float32")]
    turns = {3: (180, False), 6: (90, True), 8: (-90, True)}
    for orientation, (angle, expand) in turns.items():
        exif = Image.Exif()
        exif[274] = orientation
        files = []
        for image in upright:
            file = io.BytesIO()
            image.rotate(angle, expand=expand).save(file, format="PNG", exif=exif)
            files.append(file)
        answers = cifarzoo.predict(model, files, precision="float32")
        assert [answer.top for answer in answers] == expected
    wide = [
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) for image in upright
    ]
    gray = [image.convert("L") for image in upright]
    answers = cifarzoo.predict(model, wide, precision="float32")
    expected = [answer.top for answer in cifarzoo.predict(model, gray, precision="float32")]
    assert [answer.top for answer in answers] == expected
