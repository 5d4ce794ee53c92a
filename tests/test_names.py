from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cifarzoo
from cifarzoo import ImageSet, Recipe
from cifarzoo.errors import ArgumentError, UnknownNameError
from cifarzoo.evaluation import corrupt, evaluate_robustness
from cifarzoo.names import (
    check_options,
    keyword_options,
    near_names,
    real_number,
    unknown_name,
    whole_number,
)

words = st.text("abcdefgh_", min_size=1, max_size=8)


def test_near_name_is_suggested() -> None:
    error = unknown_name("model", "resnet65", ["simple", "resnet56"], hint="See list_models().")
    assert isinstance(error, UnknownNameError)
    assert str(error) == "unknown model 'resnet65'; did you mean 'resnet56'? See list_models()."


def test_known_names_are_listed_in_order_when_none_is_near() -> None:
    error = unknown_name("optimizer", "zzz", iter(["sgd", "adam"]))
    assert str(error) == "unknown optimizer 'zzz'; known: adam, sgd."


def test_of_many_names_some_are_examples_when_none_is_near() -> None:
    known = [f"{letter}{letter}{n}" for letter in "abcdefgh" for n in range(10)]
    error = str(unknown_name("model", "xyzxyz", known, hint="See list_models()."))
    assert error == (
        "unknown model 'xyzxyz'; none of the 80 known names is like it; some are aa0, bb4, cc8, "
        "ee2, ff6, hh0. See list_models()."
    )


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("densenet121", ["resnet110", "simple"], []),
        ("DEEP_BN", ["deep_bn", "simple"], ["deep_bn"]),
        ("tanh", ["timm.tanh", "cosine"], ["timm.tanh"]),
        ("wrn28", ["wrn16_2", "wrn28_10", "wrn28_2"], ["wrn28_2", "wrn28_10"]),
        ("vgg", ["repvgg_a0", "vgg11_bn", "vgg16_bn"], ["vgg11_bn", "vgg16_bn"]),
        ("resnet1", [f"resnet{n}" for n in range(10, 60)], [f"resnet{n}" for n in (10, 11, 12)]),
    ],
)
def test_only_names_that_are_like_it_are_suggested(
    name: str, known: list[str], expected: list[str]
) -> None:
    assert near_names(name, known) == expected
    message = str(unknown_name("model", name, known))
    assert ("did you mean" in message) == bool(expected)
    assert all(repr(each) in message for each in expected)


def test_name_of_another_type_is_named_too() -> None:
    assert str(unknown_name("model", 7, ["simple"])).startswith(  # type: ignore[arg-type]  # the point
        "unknown model 7; known: simple."
    )


@given(words, st.lists(words, max_size=5))
def test_error_names_the_kind_and_the_offender(name: str, known: list[str]) -> None:
    message = str(unknown_name("scheduler", name, known, hint="See list_schedulers()."))
    assert message.startswith(f"unknown scheduler {name!r}; ")
    assert message.endswith("See list_schedulers().")
    assert any(near in message for near in known) or not known


def function(positional: int, *rest: int, width: int, depth: int = 2, **others: Any) -> None:
    """Has parameters of every kind."""


def test_keyword_options_are_the_keyword_only_parameters() -> None:
    options = keyword_options(function)
    assert list(options) == ["width", "depth"]
    assert options["depth"].default == 2


@given(st.sets(words), st.data())
def test_allowed_options_pass(allowed: set[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(sorted(allowed)))) if allowed else set()
    check_options("thing", dict.fromkeys(chosen), iter(allowed))


@pytest.mark.parametrize(
    ("option", "allowed", "message"),
    [
        ("widht", ["width", "depth"], "did you mean 'width'? allowed: depth, width"),
        ("zzz", ["width", "depth"], "allowed: depth, width"),
        ("zzz", [], "allowed: none"),
    ],
)
def test_other_options_are_refused(option: str, allowed: list[str], message: str) -> None:
    options = {**dict.fromkeys(allowed), option: 1}
    with pytest.raises(ArgumentError) as refused:
        check_options("model 'simple'", options, allowed)
    assert str(refused.value) == f"unknown option {option!r} of model 'simple'; {message}"


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_every_librarys_integers_are_whole_numbers(value: Any) -> None:
    assert whole_number(value) == real_number(value) == 3
    assert type(whole_number(value)) is type(real_number(value)) is int


@pytest.mark.parametrize("value", [2.5, np.float32(2.5), np.array(2.5), torch.tensor(2.5)])
def test_a_fraction_is_a_number_and_no_whole_one(value: Any) -> None:
    assert whole_number(value) is None
    assert real_number(value) == 2.5
    assert type(real_number(value)) is float


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), "3", None, [3], 1j])
def test_what_is_no_number_is_none(value: Any) -> None:
    assert whole_number(value) is None
    assert real_number(value) is None


def test_numpys_integers_are_taken_wherever_a_whole_number_is_wanted(few: ImageSet) -> None:
    one = np.int64(1)
    model = cifarzoo.create_model("simple", num_classes=np.int64(10), seed=one)  # type: ignore[arg-type]
    same = cifarzoo.create_model("simple", seed=1)
    assert torch.equal(next(model.parameters()), next(same.parameters()))
    json.dumps(cifarzoo.get_card(model).to_dict())
    train, val = few.split(np.int64(50), seed=one)  # type: ignore[arg-type]
    assert (len(train), len(val)) == (150, 50)
    changed = corrupt(val.images, "gaussian_noise", np.int64(2), seed=one)  # type: ignore[arg-type]
    assert torch.equal(changed, corrupt(val.images, "gaussian_noise", 2, seed=1))
    robustness = evaluate_robustness(model, val, corruptions=["fog"], severities=np.array([1]))
    json.dumps(robustness.to_dict())
    recipe = Recipe(epochs=one, batch_size=np.int64(50))  # type: ignore[arg-type]
    batches = [(few.images[:10], few.labels[:10])]
    assert len(cifarzoo.Trainer(model, recipe).fit(train)) == 1
    assert len(cifarzoo.Trainer(model, recipe).fit(batches, steps_per_epoch=np.int64(2))) == 1  # type: ignore[arg-type]


def with_seed(few: ImageSet, seed: Any) -> list[Callable[[], object]]:
    """All that takes a seed."""
    model = cifarzoo.create_model("simple", seed=0)
    report = cifarzoo.evaluate(model, few)
    return [
        lambda: cifarzoo.create_model("simple", seed=seed),
        lambda: cifarzoo.reset_classifier(model, 10, seed=seed),
        lambda: few.split(10, seed=seed),
        lambda: corrupt(few.images, "fog", 1, seed=seed),
        lambda: evaluate_robustness(model, few, corruptions=["fog"], severities=[1], seed=seed),
        lambda: cifarzoo.compare(report, report, seed=seed),
    ]


@pytest.mark.parametrize("value", [True, 2.0, "1", 2**64, -(2**63) - 1, 10**400])
def test_what_generators_do_not_take_is_no_seed(few: ImageSet, value: Any) -> None:
    for use in with_seed(few, value):
        with pytest.raises(ArgumentError, match="seed must be a whole number from -2"):
            use()


@pytest.mark.parametrize("value", [-(2**63), 2**64 - 1, np.int64(3)])
def test_every_seed_of_torch_is_one(few: ImageSet, value: Any) -> None:
    for use in with_seed(few, value):
        use()
