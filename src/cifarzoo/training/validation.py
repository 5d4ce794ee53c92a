"""What a network gives for images that are only measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import cpu_kernels
from cifarzoo.compute.place import Place
from cifarzoo.compute.twin import evaluating
from cifarzoo.compute.unchanged import unchanged
from cifarzoo.data.batches import check_logits
from cifarzoo.data.feed import Feed
from cifarzoo.training.distributed import World
from cifarzoo.training.objective import Objective

__all__ = ["validate"]


@torch.no_grad()
def validate(
    model: nn.Module,
    feed: Feed,
    objective: Objective,
    *,
    place: Place,
    world: World,
    kernels: bool,
) -> tuple[float, float]:
    """Mean loss and accuracy on ``feed``, the same in all processes; the model stays as it is.

    Args:
        model: On the device; evaluated eagerly.
        feed: The images of this process.
        objective: Whose loss by the labels is measured.
        place: Where.
        world: The processes that have parts of the images.
        kernels: Whether layers compute as they are fastest on a CPU.
    """
    totals = torch.zeros(3, device=place.device)  # the loss, those that are right, all
    kept: list[tuple[Tensor, Tensor]] = []  # for a loss of one's own, which sees all at once
    with (
        unchanged(model),
        evaluating(model) as network,
        cpu_kernels(network, enabled=kernels),
    ):
        for images, labels in feed.epoch():
            with place.autocast():
                output = network(images)
            check_logits(output, len(images))
            logits = output.float()
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            correct = (logits.argmax(1) == labels).sum()
            totals += torch.stack((loss, correct.float(), loss.new_tensor(len(labels))))
            if objective.is_own:
                kept.append((logits.clone(), labels))
    feed.check_late()
    loss_sum, correct_sum, count = world.sum(totals).tolist()
    if not objective.is_own:
        return loss_sum / count, correct_sum / count
    logits, labels = (world.gather(torch.cat(part)) for part in zip(*kept, strict=True))
    loss = objective.measure(logits, labels)
    # one number for all, whatever the loss of another process has counted or drawn
    return float(world.sum(loss * world.is_main)), correct_sum / count
