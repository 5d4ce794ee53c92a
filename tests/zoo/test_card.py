from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import image_sets
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2

from cifarzoo import ImageSet, ModelCard, Preprocessing, get_card
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.zoo.card import (
    CIFAR10_CLASSES,
    CIFAR10_PREPROCESSING,
    attach_card,
    names_of_outputs,
    unwrap,
)

CARD = ModelCard(
    name="simple",
    num_classes=2,
    options={"width": 3, "stages": [1, 2]},
    preprocessing=Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    classes=("cat", "dog"),
)

means = st.tuples(*[st.floats(0, 1)] * 3)
stds = st.tuples(*[st.floats(0.01, 1)] * 3)
preprocessings = st.builds(Preprocessing, means, stds)


def test_classes_are_those_of_cifar10_in_official_order() -> None:
    assert " ".join(CIFAR10_CLASSES) == (
        "airplane automobile bird cat deer dog frog horse ship truck"
    )


@pytest.mark.realdata
def test_default_preprocessing_is_measured_on_the_training_images(cifar_train: ImageSet) -> None:
    if len(cifar_train) < 50_000:
        pytest.skip("$CIFARZOO_DATA does not point at the official files")
    counts = [x.flatten().bincount(minlength=256).double() for x in cifar_train.images.unbind(1)]
    value = torch.arange(256, dtype=torch.float64) / 255
    for channel, count in enumerate(counts):
        share = count / count.sum()
        mean = (share * value).sum()
        std = (share * (value - mean) ** 2).sum().sqrt()
        assert float(mean) == pytest.approx(CIFAR10_PREPROCESSING.mean[channel], abs=1e-4)
        assert float(std) == pytest.approx(CIFAR10_PREPROCESSING.std[channel], abs=1e-4)


@given(preprocessings, image_sets(max_size=4))
def test_normalize_equals_torchvision(preprocessing: Preprocessing, images: ImageSet) -> None:
    reference = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    normalized = preprocessing.normalize(images.images)
    assert normalized.dtype == torch.float32
    # errors grow with 1 / std, which may be 100 here
    torch.testing.assert_close(normalized, reference(images.images), rtol=1e-6, atol=5e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_floats_are_normalized_where_they_lie_in_0_to_255(dtype: torch.dtype) -> None:
    pixels = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = CIFAR10_PREPROCESSING.normalize(pixels)
    torch.testing.assert_close(CIFAR10_PREPROCESSING.normalize(pixels.to(dtype)), expected)
    for wrong in (pixels / 255, expected):
        with pytest.raises(InputError, match=r"takes images in 0\.\.255, best uint8; the largest"):
            CIFAR10_PREPROCESSING.normalize(wrong.to(dtype))


def test_normalize_keeps_the_layout() -> None:
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert CIFAR10_PREPROCESSING.normalize(images).is_contiguous()
    assert CIFAR10_PREPROCESSING.normalize(channels_last).is_contiguous(
        memory_format=torch.channels_last
    )


@given(preprocessings)
def test_scale_and_bias_take_a_pixel_to_its_normalized_value(preprocessing: Preprocessing) -> None:
    scale, bias = preprocessing.scale_and_bias()
    for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        for pixel in (0, 255):
            expected = (pixel / 255 - mean) / std
            found = float(pixel * scale[channel] + bias[channel])
            assert found == pytest.approx(expected, rel=1e-5, abs=5e-5)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5, 0.5), (1, 1, 1)),
        ((0.5, 0.5, 0.5), (1, 1, 1, 1)),
        ((0.5, 0.5, 0.5), (1, 1, 0)),
        ((0.5, 0.5, 0.5), (1, -1, 1)),
    ],
)
def test_wrong_preprocessing_is_refused(mean: Any, std: Any) -> None:
    with pytest.raises(ArgumentError, match=r"three means and three positive .* got mean=\(0.5"):
        Preprocessing(mean, std)


def test_preprocessing_from_lists_is_the_same_value() -> None:
    from_lists = Preprocessing([0, 0.5, 1], [1, 1, 1])  # type: ignore[arg-type]  # as JSON gives them
    assert from_lists == Preprocessing((0.0, 0.5, 1.0), (1.0, 1.0, 1.0))
    assert hash(from_lists) == hash(Preprocessing((0.0, 0.5, 1.0), (1.0, 1.0, 1.0)))


@given(
    st.builds(
        ModelCard,
        name=st.text(min_size=1),
        num_classes=st.integers(1, 1000),
        options=st.dictionaries(st.text(), st.integers() | st.booleans() | st.text(), max_size=3),
        preprocessing=preprocessings,
        classes=st.none() | st.lists(st.text(), min_size=1, max_size=3).map(tuple),
    )
)
def test_card_survives_json(card: ModelCard) -> None:
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_card_is_found_on_its_module() -> None:
    model = nn.Linear(2, 2)
    attach_card(model, CARD)
    assert get_card(model) is CARD


def test_card_stays_out_of_state_dict_and_repr() -> None:
    model, plain = nn.Linear(2, 2), nn.Linear(2, 2)
    attach_card(model, CARD)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert repr(model) == repr(plain)


def test_module_made_elsewhere_gets_a_card_of_cifar10() -> None:
    card = get_card(nn.Linear(2, 2))
    assert card == ModelCard(name="Linear")
    assert (card.num_classes, card.preprocessing, card.classes) == (10, CIFAR10_PREPROCESSING, None)


def test_attribute_named_card_is_not_mistaken_for_one() -> None:
    model = nn.Linear(2, 2)
    model.card = "a business card"  # type: ignore[assignment]  # the point
    assert get_card(model).name == "Linear"


def data_parallel(model: nn.Module) -> nn.Module:
    return nn.DataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]  # a module for a module


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(model)


@pytest.mark.parametrize(
    "wrappers",
    [[], [data_parallel], [compiled], [data_parallel, compiled], [averaged]],
)
def test_card_shines_through_wrappers(wrappers: list[Any]) -> None:
    model: nn.Module = nn.Linear(2, 2)
    wrapped = model
    for wrap in wrappers:
        wrapped = wrap(wrapped)
    inner = unwrap(wrapped)
    assert inner is model or wrappers == [averaged]  # which averages a copy
    attach_card(wrapped, CARD)
    assert get_card(inner) is get_card(wrapped) is CARD


def test_own_submodule_named_module_is_not_unwrapped() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    holder = Holder()
    assert unwrap(holder) is holder


def test_only_a_card_is_a_card() -> None:
    with pytest.raises(ArgumentError, match="card must be a ModelCard; got 'card'"):
        attach_card(nn.Linear(1, 1), "card")  # type: ignore[arg-type]  # what the test is about


def test_normalization_by_nan_is_refused() -> None:
    nan = float("nan")
    for options in ({"mean": (nan, 0.5, 0.5)}, {"std": (0.5, nan, 0.5)}):
        with pytest.raises(ArgumentError, match="preprocessing needs three means"):
            Preprocessing(**options)


def test_a_card_keeps_what_it_was_given() -> None:
    widths = [1, 2]
    card = ModelCard("x", np.int64(3), {"widths": widths}, classes=["a", "b", "c"])  # type: ignore[arg-type]  # what users write
    widths.append(3)
    assert card.options == {"widths": [1, 2]}
    assert card == ModelCard("x", 3, {"widths": [1, 2]}, classes=("a", "b", "c"))
    with pytest.raises(TypeError, match="cannot be changed"):
        card.options["widths"] = []  # type: ignore[index]  # what the test is about
    data = json.loads(json.dumps(card.to_dict()))
    assert ModelCard.from_dict(data) == card
    data["options"]["widths"].append(4)
    assert len({card, ModelCard.from_dict(card.to_dict())}) == 1


def test_fields_of_another_version_are_left_out() -> None:
    data = CARD.to_dict() | {"more": 1}
    data["preprocessing"]["more"] = 1
    assert ModelCard.from_dict(data) == CARD


@pytest.mark.parametrize(
    "fields",
    [
        {"name": 3},
        {"num_classes": 0},
        {"num_classes": 2.5},
        {"options": [1]},
        {"preprocessing": None},
        {"classes": "cat"},
        {"classes": (1, 2)},
    ],
)
def test_a_card_with_a_field_of_another_kind_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(fields))}.* must be "):
        ModelCard(**{"name": "simple", **fields})


def test_names_of_a_head_that_was_replaced_are_not_its_names() -> None:
    assert names_of_outputs(CIFAR10_CLASSES[:5], 5) == CIFAR10_CLASSES[:5]
    assert names_of_outputs(CIFAR10_CLASSES[:5], 2) is None
    assert names_of_outputs(None, 2) is None
