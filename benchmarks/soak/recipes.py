"""Recipes drawn by Hypothesis: valid ones train and come back whole, others are refused by us."""

from __future__ import annotations

import functools
import json
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import torch
from found import Found
from hypothesis import strategies as st
from small import register_small

import strategies  # isort: skip  (of tests)
from cifarzoo import (
    Augmentation,
    EpochRecord,
    ImageSet,
    Logger,
    Recipe,
    Trainer,
    create_model,
)
from cifarzoo.errors import CifarZooError, NonFiniteLossError
from cifarzoo.recipe.optimizers import list_optimizers

__all__ = ["soak"]

_SIZE = 4  # images in a batch
_FIELDS = [*Recipe().to_dict(), *vars(Augmentation())]


class Once(Logger):
    """Ends a run after its first epoch."""

    def on_epoch(self, record: EpochRecord) -> bool:
        """Ask for the end."""
        return True


@st.composite
def valid(draw: st.DrawFn) -> Recipe:
    """Any recipe that should train; its first epoch has two steps."""
    scheduler = draw(st.sampled_from(strategies.schedulers()))
    epochs, _, options = draw(strategies.schedules(scheduler))
    return draw(strategies.recipes()).replace(
        epochs=epochs,
        batch_size=_SIZE,
        learning_rate=draw(st.floats(1e-6, 0.1)),
        momentum=draw(st.floats(0.01, 0.99)),  # some optimizers need one
        optimizer=draw(st.sampled_from(list_optimizers())),
        scheduler=scheduler,
        scheduler_options=options,
        groups=draw(st.sampled_from([{}, {"biases": {"learning_rate": 2, "freeze_at": 0.5}}])),
        accumulate=draw(st.sampled_from([1, 2])),
    )


odd = st.sampled_from(
    [None, True, "x", "\ud800", b"x", -1, 0, 1e-200, 1e308, float("inf"), float("nan"), 10**18]
    + [10**400, [], [1], [[0, 24]], {}, {"a": 1}, {"name": "cosine"}, [{"name": "cutout"}]]
)
changes = st.dictionaries(
    st.sampled_from(_FIELDS),
    odd | st.floats() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
    min_size=1,
    max_size=1,
)


def train(recipe: Recipe, images: ImageSet) -> None:
    """The first epoch, of two steps."""
    val = images if recipe.scheduler == "plateau" else None
    place: dict[str, Any] = {"device": "cpu", "precision": "float32", "kernels": False}
    Trainer(create_model("small", seed=0), recipe, loggers=[Once()], **place).fit(images, val)


def soak(count: int, seed: int) -> Found:
    """Draw ``count`` valid recipes and as many with odd values.

    Args:
        count: Of each of the two kinds.
        seed: Of the draws.
    """
    warnings.simplefilter("ignore")
    found = Found()
    register_small()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2 * _SIZE, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = ImageSet(pixels, torch.arange(2 * _SIZE), tuple("0123456789"))

    def try_valid(recipe: Recipe) -> None:
        found.counts["valid recipes"] += 1
        end = _end(lambda: train(recipe, images), found, f"valid {recipe.to_dict()}")
        found.counts["of them trained two steps"] += end == "done"
        found.counts["of them ended by a loss that is not finite"] += end == "not finite"
        if end not in ("done", "not finite", "noted"):
            found.problem("foreign errors", f"{end}, though it is valid: {recipe.to_dict()}")
        _end(lambda: _come_back(recipe, found), found, f"round trip of {recipe.to_dict()}")

    def try_odd(recipe: Recipe, change: dict[str, Any]) -> None:
        found.counts["odd recipes"] += 1
        own = {name: value for name, value in change.items() if name in recipe.to_dict()}
        images_of = {name: value for name, value in change.items() if name not in own}
        if images_of:
            own["augmentation"] = images_of
        made: list[Recipe] = []
        where = f"{change!r} in {recipe.to_dict()}"
        if _end(lambda: made.append(recipe.replace(**own)), found, where).startswith("refused"):
            found.counts["of them refused"] += 1
        for each in made:
            end = _end(functools.partial(train, each, images), found, where)
            found.counts["of them refused at the training"] += end.startswith("refused")
            found.counts["of them taken, and trained"] += end == "done"
            _end(functools.partial(_come_back, each, found), found, where)

    _draw(count, seed, found, try_valid, recipe=valid())
    _draw(count, seed, found, try_odd, recipe=valid(), change=changes)
    return found


def _draw(
    count: int, seed: int, found: Found, test: Callable[..., None], **drawn: st.SearchStrategy[Any]
) -> None:
    """Call ``test`` with ``count`` draws."""
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[*hypothesis.HealthCheck],
    )

    def unless_enough(**values: Any) -> None:
        if not found.is_enough:
            test(**values)

    hypothesis.seed(seed)(settings(hypothesis.given(**drawn)(unless_enough)))()


def _come_back(recipe: Recipe, found: Found) -> None:
    """Whether what is written is read as it was."""
    again = [Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("recipe.toml", "recipe.json"):
            again.append(Recipe.load(recipe.save(Path(folder, name))))
    if any(each != recipe for each in again):
        found.problem("wrong results", f"comes back as another one: {recipe.to_dict()}")


def _end(call: Callable[[], object], found: Found, where: str) -> str:
    """How a call ends: "done", "refused: ..." by us, or with an error that is noted."""
    try:
        call()
    except NonFiniteLossError:
        return "not finite"
    except CifarZooError as error:
        return f"refused: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        found.problem("foreign errors", f"{type(error).__name__} at {place}: {error}; {where}")
        return "noted"
    return "done"
