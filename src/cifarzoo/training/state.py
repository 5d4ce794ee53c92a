"""The state of a run: what a checkpoint holds of a Loop, and a Loop that goes on from it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from cifarzoo.errors import CheckpointError
from cifarzoo.runs import check_checksums
from cifarzoo.training.best import Best
from cifarzoo.training.checkpoint import check_same
from cifarzoo.training.history import History
from cifarzoo.training.restoring import Saved, take_generator, take_like
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import ModelCard, attach_card

if TYPE_CHECKING:
    from cifarzoo.training.loop import Loop

__all__ = ["restore", "take_state"]

_log = logging.getLogger("cifarzoo")


def take_state(loop: Loop) -> dict[str, Any]:
    """All that a run goes on from."""
    on_cuda = loop.device.type == "cuda"
    return {
        "card": describe(loop.learner.model).to_dict(),
        "recipe": loop.recipe.to_dict(),
        "learner": loop.learner.state_dict(),
        "data": loop.train.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch_rng": loop.epoch_rng,
        "cuda_rng": torch.cuda.get_rng_state(loop.device) if on_cuda else None,
        "records": [record.to_dict() for record in loop.records],
        "best": loop.best.to_dict() if loop.best is not None else None,
        "checksums": dict(loop.checksums),
        "steps_per_epoch": loop.train.steps,
        "step": loop.step,
        "images": loop.images,
        "seconds": loop.seconds,
        "meter": loop.meter[: loop.step].cpu(),
    }


def restore(loop: Loop, saved: Saved) -> None:
    """Go back to a saved state.

    Raises:
        CheckpointError: It is of another run, or damaged; the model is as it was.
    """
    loop.is_resumed = True
    if loop.best is not None and saved.get("best") is None and saved["records"]:
        raise CheckpointError(
            "the run was begun with keep='last', and its best network so far is not known; "
            "resume with keep='last', or start a new run in another folder"
        )
    length = {"steps_per_epoch": saved["steps_per_epoch"]}
    check_same("data set", length, {"steps_per_epoch": loop.train.steps})
    check_checksums(saved.get("checksums", {}), loop.checksums, "the checkpoint is of a run with")
    try:
        _apply(loop, saved)
    except Exception as error:  # of a data source, an optimizer or a scheduler of the user's
        loop.learner.release()
        raise CheckpointError(
            f"the checkpoint belongs to another model, optimizer, scheduler or data, or is "
            f"damaged: {error}"
        ) from error
    if loop.records and getattr(loop.train.source, "persistent_workers", False):
        _log.warning(
            "the DataLoader has persistent_workers=True: its workers begin anew and draw other "
            "numbers, so the run will end with other weights than if it had not stopped; leave "
            "that option out, and it ends with the same"
        )


def _apply(loop: Loop, saved: Saved) -> None:
    """Compare everything, then take it over; the network last."""
    taken = loop.learner.take(saved["learner"])
    card = ModelCard.from_dict(saved["card"])
    records = [*History.from_list(saved["records"]).records]
    best = None
    if loop.best is not None:
        best = Best.from_dict(saved.get("best"), loop.learner.judged)
    meter = take_like(saved["meter"], loop.meter[: saved["step"]], "meter")
    rng, cuda_rng = take_generator(saved["rng"], "rng"), saved["cuda_rng"]
    epoch_rng = take_generator(saved["epoch_rng"], "epoch_rng")
    if cuda_rng is not None and loop.device.type == "cuda":
        take_generator(cuda_rng, "cuda_rng", loop.device)
    if not loop.train.can_take(saved["data"]):
        raise CheckpointError("data is the state of another source of batches")
    loop.train.load_state_dict(saved["data"])
    loop.learner.load_state_dict(taken)
    loop.best = best
    loop.records = records
    loop.step, loop.images, loop.seconds = saved["step"], saved["images"], saved["seconds"]
    loop.meter[: loop.step] = meter.to(loop.device)
    attach_card(loop.learner.model, card)
    if loop.world.rank:  # only the first process was saved; the others draw anew
        seed = loop.recipe.seed + loop.world.rank + loop.world.size * len(loop.records)
        torch.manual_seed(seed)  # of the GPU too
        rng, cuda_rng = torch.get_rng_state(), None
    if cuda_rng is not None and loop.device.type == "cuda":
        torch.cuda.set_rng_state(cuda_rng, loop.device)
    if loop.step:  # within an epoch: its order is drawn again from where the epoch began
        loop.epoch_rng, loop.resumed_rng = epoch_rng, rng
        rng = loop.epoch_rng
    torch.set_rng_state(rng)
