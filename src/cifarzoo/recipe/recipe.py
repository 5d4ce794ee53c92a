"""A recipe: everything that decides how a network is trained, as one immutable value."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifarzoo.errors import ArgumentError
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import write_text
from cifarzoo.frozen import FrozenDict, FrozenList, thaw
from cifarzoo.names import check_options, real_number, texts
from cifarzoo.plain import bounds_problem, parse_json, shorten
from cifarzoo.recipe.augmentation import Augmentation
from cifarzoo.recipe.fields import freeze_plain, take_number
from cifarzoo.recipe.optimizers import check_group_options, check_optimizer
from cifarzoo.recipe.schedulers import check_scheduler

__all__ = ["Recipe"]

_LEAST_ALPHA = 0.001
_ALWAYS = ("epochs", "batch_size", "optimizer", "learning_rate", "scheduler", "augmentation")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Says how to train a network.

    A recipe cannot be changed, so it may be shared, compared and hashed. `replace` and `override`
    return changed copies, and `to_dict` returns plain data.

    Args:
        epochs: Number of passes over the training images.
        batch_size: Number of images in one optimizer step, over all processes together.
        model_options: Options of the model that the recipe is made for, as `create_model` takes
            them. The `Trainer` refuses a model that was built with other options.
        optimizer: A name of ``list_optimizers()``.
        learning_rate: Highest learning rate of the schedule.
        momentum: Momentum, for the optimizers that have one.
        weight_decay: Weight decay. It applies to weights, and not to biases or normalization
            parameters, unless ``groups`` says so. "muon_sgd" applies none to filters.
        optimizer_options: Further keyword arguments of the optimizer.
        groups: Settings of single groups of parameters, by the names that the model gives them. A
            group may have its own ``learning_rate``, ``momentum`` or ``weight_decay``. With
            ``freeze_at``, its parameters no longer change after that fraction of the run; this
            library's own schedules then come to their end at this point, those of timm and torch
            do not. Most models have the groups "weights" and "biases".
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        scheduler: A name of ``list_schedulers()``.
        scheduler_options: Options of that scheduler; times are in epochs.
        augmentation: Random changes to the training images.
        image_sizes: Sizes for progressive resolution, as pairs ``[from, size]``. From the fraction
            ``from`` of the run on, images have ``size`` pixels; the first pair begins at 0. Whole
            images are downsampled, with antialiasing. Empty trains at the images' own size.
        mixup_alpha: Beta parameter of mixup (Zhang et al. 2018), at least 0.001; 0 turns it off.
        cutmix_alpha: Beta parameter of CutMix (Yun et al. 2019), at least 0.001; 0 turns it off.
            With both on, each batch takes one of the two.
        ema_decay: Decay per step of an exponential moving average of the weights, which becomes
            the result; 0 turns it off. The decay grows to it: in step t, it is at most
            1 - (1 + t)^(-2/3), which is 0.99 after 1,000 steps and 0.999 after 31,600. The
            statistics of the average's batch normalization are measured again, on some 10,000
            training images.
        lookahead_decay: Decay per step, at the end of the run, of the slow weights of lookahead.
            The network is set to them every five steps (Zhang et al. 2019, arXiv:1907.08610); 0
            turns it off.
        teacher: Name of a pretrained model to learn from, as `create_model` takes it, or
            ``MODEL.TAG``, which names its weights too; "" for none. The Trainer gets the network
            itself.
        distillation_weight: Share of the teacher in the loss, in [0, 1]
            (Hinton et al. 2015, arXiv:1503.02531).
        distillation_temperature: Number that divides the logits of teacher and model before they
            are compared.
        clip_norm: Largest norm of the gradient; 0 turns clipping off.
        accumulate: Number of parts in which each batch passes through the network, if it does not
            fit into memory at once. Their gradients add up to those of the whole batch. Batch
            normalization sees each part alone, and a loss with class weights weighs within a part.
        seed: Seed of the order of the images, the augmentation and dropout.

    Raises:
        ArgumentError: A field is out of range or names something unknown.

    Example:
        >>> recipe = Recipe(epochs=24, learning_rate=0.05)
        >>> recipe.replace(epochs=2).epochs
        2
        >>> Recipe.from_dict(recipe.to_dict()) == recipe
        True
    """

    epochs: int = 30
    batch_size: int = 128
    model_options: Mapping[str, Any] = FrozenDict()
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer_options: Mapping[str, Any] = FrozenDict()
    groups: Mapping[str, Mapping[str, float]] = FrozenDict()
    label_smoothing: float = 0.0
    scheduler: str = "onecycle"
    scheduler_options: Mapping[str, Any] = FrozenDict()
    augmentation: Augmentation = dataclasses.field(
        default_factory=lambda: Augmentation(flip="random", crop_padding=4)
    )
    image_sizes: Sequence[Sequence[float]] = ()
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    ema_decay: float = 0.0
    lookahead_decay: float = 0.0
    teacher: str = ""
    distillation_weight: float = 0.9
    distillation_temperature: float = 1.0
    clip_norm: float = 0.0
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("model_options", "optimizer_options", "scheduler_options", "groups"):
            options = getattr(self, name)
            if not isinstance(options, Mapping):
                raise ArgumentError(
                    f"{name} must be a mapping of names to values; got {shorten(options)}"
                )
            # tuples and lists are one thing in TOML and JSON, so they are one thing here
            object.__setattr__(self, name, freeze_plain(options, name))
        augmentation: Any = self.augmentation
        if not isinstance(augmentation, Augmentation):
            parts = ", ".join(f"augmentation.{name}" for name in _field_names(Augmentation))
            raise ArgumentError(
                f"augmentation must be an Augmentation; got {shorten(augmentation)}: its "
                f"parts are {parts}"
            )
        take_number(self, "epochs", 1, 100_000, whole=True)
        take_number(self, "batch_size", 1, 1_000_000, whole=True)
        take_number(self, "learning_rate", 0, 1e6)
        take_number(self, "momentum", 0, 1, below=True)
        take_number(self, "weight_decay", 0, 1e3)
        take_number(self, "label_smoothing", 0, 1, below=True)
        object.__setattr__(self, "image_sizes", _check_image_sizes(self.image_sizes))
        for name in ("mixup_alpha", "cutmix_alpha"):
            take_number(self, name, 0, 100)
            if 0 < getattr(self, name) < _LEAST_ALPHA:  # what is drawn is rounded away
                raise ArgumentError(
                    f"{name} must be 0, which turns it off, or at least {_LEAST_ALPHA}; got "
                    f"{getattr(self, name)}"
                )
        take_number(self, "ema_decay", 0, 1, below=True)
        take_number(self, "lookahead_decay", 0, 1, below=True)
        take_number(self, "distillation_weight", 0, 1)
        take_number(self, "distillation_temperature", 0.1, 100)
        for name in ("teacher", "optimizer", "scheduler"):
            text = getattr(self, name)
            if not isinstance(text, str) or bounds_problem(text):
                whose = "a model's" if name == "teacher" else "its"
                raise ArgumentError(f"{name} must be {whose} name; got {shorten(text)}")
        take_number(self, "clip_norm", 0, 1e9)
        take_number(self, "accumulate", 1, 1000, whole=True)
        take_number(self, "seed", 0, 2**63 - 1, whole=True)
        check_optimizer(self.optimizer)
        check_group_options(self.groups)
        check_scheduler(self.scheduler, self.scheduler_options)

    def replace(self, **changes: Any) -> Recipe:
        """Copy the recipe with changed fields; ``augmentation`` may be a mapping of its fields."""
        check_options("recipe", changes, _field_names(Recipe))
        augmentation = changes.get("augmentation")
        if isinstance(augmentation, Mapping):
            check_options("recipe.augmentation", augmentation, _field_names(Augmentation))
            merged = dataclasses.replace(self.augmentation, **augmentation)
            changes = {**changes, "augmentation": merged}
        return dataclasses.replace(self, **changes)

    def image_size_at(self, progress: float) -> int | None:
        """Find the side in pixels to train at after the fraction ``progress`` of the run.

        None stands for the images' own size.

        Example:
            >>> recipe = Recipe(image_sizes=[[0, 24], [0.5, 32]])
            >>> recipe.image_size_at(0.49), recipe.image_size_at(0.5), Recipe().image_size_at(0)
            (24, 32, None)
        """
        size = None
        for start, side in self.image_sizes:
            if progress >= start:
                size = int(side)
        return size

    def work_share(self, progress: float) -> float:
        """Compute the share of the run's work that is done after a fraction of its steps, 0..1.

        A step costs as much as its images have pixels.

        Example:
            >>> Recipe(image_sizes=[[0, 16], [0.5, 32]]).work_share(0.5)
            0.2
        """
        if not self.image_sizes:
            return progress
        ends = [*(start for start, _ in self.image_sizes[1:]), 1.0]
        done = work = 0.0
        for (start, side), end in zip(self.image_sizes, ends, strict=True):
            done += max(0.0, min(progress, end) - start) * side**2
            work += (end - start) * side**2
        return done / work

    def override(self, field: str, value: Any) -> Recipe:
        """Copy the recipe with one field changed by its dotted name, as on the command line.

        Example:
            >>> Recipe().override("augmentation.cutout", 8).augmentation.cutout
            8
        """
        outer, dot, inner = field.partition(".")
        if not dot:
            # options belong to the scheduler or optimizer they were written for
            is_other = field in ("scheduler", "optimizer") and value != getattr(self, field)
            reset: dict[str, Any] = {f"{field}_options": {}} if is_other else {}
            return self.replace(**{field: value, **reset})
        if outer == "augmentation":
            return self.replace(augmentation={inner: value})
        if outer in ("model_options", "optimizer_options", "scheduler_options"):
            return self.replace(**{outer: {**getattr(self, outer), inner: value}})
        if outer == "groups":
            group, _, option = inner.partition(".")
            changed = {**self.groups.get(group, {}), option: value}
            return self.replace(groups={**self.groups, group: changed})
        raise ArgumentError(f"recipe field {outer!r} has no parts; got {field!r}")

    def __str__(self) -> str:
        """What it sets, in a line: what every recipe decides, and what else is not off."""
        plain = Recipe.from_dict({"augmentation": {}}).to_dict()
        shown = {k: v for k, v in self.to_dict().items() if k in _ALWAYS or v != plain[k]}
        shown["augmentation"] = self.augmentation.changes() or "none"
        if self.groups:
            shown["groups"] = f"({', '.join(self.groups)})"
        return ", ".join(f"{key}={_flat(value)}" for key, value in shown.items())

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as plain data for JSON and TOML; `from_dict` reads it back."""
        data: dict[str, Any] = thaw(dataclasses.asdict(self))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain data; fields left out take their defaults.

        If an ``augmentation`` is given, the changes that it leaves out are off.

        Raises:
            ArgumentError: It is no dict, or a field is unknown or wrong.
        """
        if not isinstance(data, Mapping) or texts([*data]) is None:
            raise ArgumentError(f"a recipe's data must be a dict of fields; got {shorten(data)}")
        data = dict(data)
        # what a file leaves out is off, whatever the default recipe does
        if isinstance(data.get("augmentation"), Mapping):
            check_options("recipe.augmentation", data["augmentation"], _field_names(Augmentation))
            data["augmentation"] = Augmentation(**data["augmentation"])
        return cls().replace(**data)

    def to_toml(self) -> str:
        """Write the recipe as TOML text, without empty options; `load` reads it from a file."""
        import tomli_w

        return tomli_w.dumps({key: value for key, value in self.to_dict().items() if value != {}})

    def save(self, path: str | Path) -> Path:
        """Write the recipe as JSON or TOML, chosen by the suffix of ``path``."""
        if _suffix(path) == ".json":
            return write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")
        return write_text(path, self.to_toml())

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from a JSON or TOML file.

        Raises:
            ArgumentError: There is no such file, it does not parse, or a field is wrong.
        """
        suffix = _suffix(path)
        try:
            content = home_path(path).read_bytes()
            # editors of Windows begin a file with a mark, and its shells write UTF-16
            text = content.decode(json.detect_encoding(content))
            data = parse_json(text) if suffix == ".json" else _parse_toml(text)
        except FileNotFoundError as error:
            raise ArgumentError(
                f"there is no file {path}; Recipe.save() writes one, and so does `cifarzoo recipes "
                f"MODEL > {path}`"
            ) from error
        except (OSError, ValueError) as error:
            raise ArgumentError(f"cannot read recipe {path}: {error}") from error
        if not isinstance(data, dict):
            raise ArgumentError(f"recipe {path} must hold a table of fields")
        return cls.from_dict(data)


def _flat(value: Any) -> str:
    """A value within a line."""
    if not isinstance(value, Mapping):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return "(" + ", ".join(f"{key}={_flat(part)}" for key, part in value.items()) + ")"


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return data


def _suffix(path: str | Path) -> str:
    suffix = home_path(path).suffix.lower()
    if suffix not in (".json", ".toml"):
        raise ArgumentError(f"a recipe file ends in .toml or .json; got {str(path)!r}")
    return suffix


def _field_names(cls: type[Recipe] | type[Augmentation]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _check_image_sizes(pairs: Any) -> FrozenList:
    problem = ArgumentError(
        "image_sizes must be pairs [from, size]: fractions of the run in [0, 1) that rise from 0, "
        f"and whole numbers of 8 to 1024 pixels; got {shorten(pairs)}"
    )
    try:
        plain: list[list[Any]] = [[*map(real_number, (start, size))] for start, size in pairs]
    except (TypeError, ValueError):
        raise problem from None
    if any(number is None for pair in plain for number in pair):
        raise problem
    starts = [start for start, _ in plain]
    rising = all(a < b for a, b in itertools.pairwise(starts))
    valid = not plain or (starts[0] == 0 and rising and starts[-1] < 1)
    if not (valid and all(8 <= size <= 1024 and size == int(size) for _, size in plain)):
        raise problem
    return FrozenList([float(start), int(size)] for start, size in plain)
