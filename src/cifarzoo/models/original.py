"""The report's own training, shared by its three networks."""

from __future__ import annotations

from cifarzoo.recipe import Augmentation, Recipe

__all__ = ["ORIGINAL"]

ORIGINAL = Recipe(
    epochs=8,
    batch_size=64,
    optimizer="momentum",
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=0.0,
    scheduler="multistep",
    scheduler_options={"milestones": [4], "gamma": 0.1},
    augmentation=Augmentation(),
)
"""The report's training: 8 epochs of SGD, the learning rate dropping to 0.001 after the 4th.

The report leaves open the first learning rate, momentum and batch size: 0.01, 0.9 and 64 here, the
customary first choices. No augmentation or weight decay is mentioned, so there is none.
"""
