from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cifarzoo
from cifarzoo import ImageSet, Prediction
from cifarzoo.card import attach_card
from cifarzoo.errors import InputError


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
        (torch.zeros(1, 32, 32), r"shape \(3, height, width\)"),
        (torch.full((3, 32, 32), 200.0), r"uint8 in 0\.\.255 or float in 0\.\.1"),
        (torch.zeros(3, 32, 32) - 1, "not normalized"),
        (np.zeros((32, 32, 3)), "must be uint8"),
        (np.zeros((32, 32, 2), np.uint8), "3 channels"),
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
