"""Frozen mappings and lists, and the values that are made of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import recipes

import cifarzoo
from cifarzoo import Augmentation, History, ModelCard, Recipe, WeightsInfo
from cifarzoo.evaluation import PageEntry, RobustnessReport
from cifarzoo.frozen import FrozenDict, FrozenList, freeze, thaw

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain=PLAIN)
def test_what_is_frozen_equals_what_it_was_made_of_and_thaws_to_it(plain: Any) -> None:
    frozen = freeze(plain)
    assert frozen == plain
    assert plain == frozen
    assert not frozen != plain  # noqa: SIM202  (both operators are ours)
    assert thaw(frozen) == plain
    assert type(thaw(frozen)) is type(plain)
    assert json.dumps(frozen) == json.dumps(plain)
    assert freeze(frozen) is frozen or frozen == ()


@given(plain=PLAIN)
def test_equal_values_have_one_hash(plain: Any) -> None:
    assert hash(freeze(plain)) == hash(freeze(copy.deepcopy(plain)))


@given(plain=PLAIN)
def test_copies_of_every_kind_are_equal(plain: Any) -> None:
    frozen = freeze(plain)
    for copied in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert copied == frozen
        assert type(copied) is type(frozen)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.__delitem__("a"),
        lambda d: d.__ior__({"a": 1}),
        lambda d: d.clear(),
        lambda d: d.pop("a"),
        lambda d: d.popitem(),
        lambda d: d.setdefault("b", 1),
        lambda d: d.update(a=1),
    ],
)
def test_no_way_to_change_a_dict_changes_a_frozen_one(change: Any) -> None:
    frozen = FrozenDict({"a": [1]})
    with pytest.raises(TypeError, match="change a copy"):
        change(frozen)
    frozen.__init__({"a": 2})  # type: ignore[misc]  # what no user writes
    assert frozen == {"a": [1]}


def test_a_frozen_dict_is_copied_into_a_plain_one() -> None:
    changed = {**FrozenDict({"a": 1}), "b": 2}
    assert changed == {"a": 1, "b": 2}
    assert dict(FrozenDict({"a": 1})) | {"b": 2} == changed
    assert FrozenList([1]) != [2]


def test_numbers_of_other_libraries_become_pythons() -> None:
    frozen = freeze({"a": np.float32(0.5), "b": np.array([1, 2]), "c": torch.tensor(3)})
    assert json.dumps(frozen) == '{"a": 0.5, "b": [1, 2], "c": 3}'


VALUES: list[Any] = [
    Recipe(),
    Recipe(
        scheduler="multistep",
        scheduler_options={"milestones": [4]},
        groups={"head": {"learning_rate": 2}},
        image_sizes=[[0, 24]],
    ),
    Augmentation(),
    ModelCard("x", options={"widths": (1, 2), "deep": {"a": [1]}}, classes=["a", "b"]),  # type: ignore[arg-type]
    WeightsInfo(cifarzoo.get_model_info("simple").weights["default"].path, "0"),
    cifarzoo.get_model_info("simple"),
    RobustnessReport("m", "d", 0.5, {"fog": (0.1, 0.2)}, [1, 2]),  # type: ignore[arg-type]
    History([]),  # type: ignore[arg-type]
    cifarzoo.Calibration(1.0, [1.0, 2.0], [1.0, 2.0], 4),  # type: ignore[arg-type]
    cifarzoo.Verification("m", "t", None, None, 0.0, ["p"]),  # type: ignore[arg-type]
    cifarzoo.Prediction("cat", 0.5, [["cat", 0.5]]),  # type: ignore[arg-type,list-item]
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_is_one_to_the_bottom(value: Any) -> None:
    copies = (
        dataclasses.replace(value),
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
    )
    assert len({value, *copies}) == 1
    assert all(each == value for each in copies)
    dataclasses.asdict(value)
    _check_frozen(value)


def _check_frozen(value: Any) -> None:
    """Nothing below can be changed: neither a plain dict nor a plain list is there."""
    assert not isinstance(value, list | set)
    assert not isinstance(value, dict) or isinstance(value, FrozenDict)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _check_frozen(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            _check_frozen(item)
    elif isinstance(value, tuple):
        for item in value:
            _check_frozen(item)


def test_a_page_keeps_what_it_was_given() -> None:
    history = [{"epoch": 1}]
    entry = PageEntry(report=None, history=history)  # type: ignore[arg-type]  # not looked at
    history[0]["epoch"] = 2
    assert entry.history == [{"epoch": 1}]
    assert len({entry, dataclasses.replace(entry)}) == 1


@given(recipe=recipes())
def test_a_recipe_is_found_again_in_a_set(recipe: Recipe) -> None:
    again = Recipe.from_dict(recipe.to_dict())
    assert len({recipe, again, pickle.loads(pickle.dumps(recipe))}) == 1
    assert json.loads(json.dumps(dataclasses.asdict(recipe))) == recipe.to_dict()
