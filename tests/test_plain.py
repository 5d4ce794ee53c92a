"""Data from elsewhere is bounded and compared once, in words that name the place."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, TypedDict

from cifarzoo.plain import Real, bounds_problem, parse_json, problem_of, shorten


class Point(TypedDict):
    name: str
    at: list[Real]
    note: NotRequired[str | None]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
)


@given(plain)
def test_what_json_holds_is_within_bounds(value: Any) -> None:
    assert bounds_problem(value) == ""
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "b": 2, "a": 3}}]'])
def test_a_key_that_json_has_twice_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="it has the key 'a' twice"):
        parse_json(text)


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def shared(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found, found]
    return found


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (nested(65), "nested more than 64 times"),
        (shared(40), "more than 500,000 parts"),
        ([[0] * 10**6] * 60, "50,000,000 numbers"),
        ({"\udfff": 1}, "no Unicode"),
        ([{"a": ("\ud800",)}], "no Unicode"),
    ],
)
def test_what_is_beyond_bounds_is_told(value: Any, told: str) -> None:
    assert told in bounds_problem(value)
    assert bounds_problem(nested(64)) == ""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"name": "a", "at": [1, 2.5]}, ""),
        ({"name": "a", "at": [1], "note": None, "more": 3}, ""),
        ({"at": []}, "name is missing"),
        ({"name": 3, "at": []}, "name should be a valid string; got 3"),
        ({"name": "a", "at": [0, "1"]}, "at.1 should be a number; got '1'"),
        ({"name": "a", "at": [True]}, "at.0 should be a number; got True"),
        ({"name": "a", "at": [torch.zeros(())]}, "at.0 should be a number; got tensor(0.)"),
        ([], "it should be a valid dictionary; got []"),
    ],
)
def test_the_first_place_that_differs_is_named(value: Any, told: str) -> None:
    assert problem_of(value, Point) == told


def test_what_is_shown_of_a_value_is_short() -> None:
    assert shorten("x" * 1000).count("x") < 100
    assert shorten(10**5000) == "a int of many digits" or len(shorten(10**5000)) < 200
    assert shorten([math.inf, None]) == "[inf, None]"
