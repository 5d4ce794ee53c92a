from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarzoo.errors import ArgumentError, UnknownNameError
from cifarzoo.names import check_options, keyword_options, unknown_name

words = st.text("abcdefgh_", min_size=1, max_size=8)


def test_near_name_is_suggested() -> None:
    error = unknown_name("model", "resnet65", ["simple", "resnet56"], hint="See list_models().")
    assert isinstance(error, UnknownNameError)
    assert str(error) == "unknown model 'resnet65'; did you mean 'resnet56'? See list_models()."


def test_known_names_are_listed_in_order_when_none_is_near() -> None:
    error = unknown_name("optimizer", "zzz", iter(["sgd", "adam"]))
    assert str(error) == "unknown optimizer 'zzz'; known: adam, sgd."


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
