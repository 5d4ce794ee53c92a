"""Whether a checkpoint fits a run: all of it is compared before anything of the run is changed.

torch takes over what it is given: a buffer of another shape, and its fused kernels walk past the
end of memory. So each tensor is compared with the one that it will replace.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import NotRequired, TypedDict  # pydantic takes typing's from Python 3.12 on

from cifarzoo.errors import ArgumentError, CheckpointError
from cifarzoo.plain import Real, problem_of, shorten
from cifarzoo.recipe import Augmentation, Recipe
from cifarzoo.recipe.optimizers import first_state
from cifarzoo.training.checkpoint import check_same, read_checkpoint
from cifarzoo.zoo.card import ModelCard
from cifarzoo.zoo.facts import Count, Record

__all__ = [
    "BestState",
    "LearnerState",
    "Saved",
    "expected_state",
    "is_stock",
    "read_saved",
    "take_generator",
    "take_like",
    "take_optimizer",
]

_Finite = Annotated[Real, Interval(ge=0, lt=math.inf)]


class _Recipe(TypedDict):
    augmentation: dict[str, Any]


class LearnerState(TypedDict):
    """What `Learner.state_dict` returns."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    ema: dict[str, Any] | None
    lookahead: list[Any] | None
    scaler: NotRequired[dict[str, Any] | None]
    loss: NotRequired[dict[str, Any]]
    untouched: NotRequired[list[Count]]
    steps: Count
    learning_rate: _Finite


class BestState(TypedDict):
    """What `Best.to_dict` returns."""

    epoch: Count
    accuracy: Real
    state: dict[str, Any]


class Saved(TypedDict):
    """What a checkpoint holds."""

    card: dict[str, Any]
    recipe: _Recipe
    learner: LearnerState
    data: Any  # of the source, whatever it is
    rng: Any
    epoch_rng: Any
    cuda_rng: Any
    records: list[Record]
    best: NotRequired[BestState | None]
    checksums: NotRequired[dict[str, str]]
    steps_per_epoch: Annotated[Count, Ge(1)]
    step: Count
    images: Count
    seconds: _Finite
    meter: Any


def read_saved(path: Path, card: ModelCard, recipe: Recipe) -> Saved:
    """The checkpoint at ``path``, if it is whole, and of a run of this model by this recipe.

    Raises:
        CheckpointError: It is damaged, or of another run.
    """
    saved = _check_saved(read_checkpoint(path))
    try:
        made_by = ModelCard.from_dict(saved["card"])
    except ArgumentError as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    check_same("model", _identity(made_by), _identity(card))
    check_same("recipe", _complete(saved["recipe"]), recipe.to_dict())
    return saved


def _check_saved(state: Mapping[str, Any]) -> Saved:
    """``state``, if it has all fields of a checkpoint, and their places in the run agree.

    Raises:
        CheckpointError: A field is missing, of another kind, or contradicts another.
    """
    problem = problem_of(state, Saved)
    if not problem:
        saved = cast("Saved", state)
        records, steps, step = saved["records"], saved["learner"]["steps"], saved["step"]
        if [record["epoch"] for record in records] != [*range(1, len(records) + 1)]:
            problem = "its records are not those of one epoch after the other"
        elif step >= saved["steps_per_epoch"]:
            problem = f"step {step} lies beyond an epoch of {saved['steps_per_epoch']} steps"
        elif saved["images"] < step:
            problem = f"{saved['images']} images are too few for {step} steps"
        elif steps != len(records) * saved["steps_per_epoch"] + step:
            problem = f"{steps} steps are not those of {len(records)} epochs and {step} steps"
        else:
            return saved
    raise CheckpointError(f"the checkpoint is damaged: {problem}; take an earlier one")


def _identity(card: ModelCard) -> dict[str, Any]:
    """What makes a model another one; the layers are compared when they are loaded."""
    plain = card.to_dict()
    return {key: plain[key] for key in ("name", "options", "preprocessing")}


def _complete(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A saved recipe with the fields that came later, as they are when nobody sets them."""
    augmentation = {**dataclasses.asdict(Augmentation()), **recipe["augmentation"]}
    return {**Recipe().to_dict(), **recipe, "augmentation": augmentation}


def take_like(saved: Any, current: Any, name: str, *, lenient: bool = False) -> Any:
    """``saved``, if it can stand where ``current`` does.

    Args:
        saved: Part of a checkpoint: tensors, numbers, texts, dicts and lists of them.
        current: The same part of the run.
        name: What to call it.
        lenient: Whether a dict may have other fields, as those of another version of torch has;
            they are left out, and what is no number may be missing.

    Raises:
        CheckpointError: It cannot; the first part that differs is named.
    """
    if isinstance(current, Tensor):
        return _take_tensor(saved, current, name)
    if isinstance(current, bool | str):
        if type(saved) is not type(current):
            raise _misfit(name, saved, f"such as {current!r}")
        return saved
    if isinstance(current, int | float):
        return _take_number(saved, name, may_be_infinite=math.isinf(current))
    if isinstance(current, Mapping):
        return _take_mapping(saved, current, name, lenient=lenient)
    if isinstance(current, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(current):
            raise _misfit(name, saved, f"a list of {len(current)}")
        pairs = enumerate(zip(saved, current, strict=True))
        return type(current)(
            [take_like(a, b, f"{name}.{i}", lenient=lenient) for i, (a, b) in pairs]
        )
    if current is None and saved is not None:
        return _take_number(saved, name)
    return saved


def _take_mapping(
    saved: Any, current: Mapping[Any, Any], name: str, *, lenient: bool
) -> dict[Any, Any]:
    if not isinstance(saved, Mapping):
        raise _misfit(name, saved, "a dictionary")
    taken = {}
    for key, own in current.items():
        if key in saved:
            taken[key] = take_like(saved[key], own, f"{name}.{key}", lenient=lenient)
        elif not (lenient and isinstance(own, bool | str | None)):
            raise CheckpointError(f"{name}.{key} is missing in it")
    unknown = saved.keys() - current.keys()
    if unknown and not lenient:
        raise CheckpointError(f"{name}.{min(map(str, unknown))} is unknown here")
    return taken


def _take_tensor(saved: Any, current: Tensor, name: str) -> Tensor:
    if not isinstance(saved, Tensor):
        raise _misfit(name, saved, "a tensor")
    if saved.shape != current.shape:
        shapes = f"{tuple(saved.shape)}, here it has {tuple(current.shape)}"
        raise CheckpointError(f"{name} has the shape {shapes}")
    if saved.dtype != current.dtype and not (
        saved.is_floating_point() and current.is_floating_point()
    ):
        raise CheckpointError(f"{name} is of {saved.dtype}, here it is of {current.dtype}")
    return saved


def _take_number(saved: Any, name: str, *, may_be_infinite: bool = False) -> int | float:
    is_number = isinstance(saved, int | float) and not isinstance(saved, bool)
    # a whole number of Python may be too large for a float
    if not is_number or not (abs(saved) <= sys.float_info.max or may_be_infinite):
        raise _misfit(name, saved, "a number")
    return saved  # type: ignore[no-any-return]  # looked at


def _misfit(name: str, saved: Any, wanted: str) -> CheckpointError:
    return CheckpointError(f"{name} should be {wanted}; got {shorten(saved)}")


def take_generator(saved: Any, name: str, device: torch.device | str = "cpu") -> Tensor:
    """``saved``, if it is the state of a generator on ``device``.

    Raises:
        CheckpointError: It is not.
    """
    try:
        torch.Generator(device).set_state(saved)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{name} is no state of a generator: {error}") from error
    return cast("Tensor", saved)


def expected_state(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What an optimizer keeps for each of its parameters; nothing where it makes no step alone."""
    try:
        return first_state(optimizer)
    except Exception:  # somebody's own
        return [{} for _ in _parameters(optimizer)]


def take_optimizer(
    saved: Mapping[str, Any],
    optimizer: Optimizer,
    expected: list[dict[str, Any]],
    *,
    steps: int,
) -> dict[str, Any]:
    """The state of an optimizer, as its ``load_state_dict`` takes it.

    Numbers of its groups come from the checkpoint, for a schedule changes them; switches, which
    depend on the machine, stay as they are.

    Args:
        saved: From a checkpoint.
        optimizer: That is to go on with it.
        expected: What `expected_state` found.
        steps: That were made.

    Raises:
        CheckpointError: A part of it does not fit; it is named.
    """
    own, name = optimizer.state_dict(), "learner.optimizer"
    # those keep nothing but numbers and tensors of the parameters' shapes beside what is expected
    is_known = is_stock(optimizer)
    groups = saved.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise _misfit(f"{name}.param_groups", groups, f"a list of {len(own['param_groups'])}")
    state = saved.get("state")
    if not isinstance(state, Mapping):
        raise _misfit(f"{name}.state", state, "a dictionary")
    parameters = _parameters(optimizer)
    for key, kept in state.items():
        place = f"{name}.state.{key}"
        if not isinstance(key, int) or not 0 <= key < len(parameters):
            if is_known:
                raise CheckpointError(f"{place} is of no parameter")
        elif not isinstance(kept, Mapping):
            raise _misfit(place, kept, "a dictionary")
        elif lost := expected[key].keys() - kept.keys():
            raise CheckpointError(f"{place}.{min(lost)} is missing in it")
        else:
            for field, value in kept.items():
                like = expected[key].get(field, value if _is_number(value) else parameters[key])
                if is_known or field in expected[key]:
                    _take_kept(value, like, f"{place}.{field}", most=steps if is_known else None)
    pairs = enumerate(zip(groups, own["param_groups"], strict=True))
    taken = [_take_group(group, mine, f"{name}.param_groups.{i}") for i, (group, mine) in pairs]
    return {**saved, "param_groups": taken}


def _take_kept(value: Any, like: Any, name: str, *, most: int | None) -> None:
    """Compare one thing that is kept for a parameter; raises CheckpointError."""
    take_like(value, like, name)
    if most is not None and name.endswith(".step") and not 0 <= float(value) <= most:
        raise _misfit(name, value, f"a number of steps up to {most}")


def _take_group(group: Any, own: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(group, Mapping):
        raise _misfit(name, group, "a dictionary")
    if problem_of(group.get("params"), list[int]) or group["params"] != own["params"]:
        raise CheckpointError(f"{name}.params are not the parameters that the group has here")
    taken = dict(own)
    for key, mine in own.items():
        numbers = mine if isinstance(mine, list | tuple) and mine else [mine]
        if key == "params" or not all(_is_number(each) for each in numbers):
            continue
        if key not in group:
            raise CheckpointError(f"{name}.{key} is missing in it")
        taken[key] = take_like(group[key], mine, f"{name}.{key}")
        if isinstance(mine, int | float) and mine >= 0 > taken[key]:
            raise _misfit(f"{name}.{key}", taken[key], "a number of at least 0")
    others = {key: value for key, value in group.items() if key not in own and _is_number(value)}
    return {**taken, **others}


def _is_number(value: Any) -> bool:
    """Whether ``value`` is one number, be it as a tensor."""
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_stock(value: Any) -> bool:
    """Whether something is of torch, of timm or of this library, so that its state is known."""
    return type(value).__module__.partition(".")[0] in ("torch", "timm", "cifarzoo")


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
