"""Learning-rate schedules of your own: a factory handed to the Trainer, and a registered name.

A factory takes the optimizer, the epochs and the steps in an epoch, and returns any torch
`LRScheduler`. A registered one can also be named in a recipe, with options.

Run: python examples/extend/scheduler.py [output folder]
"""

import sys
from pathlib import Path

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler

import cifarzoo


def restarts(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """Two cosines, one after the other."""
    return CosineAnnealingWarmRestarts(optimizer, T_0=epochs * steps_per_epoch // 2)


@cifarzoo.register_scheduler("drop_once")
def drop_once(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, at: float = 0.5, factor: float = 0.1
) -> LRScheduler:
    """The peak at first, ``factor`` times the peak after the fraction ``at`` of the run."""
    drop = at * epochs * steps_per_epoch
    return LambdaLR(optimizer, lambda step: 1.0 if step < drop else factor)


def main(output: Path) -> None:
    """Train with both schedules and draw their learning rates."""
    train = cifarzoo.load_sample("train")
    recipe = cifarzoo.Recipe(epochs=6, batch_size=200, learning_rate=0.02)
    named = recipe.replace(scheduler="drop_once", scheduler_options={"at": 2 / 3})
    histories = {}

    trainer = cifarzoo.Trainer(cifarzoo.create_model("simple", seed=0), recipe, scheduler=restarts)
    histories["restarts"] = trainer.fit(train)

    trainer = cifarzoo.Trainer(cifarzoo.create_model("simple", seed=0), named)
    histories["drop_once"] = trainer.fit(train)

    print("drop_once" in cifarzoo.list_schedulers())
    for name, history in histories.items():
        rates = ", ".join(f"{rate:.2g}" for rate in history.column("learning_rate"))
        print(f"{name}: learning rate at the end of each epoch {rates}")

    output.mkdir(parents=True, exist_ok=True)
    picture = output / "schedules.png"
    cifarzoo.plot_history(histories, title="two schedules").savefig(picture)
    print(f"written: {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/scheduler"))
