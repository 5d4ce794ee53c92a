"""Recipes that several families share: the report's own, and training with Muon."""

from __future__ import annotations

from cifarzoo.recipe import Augmentation, Recipe

__all__ = ["GROWING", "MUON", "ORIGINAL"]

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

MUON = Recipe(
    epochs=16,
    batch_size=512,
    optimizer="muon_sgd",
    learning_rate=0.15,
    momentum=0.6,
    weight_decay=0.0,
    scheduler="linear",
    augmentation=Augmentation(flip="alternating", crop_padding=4),
)
"""Muon for the filters, SGD for the rest: further in the same number of epochs than SGD alone."""

GROWING = ((0, 16), (0.3, 24), (0.5, 32))
"""Image sizes of a run whose first half sees small images: three tenths less arithmetic."""
