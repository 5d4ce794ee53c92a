"""A loss of your own, and early stopping.

A loss is any function of logits and targets that returns their mean over the batch. Targets are
class numbers, or shares of the classes where images were mixed.

Run: python examples/extend/loss.py [output folder]
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cifarzoo


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy that cares less for what is right already (Lin et al. 2017)."""
    each = F.cross_entropy(logits, targets, reduction="none")
    return ((1 - torch.exp(-each)) ** gamma * each).mean()


def main(output: Path) -> None:
    """Train by it, by class weights, and stop early."""
    train, val = cifarzoo.load_sample("train").split(400)
    recipe = cifarzoo.Recipe(epochs=8, batch_size=100, learning_rate=0.02, scheduler="constant")
    weights = torch.ones(10)
    weights[train.classes.index("cat")] = 3.0  # to find more of the cats
    losses = {"focal": focal_loss, "weighted": nn.CrossEntropyLoss(weight=weights)}
    histories = {}
    for name, loss in losses.items():
        trainer = cifarzoo.Trainer(
            cifarzoo.create_model("simple", seed=0),
            recipe,
            loss=loss,
            keep="best",
            loggers=[cifarzoo.EarlyStopping(patience=2)],
        )
        histories[name] = trainer.fit(train, val)
        print(f"{name}: {len(histories[name])} epochs")

    output.mkdir(parents=True, exist_ok=True)
    picture = output / "losses.png"
    cifarzoo.plot_history(histories, title="two losses").savefig(picture)
    print(f"written: {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/loss"))
