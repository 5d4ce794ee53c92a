"""Recipes that nobody should train by are refused before any work, in our words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifarzoo import Augmentation, ImageSet, Recipe, Trainer, create_model
from cifarzoo.errors import ArgumentError, CifarZooError
from cifarzoo.recipe.optimizers import build_optimizer, first_state
from cifarzoo.recipe.schedulers import build_scheduler, list_schedulers

KNOT: list[Any] = []
KNOT.append(KNOT)
DEEP = 100_000


@pytest.mark.parametrize(
    "changes",
    [
        {"image_sizes": [[0, math.inf]]},
        {"image_sizes": [[0, math.nan]]},
        {"image_sizes": [["0", "16"]]},
        {"image_sizes": [[0, 10**400]]},
        {"image_sizes": KNOT},
        {"mixup_alpha": 1e-200},
        {"cutmix_alpha": 1e-9},
        {"learning_rate": 10**400},
        {"optimizer": b"sgd"},
        {"optimizer": ["sgd"]},
        {"scheduler": {"name": "cosine"}},
        {"teacher": "\ud800"},
        {"optimizer_options": {"eps": math.nan}},
        {"optimizer_options": {"eps": 10**5000}},
        {"optimizer_options": {"eps": KNOT}},
        {"model_options": {"\udfff": 1}},
        {"augmentation": {"policies": [{"name": "color_jitter", "hue": 10**400}]}},
        {"augmentation": {"policies": [{"name": "rand_augment", "num_ops": 10**12}]}},
        {"augmentation": {"policies": [{"name": "trivial_augment", "num_magnitude_bins": 1e300}]}},
        {"augmentation": {"policies": KNOT}},
    ],
)
def test_a_field_beyond_its_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Recipe().replace(**changes)
    with pytest.raises(ArgumentError):
        Recipe.from_dict({**Recipe().to_dict(), **changes})


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_file_that_is_nested_without_end_is_refused(suffix: str, tmp_path: Path) -> None:
    nested = "[" * DEEP + "]" * DEEP
    text = f'{{"groups": {nested}}}' if suffix == ".json" else f"groups = {nested}"
    path = tmp_path / f"recipe{suffix}"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=r"cannot read recipe .*nested too deeply"):
        Recipe.load(path)


def test_a_recipe_with_every_group_frozen_is_refused_before_any_step(few: ImageSet) -> None:
    groups = {"weights": {"freeze_at": 0.5}, "biases": {"freeze_at": 0}}
    model = create_model("simple", seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ArgumentError, match=r"every group .* frozen .*; leave freeze_at out"):
        Trainer(model, Recipe(epochs=2, batch_size=100, groups=groups), device="cpu").fit(few)
    assert all(map(torch.equal, before, model.parameters()))
    del groups["biases"]
    Trainer(model, Recipe(epochs=2, batch_size=100, groups=groups), device="cpu").fit(few)


def test_mixing_takes_a_whole_number(few: ImageSet) -> None:
    recipe = Recipe(epochs=1, batch_size=50, mixup_alpha=1, cutmix_alpha=1)
    assert len(Trainer(create_model("simple"), recipe, device="cpu").fit(few)) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("momentum", {"dampening": {"a": 1}}),
        ("muon_sgd", {"steps": math.inf}),
        ("mars", {"betas": {}}),
        ("adamax", {"betas": ""}),
        ("nadamlegacy", {"betas": []}),
    ],
)
def test_an_option_that_only_a_step_would_refuse_is_refused_at_once(
    name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ArgumentError, match=f"optimizer '{name}' cannot be built: ."):
        build_optimizer(name, create_model("simple"), learning_rate=0.1, options=options)


def test_a_trial_step_leaves_no_trace() -> None:
    model = create_model("simple", seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = build_optimizer("adam", model, learning_rate=0.1)
    drawn = torch.get_rng_state()
    assert {*first_state(optimizer)[0]} == {"step", "exp_avg", "exp_avg_sq"}
    assert not optimizer.state
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


ODD = st.sampled_from(
    [None, True, "x", -1, 0, 1e-200, 1e308, math.inf, -math.inf, 10**18, [], [1], {"a": 1}]
)
NAMES = ["warmup_epochs", "final_factor", "gamma", "power", "patience", "milestones", "decay_rate"]


@given(
    name=st.sampled_from(list_schedulers()), options=st.dictionaries(st.sampled_from(NAMES), ODD)
)
def test_a_schedule_is_refused_or_gives_rates_to_the_end(name: str, options: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    try:
        schedule = build_scheduler(name, optimizer, epochs=4, steps_per_epoch=3, options=options)
    except CifarZooError:
        return
    optimizer.step()
    for _ in range(12):
        schedule.step(1.0) if name == "plateau" else schedule.step()  # type: ignore[arg-type]  # a loss
        assert 0 <= optimizer.param_groups[0]["lr"] < math.inf


@given(
    field=st.sampled_from([*Recipe().to_dict(), *vars(Augmentation())]),
    value=ODD | st.floats() | st.integers() | st.text() | st.binary(),
)
def test_any_value_in_any_field_is_taken_or_refused_in_our_words(field: str, value: Any) -> None:
    change = {field: value} if field in Recipe().to_dict() else {"augmentation": {field: value}}
    try:
        recipe = Recipe().replace(**change)
    except CifarZooError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    hash(recipe)
