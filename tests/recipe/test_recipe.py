"""Recipes: every invalid field is refused, and every valid one survives a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import recipes

import cifarzoo
from cifarzoo import Augmentation, Recipe
from cifarzoo.errors import ArgumentError, OutputError, UnknownNameError


@given(recipe=recipes())
def test_a_dict_round_trip_gives_an_equal_recipe(recipe: Recipe) -> None:
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("suffix", ["json", "toml", "TOML"])
@given(recipe=recipes())
def test_a_file_round_trip_gives_an_equal_recipe(
    suffix: str, tmp_path: Path, recipe: Recipe
) -> None:
    path = tmp_path / f"recipe.{suffix}"
    assert Recipe.load(recipe.save(path)) == recipe


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_nested_options_survive_a_file(suffix: str, tmp_path: Path) -> None:
    recipe = Recipe(
        scheduler="multistep",
        scheduler_options={"milestones": (3, 5.5)},
        optimizer_options={"betas": (0.9, 0.99), "fused": False, "deep": {"name": "x"}},
    )
    assert Recipe.load(recipe.save(tmp_path / f"r.{suffix}")) == recipe
    assert recipe.scheduler_options == {"milestones": [3, 5.5]}


def test_options_are_copied() -> None:
    options = {"warmup_epochs": 1}
    recipe = Recipe(scheduler="cosine", scheduler_options=options)
    options["warmup_epochs"] = 2
    assert recipe.scheduler_options == {"warmup_epochs": 1}


INVALID = [
    ("epochs", 0, "a whole number in [1, 100000]"),
    ("epochs", 1.5, "a whole number in [1, 100000]"),
    ("epochs", True, "a whole number in [1, 100000]"),
    ("epochs", "3", "a whole number in [1, 100000]"),
    ("batch_size", 0, "a whole number in [1, 1e+06]"),
    ("batch_size", 64.0, "a whole number in [1, 1e+06]"),
    ("learning_rate", -0.1, "a number in [0, 1e+06]"),
    ("learning_rate", float("nan"), "a number in [0, 1e+06]"),
    ("learning_rate", float("inf"), "a number in [0, 1e+06]"),
    ("learning_rate", None, "a number in [0, 1e+06]"),
    ("momentum", 1, "a number in [0, 1)"),
    ("momentum", -0.5, "a number in [0, 1)"),
    ("weight_decay", -1e-4, "a number in [0, 1000]"),
    ("label_smoothing", 1.0, "a number in [0, 1)"),
    ("mixup_alpha", -1, "a number in [0, 100]"),
    ("cutmix_alpha", 101, "a number in [0, 100]"),
    ("ema_decay", 1.0, "a number in [0, 1)"),
    ("lookahead_decay", 1.0, "a number in [0, 1)"),
    ("distillation_weight", 1.5, "a number in [0, 1]"),
    ("distillation_temperature", 0, "a number in [0.1, 100]"),
    ("clip_norm", -1, "a number in [0, 1e+09]"),
    ("accumulate", 0, "a whole number in [1, 1000]"),
    ("seed", -1, "a whole number in [0, 9.22337e+18]"),
    ("seed", 2**63, "a whole number in [0, 9.22337e+18]"),
    ("optimizer_options", 5, "a mapping of names to values"),
    ("scheduler_options", [1], "a mapping of names to values"),
    ("augmentation", None, "an Augmentation"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), INVALID)
def test_an_invalid_field_is_named_with_its_range_and_what_was_given(
    field: str, value: Any, allowed: str
) -> None:
    expected = f"{field} must be {allowed}; got {value!r}"
    with pytest.raises(ArgumentError) as caught:
        Recipe(**{field: value})
    assert str(caught.value).startswith(expected)


def test_every_numeric_field_has_an_invalid_value_in_the_list() -> None:
    numeric = {f.name for f in dataclasses.fields(Recipe) if f.type in ("int", "float")}
    assert numeric <= {field for field, *_ in INVALID}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("flip", "up", "flip must be one of ('none', 'random', 'alternating'); got 'up'"),
        ("crop_padding", 32, "crop_padding must be a whole number in [0, 31]; got 32"),
        ("crop_padding", 1.0, "crop_padding must be a whole number in [0, 31]; got 1.0"),
        ("cutout", -1, "cutout must be a whole number in [0, 32]; got -1"),
        ("contrast", 1.0, "contrast must be a number in [0, 1); got 1.0"),
        ("brightness", -0.1, "brightness must be a number in [0, 10]; got -0.1"),
    ],
)
def test_an_invalid_augmentation_is_named(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Augmentation(**{field: value})
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("field", ["model_options", "optimizer_options", "scheduler_options"])
def test_options_that_no_file_can_hold_are_refused(field: str) -> None:
    with pytest.raises(ArgumentError, match=f"{field} holds plain numbers, strings and lists; got"):
        Recipe(**{field: {"warmup_epochs": object()}})


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="optimizer 'sdg'; did you mean 'sgd'"):
        Recipe(optimizer="sdg")
    with pytest.raises(UnknownNameError, match="scheduler 'one_cycle'; did you mean 'onecycle'"):
        Recipe(scheduler="one_cycle")


def test_options_of_another_scheduler_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'warmup_epochs' of scheduler 'onecycle'"):
        Recipe(scheduler_options={"warmup_epochs": 1})


def test_replace_changes_only_what_is_named() -> None:
    recipe = Recipe(seed=4, augmentation=Augmentation("alternating", 2, 8))
    changed = recipe.replace(epochs=7, augmentation={"cutout": 4})
    assert changed.epochs == 7
    assert changed.augmentation == Augmentation("alternating", 2, 4)
    assert changed.replace(epochs=30, augmentation=recipe.augmentation) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch' of recipe; did you mean 'epochs'?"),
        (
            {"augmentation": {"cut": 3}},
            "unknown option 'cut' of recipe.augmentation; did you mean 'cutout'?",
        ),
    ],
)
def test_unknown_fields_suggest_the_nearest(changes: dict[str, Any], message: str) -> None:
    for change in (Recipe().replace, lambda **fields: Recipe.from_dict(fields)):
        with pytest.raises(ArgumentError) as caught:
            change(**changes)
        assert str(caught.value).startswith(message)


def test_replace_checks_values() -> None:
    with pytest.raises(ArgumentError, match="epochs must be a whole number"):
        Recipe().replace(epochs=-1)


def test_override_takes_dotted_names() -> None:
    recipe = (
        Recipe()
        .override("epochs", 3)
        .override("scheduler", "cosine")
        .override("scheduler_options.warmup_epochs", 1)
        .override("scheduler_options.final_factor", 0.1)
        .override("optimizer_options.dampening", 0.1)
        .override("augmentation.flip", "none")
    )
    assert recipe == Recipe(
        epochs=3,
        scheduler="cosine",
        scheduler_options={"warmup_epochs": 1, "final_factor": 0.1},
        optimizer_options={"dampening": 0.1},
        augmentation=Augmentation(crop_padding=4),
    )


def test_override_of_a_name_drops_the_options_of_the_old_one() -> None:
    recipe = Recipe(
        scheduler="cosine",
        scheduler_options={"warmup_epochs": 1},
        optimizer_options={"dampening": 0.1},
    )
    assert recipe.override("scheduler", "onecycle").scheduler_options == {}
    assert recipe.override("scheduler", "onecycle").optimizer_options == {"dampening": 0.1}
    assert recipe.override("optimizer", "adam").optimizer_options == {}
    assert recipe.override("scheduler", "cosine") == recipe


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("epocs", "unknown option 'epocs' of recipe; did you mean 'epochs'"),
        ("augmentation.flop", "'flop' of recipe.augmentation; did you mean 'flip'"),
        ("momentum.nesterov", "recipe field 'momentum' has no parts; got 'momentum.nesterov'"),
        ("scheduler_options.peak", "'peak' of scheduler 'onecycle'; did you mean 'peak_at'"),
    ],
)
def test_override_refuses_names_that_do_not_exist(field: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Recipe().override(field, 1)


def test_what_a_file_leaves_out_takes_the_default_but_augmentation_is_off() -> None:
    assert Recipe.from_dict({"epochs": 2}) == Recipe(epochs=2)
    assert Recipe.from_dict({"augmentation": {"cutout": 8}}).augmentation == Augmentation(cutout=8)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().epochs = 3  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize("name", ["absent.toml", "absent.json"])
def test_a_file_that_is_not_there_is_named_with_the_way_to_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=rf"there is no file .*{name}; .*Recipe.save\(\)"):
        Recipe.load(tmp_path / name)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ArgumentError, match=r"cannot read recipe .*folder.toml: ."):
        Recipe.load(tmp_path / "folder.toml")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.toml", b"epochs = = 3"),
        ("broken.json", b'{"epochs": 3'),
        ("latin.toml", b'optimizer = "\xe9"'),
        ("double.toml", b"epochs = 3\nepochs = 4"),
        ("double.json", b'{"epochs": 3, "epochs": 4}'),
    ],
)
def test_a_file_that_does_not_parse_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArgumentError, match=f"cannot read recipe .*{name}: ."):
        Recipe.load(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_of_a_windows_editor_or_shell_is_read(
    suffix: str, encoding: str, tmp_path: Path
) -> None:
    path = Recipe(epochs=3).save(tmp_path / f"recipe{suffix}")
    path.write_bytes(path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert Recipe.load(path) == Recipe(epochs=3)


def test_a_file_that_holds_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(ArgumentError, match=r"list\.json must hold a table of fields"):
        Recipe.load(tmp_path / "list.json")


def test_an_invalid_field_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 0\n")
    with pytest.raises(ArgumentError, match="epochs must be a whole number"):
        Recipe.load(tmp_path / "r.toml")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    for use in (Recipe.load, Recipe().save):
        with pytest.raises(ArgumentError, match=r"ends in .toml or .json; got '.*recipe.yaml'"):
            use(tmp_path / "recipe.yaml")


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Recipe().save(tmp_path / "file" / "recipe.toml")


def test_image_size_follows_the_progress() -> None:
    recipe = Recipe(image_sizes=[[0, 16], [0.25, 24], [0.5, 32]])
    sizes = [recipe.image_size_at(progress) for progress in (0, 0.24, 0.25, 0.49, 0.5, 1.0)]
    assert sizes == [16, 16, 24, 24, 32, 32]
    assert Recipe().image_size_at(0.5) is None


@pytest.mark.parametrize(
    "pairs",
    [
        [[0.1, 24]],
        [[0, 24], [0, 32]],
        [[0, 24], [1.0, 32]],
        [[0, 4]],
        [[0, 24.5]],
        [[0]],
        [["a", 24]],
        5,
    ],
)
def test_impossible_image_sizes_are_refused(pairs: Any) -> None:
    with pytest.raises(ArgumentError, match="image_sizes must be pairs"):
        Recipe(image_sizes=pairs)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"head": {"lr": 0.1}}, "unknown option 'lr' of recipe.groups.head"),
        (
            {"head": {"learning_rate": -1}},
            "learning_rate must be a finite number of at least 0; got -1",
        ),
        (
            {"head": {"momentum": "x"}},
            "groups.head.momentum must be a finite number of at least 0; got 'x'",
        ),
        ({"head": {"freeze_at": 1.0}}, r"freeze_at is a fraction of the run in \[0, 1\); got 1.0"),
        ({"head": 3}, "groups.head must hold options by name; got 3"),
        ([1], "groups must be a mapping"),
    ],
)
def test_options_of_groups_are_checked(groups: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Recipe(groups=groups)


def test_options_of_groups_survive_files_and_can_be_overridden(tmp_path: Path) -> None:
    recipe = Recipe(groups={"head": {"learning_rate": 2.0, "freeze_at": 0.5}})
    for suffix in ("json", "toml"):
        assert Recipe.load(recipe.save(tmp_path / f"r.{suffix}")) == recipe
    changed = recipe.override("groups.head.learning_rate", 3.0).override("groups.body.momentum", 0)
    assert changed.groups == {
        "head": {"learning_rate": 3.0, "freeze_at": 0.5},
        "body": {"momentum": 0},
    }


@given(recipe=recipes(), first=st.floats(0, 1), second=st.floats(0, 1))
def test_the_share_of_work_grows_from_0_to_1(recipe: Recipe, first: float, second: float) -> None:
    assert recipe.work_share(0) == 0
    assert recipe.work_share(1) == pytest.approx(1)
    low, high = sorted((first, second))
    assert recipe.work_share(low) <= recipe.work_share(high) + 1e-12


def test_nothing_in_a_recipe_can_be_changed() -> None:
    recipe = cifarzoo.get_model_info("simple").recipe
    for change in (
        lambda: recipe.optimizer_options.update(dense=False),
        lambda: recipe.optimizer_options.__setitem__("dense", False),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert cifarzoo.get_model_info("simple").recipe.optimizer_options == {"dense": True}


def test_what_a_recipe_was_made_from_stays_the_callers() -> None:
    milestones, sizes = [4], [[0, 24]]
    groups = {"head": {"learning_rate": 2}}
    recipe = Recipe(
        scheduler="multistep",
        scheduler_options={"milestones": milestones},
        groups=groups,
        image_sizes=sizes,
    )
    milestones.append(8)
    groups["head"]["learning_rate"] = 3
    sizes[0][1] = 16
    assert recipe.scheduler_options == {"milestones": [4]}
    assert recipe.scheduler_options["milestones"] == [4]
    assert recipe.groups == {"head": {"learning_rate": 2}}
    assert recipe.image_sizes == [[0, 24]]


def test_a_plain_copy_of_a_recipe_can_be_changed() -> None:
    recipe = Recipe(scheduler="multistep", scheduler_options={"milestones": [4]})
    data = recipe.to_dict()
    data["scheduler_options"]["milestones"].append(8)
    data["augmentation"]["cutout"] = 4
    assert recipe.scheduler_options == {"milestones": [4]}
    assert Recipe.from_dict(data).scheduler_options == {"milestones": [4, 8]}
    assert recipe.augmentation.cutout == 0


@pytest.mark.parametrize("number", [np.int64, np.uint8, np.array, torch.tensor])
def test_whole_numbers_of_other_libraries_are_whole_numbers(number: Any) -> None:
    recipe = Recipe(
        epochs=number(3),
        batch_size=number(64),
        seed=number(7),
        augmentation=Augmentation(crop_padding=number(2), cutout=number(8)),
    )
    assert recipe == Recipe(
        epochs=3,
        batch_size=64,
        seed=7,
        augmentation=Augmentation(crop_padding=2, cutout=8),
    )
    assert {type(recipe.epochs), type(recipe.seed), type(recipe.augmentation.cutout)} == {int}
    json.dumps(recipe.to_dict())


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, torch.tensor])
def test_numbers_of_other_libraries_are_numbers(number: Any) -> None:
    recipe = Recipe(
        learning_rate=number(0.5),
        optimizer_options={"betas": [number(0.5), number(0.25)]},
        groups={"head": {"learning_rate": number(2.0)}},
        image_sizes=np.array([[0, 24]]),
    )
    assert recipe.learning_rate == 0.5
    assert type(recipe.learning_rate) is float
    assert recipe.to_dict()["optimizer_options"] == {"betas": [0.5, 0.25]}
    assert recipe.groups == {"head": {"learning_rate": 2.0}}
    assert recipe.image_sizes == [[0, 24]]
    milestones = {"milestones": np.array([2, 4])}
    listed = Recipe(scheduler="multistep", scheduler_options=milestones)
    assert listed.scheduler_options == {"milestones": [2, 4]}


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), np.float64(2), np.ones(2)])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="epochs must be a whole number"):
        Recipe(epochs=value)
