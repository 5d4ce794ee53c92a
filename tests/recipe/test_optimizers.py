"""Optimizers by name, and which parameters they decay."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from cifarzoo import Recipe, create_model, list_optimizers, register_optimizer
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.recipe.optimizers import build_optimizer, check_optimizer, parameter_groups


@pytest.fixture
def model() -> nn.Module:
    """Weights, biases and normalization parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def make_step(model: nn.Module, optimizer: Optimizer) -> bool:
    """Make one step; whether every parameter has changed and is finite."""
    before = [p.detach().clone() for p in model.parameters()]
    generator = torch.Generator().manual_seed(0)
    logits = model(torch.randn(8, 3, 3, 3, generator=generator))
    logits.square().sum().backward()
    optimizer.step()
    return all(
        not torch.equal(old, new) and bool(new.isfinite().all())
        for old, new in zip(before, model.parameters(), strict=True)
    )


def test_names_are_sorted_and_hold_torchs_and_timms() -> None:
    names = list_optimizers()
    assert "adahessian" not in names  # it would need gradients of gradients
    assert not any(name.startswith(("bnb", "fused")) for name in names)  # of other packages
    assert names == sorted(names)
    assert {"adam", "adamw", "lamb", "lion", "momentum", "sgd"} <= {*names}


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'adamww'; did you mean 'adamw'\? See list_opt"):
        check_optimizer("adamww")


@pytest.mark.parametrize("name", ["kron", "kronw", "adahessian", "bnbadam8bit", "fusedadam"])
def test_what_is_left_out_is_refused_with_the_reason(name: str) -> None:
    assert name not in list_optimizers()
    with pytest.raises(UnknownNameError, match=rf"optimizer '{name}' is left out: \w+ .*"):
        Recipe(optimizer=name)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", SGD), ("momentum", SGD), ("adam", Adam), ("adamw", AdamW)]
)
def test_torchs_own_are_torchs_own(name: str, kind: type, model: nn.Module) -> None:
    optimizer = build_optimizer(name, model, learning_rate=0.01)
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    assert make_step(model, optimizer)


@pytest.mark.parametrize("name", ["lamb", "lion"])
def test_timms_optimizers_build_and_step(name: str, model: nn.Module) -> None:
    optimizer = build_optimizer(name, model, learning_rate=0.01, weight_decay=0.3)
    assert name in type(optimizer).__name__.lower()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert make_step(model, optimizer)


@pytest.mark.parametrize(
    ("name", "momentum", "nesterov"),
    [("sgd", 0.9, True), ("momentum", 0.9, False), ("sgd", 0.0, False)],
)
def test_sgd_has_nesterov_momentum_where_there_is_momentum(
    name: str, momentum: float, nesterov: bool, model: nn.Module
) -> None:
    optimizer = build_optimizer(name, model, learning_rate=0.01, momentum=momentum)
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (momentum, nesterov)
    assert make_step(model, optimizer)


def test_weights_decay_and_biases_and_normalization_never() -> None:
    model = create_model("resnet18", seed=0)
    weights, others = parameter_groups(model, 0.1)
    decayed = {id(p) for p in weights["params"]}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_weight = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
            assert (id(parameter) in decayed) == is_weight
    assert weights["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    assert len(weights["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_decay_alone_shrinks_weights_and_leaves_the_rest(model: nn.Module) -> None:
    optimizer = build_optimizer("sgd", model, learning_rate=0.5, momentum=0, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_frozen_parameters_are_left_out(model: nn.Module) -> None:
    model[0].requires_grad_(False)
    frozen = {id(p) for p in model[0].parameters()}
    optimizer = build_optimizer("sgd", model, learning_rate=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == 4
    assert frozen.isdisjoint(held)


def test_a_group_without_members_is_left_out() -> None:
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


def test_nothing_to_train_is_refused(model: nn.Module) -> None:
    model.requires_grad_(False)
    with pytest.raises(ArgumentError, match="no trainable parameters; set requires_grad"):
        build_optimizer("sgd", model, learning_rate=0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"betas": 1}),
        ("adam", {"eps": -1.0}),
        ("lamb", {"colour": 1}),
        ("adamw", {"foreach": True}),
    ],
)
def test_a_wrong_option_names_the_optimizer(
    name: str, options: dict[str, Any], model: nn.Module
) -> None:
    with pytest.raises(ArgumentError, match=f"optimizer '{name}' cannot be built: ."):
        build_optimizer(name, model, learning_rate=0.1, options=options)


def test_an_optimizer_that_takes_no_groups_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"LBFGS.* cannot be built: .*per-parameter options"):
        build_optimizer(torch.optim.LBFGS, create_model("simple"), learning_rate=0.1)


def test_options_reach_the_optimizer(model: nn.Module) -> None:
    optimizer = build_optimizer(
        "adamw", model, learning_rate=0.1, options={"betas": [0.5, 0.6], "fused": False}
    )
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.5, 0.6)
    assert make_step(model, optimizer)


def test_a_factory_is_given_the_groups(model: nn.Module) -> None:
    def factory(groups: list[dict[str, Any]]) -> Optimizer:
        return SGD(groups, lr=0.25)

    optimizer = build_optimizer(factory, model, learning_rate=0.1, weight_decay=0.01)
    found = [(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert found == [(0.25, 0.01, 2), (0.25, 0.0, 4)]


class TwoRoles(nn.Module):
    """A model that names its groups."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 2)
        self.head.bias.requires_grad = False

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"body": list(self.body.parameters()), "head": list(self.head.parameters())}


def test_a_recipe_sets_options_of_a_models_own_groups() -> None:
    changes = {"head": {"learning_rate": 2.0, "weight_decay": 0.0, "freeze_at": 0.5}}
    optimizer = build_optimizer(
        "sgd", TwoRoles(), learning_rate=0.1, weight_decay=0.3, groups=changes
    )
    body, head = optimizer.param_groups
    assert (body["name"], body["lr"], body["weight_decay"]) == ("body", 0.1, 0.3)
    assert (head["name"], head["lr"], head["weight_decay"]) == ("head", 2.0, 0.0)
    assert head["freeze_at"] == 0.5
    assert len(head["params"]) == 1  # the frozen bias is left out


def test_an_unknown_group_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnknownNameError, match="parameter group 'weight'; did you mean 'weights'"):
        parameter_groups(model, 0.1, {"weight": {"learning_rate": 0.1}})


def test_groups_that_leave_out_or_repeat_a_parameter_are_refused() -> None:
    model = TwoRoles()
    model.parameter_groups = lambda: {"body": list(model.body.parameters())}  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="each trained parameter once: it holds 2"):
        parameter_groups(model, 0.0)
    model.parameter_groups = lambda: {  # type: ignore[method-assign]
        "all": [*model.parameters()],
        "again": [model.body.weight],
    }
    with pytest.raises(ArgumentError, match="it holds 4, the model has 3"):
        parameter_groups(model, 0.0)


def test_a_class_is_given_the_recipes_learning_rate(model: nn.Module) -> None:
    optimizer = build_optimizer(torch.optim.AdamW, model, learning_rate=0.02, weight_decay=0.3)
    assert type(optimizer) is AdamW
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.02, 0.3),
        (0.02, 0.0),
    ]
    optimizer = build_optimizer(torch.optim.RMSprop, model, learning_rate=0.02, momentum=0.7)
    assert optimizer.param_groups[0]["momentum"] == 0.7


def test_what_a_partial_says_wins_over_the_recipe(model: nn.Module) -> None:
    factory = functools.partial(torch.optim.AdamW, betas=(0.5, 0.6), weight_decay=0.04)
    optimizer = build_optimizer(factory, model, learning_rate=0.02, weight_decay=0.3)
    found = [(g["lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [(0.02, (0.5, 0.6), 0.04), (0.02, (0.5, 0.6), 0.0)]
    optimizer = build_optimizer(
        functools.partial(torch.optim.SGD, lr=0.5), model, learning_rate=0.02, momentum=0.8
    )
    assert {(g["lr"], g["momentum"]) for g in optimizer.param_groups} == {(0.5, 0.8)}


def test_a_registered_optimizer_is_named_in_a_recipe(
    own_registries: None, model: nn.Module
) -> None:
    @register_optimizer("half_sgd")
    def half_sgd(groups: Any, lr: float, *, share: float = 0.5) -> Optimizer:
        return SGD(groups, lr=share * lr)

    assert "half_sgd" in list_optimizers()
    recipe = Recipe(optimizer="half_sgd", optimizer_options={"share": 0.25}, learning_rate=0.4)
    optimizer = build_optimizer(
        recipe.optimizer, model, learning_rate=0.4, options=recipe.optimizer_options
    )
    assert optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(ArgumentError, match=r"'half_sgd' cannot be built: .*colour"):
        build_optimizer("half_sgd", model, learning_rate=0.4, options={"colour": 1})
    for taken in ("half_sgd", "sgd", "lamb", "a:b"):
        with pytest.raises(DuplicateNameError, match="already registered, or no name"):
            register_optimizer(taken)(half_sgd)


def test_an_optimizer_is_imported_by_its_path(model: nn.Module, tmp_path: Path) -> None:
    recipe = Recipe(optimizer="torch.optim:Adagrad", optimizer_options={"lr_decay": 0.1})
    recipe.save(tmp_path / "recipe.toml")
    again = Recipe.load(tmp_path / "recipe.toml")
    assert again == recipe
    optimizer = build_optimizer(
        again.optimizer, model, learning_rate=0.3, options=again.optimizer_options
    )
    assert type(optimizer) is torch.optim.Adagrad
    group = optimizer.param_groups[0]
    assert (group["lr"], group["lr_decay"]) == (0.3, 0.1)
    for wrong in ("torch.optim:Adagradd", "no_such_module:Adam"):
        with pytest.raises(ArgumentError, match=f"optimizer '{wrong}' cannot be imported"):
            build_optimizer(wrong, model, learning_rate=0.1)


def test_importing_waits_for_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe from a stranger runs nothing while it is read."""
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Recipe(optimizer="of_a_stranger:Adam").optimizer == "of_a_stranger:Adam"
    assert "of_a_stranger" not in sys.modules


def test_a_class_that_takes_any_keyword_gets_the_rate_and_the_momentum(model: nn.Module) -> None:
    class Mine(torch.optim.SGD):
        def __init__(self, params: Any, **options: Any) -> None:
            super().__init__(params, **options)

    def adam(groups: Any, **options: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, **options)

    built = build_optimizer(Mine, model, learning_rate=0.5, momentum=0.8)
    assert {(g["lr"], g["momentum"]) for g in built.param_groups} == {(0.5, 0.8)}
    for factory in (adam, functools.partial(adam, betas=(0.8, 0.9))):
        built = build_optimizer(factory, model, learning_rate=0.5)
        assert {g["lr"] for g in built.param_groups} == {0.5}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon_sgd", "lamb", "torch.optim:RMSprop"])
@pytest.mark.parametrize(
    ("option", "field"),
    [("weight_decay", "weight_decay"), ("lr", "learning_rate"), ("momentum", "momentum")],
)
def test_what_the_recipe_says_is_no_option_too(
    name: str, option: str, field: str, model: nn.Module
) -> None:
    with pytest.raises(ArgumentError, match=f"optimizer_options.{option} .* set {field}"):
        build_optimizer(name, model, learning_rate=0.1, options={option: 0.3})


def test_a_group_with_a_momentum_of_its_own_has_nesterovs(model: nn.Module) -> None:
    for name in ("sgd", "momentum"):
        built = build_optimizer(
            name, model, learning_rate=0.1, momentum=0.0, groups={"weights": {"momentum": 0.9}}
        )
        found = {g["name"]: (g["momentum"], g["nesterov"]) for g in built.param_groups}
        assert found == {"weights": (0.9, name == "sgd"), "biases": (0.0, False)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.5}, "groups.weights.momentum must be below 1; got 1.5"),
        ({"momentum": -0.1}, "must be a finite number of at least 0; got -0.1"),
        ({"learning_rate": float("inf")}, "must be a finite number of at least 0; got inf"),
        ({"weight_decay": float("nan")}, "got nan"),
        ({"learning_rate": "0.1"}, "must be a finite number of at least 0; got '0.1'"),
    ],
)
def test_options_of_groups_are_checked_as_those_of_the_recipe(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Recipe(groups={"weights": options})


def test_a_momentum_that_the_optimizer_does_not_have_is_refused(model: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="Adam has no momentum"):
        build_optimizer("adam", model, learning_rate=0.1, groups={"weights": {"momentum": 0.5}})
    build_optimizer("muon_sgd", model, learning_rate=0.1, groups={"biases": {"momentum": 0.5}})


@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_nesterovs_momentum_is_chosen_by_the_name(name: str, model: nn.Module) -> None:
    with pytest.raises(ArgumentError, match="'momentum' is without it; leave nesterov out"):
        build_optimizer(name, model, learning_rate=0.1, options={"nesterov": False})
