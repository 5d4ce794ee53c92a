"""What augmentations cost, as a share of a training step.

Usage: python benchmarks/augmentations.py [--model resnet20] [--batches 128,1000] [--rounds 15]

The Trainer trains, and between its steps each augmentation changes the same batch once, in turn: so
all share the threads, the memory and the caches of a real run. Printed are medians over the rounds
of the time in milliseconds and of its ratio to the step of the same round. Runs on the images that
come with the package.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch
from machine import DEVICE, build_layers, describe_machine, synchronize
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

import cifarzoo
from cifarzoo import Recipe
from cifarzoo.recipe.augmentation.policies import BatchAugmentation
from cifarzoo.recipe.augmentation.registry import adapt_transform, build_augmentation

WARMUP = 5  # steps before the clock starts: kernels are chosen, memory is taken


def main() -> None:
    """Measure and print a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batches", default="128,1000", help="batch sizes, comma-separated")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    batches = [int(text) for text in arguments.batches.split(",")]
    if max(batches) > (most := len(cifarzoo.load_sample("train"))):
        parser.error(f"--batches: the package has {most} images; got {max(batches)}")
    Console().print(describe_machine())
    build_layers()
    for batch in batches:
        rounds = Rounds(contenders(), batch=batch, count=arguments.rounds)
        recipe = Recipe(epochs=1, batch_size=batch, optimizer="momentum", learning_rate=0.01)
        model = cifarzoo.create_model(arguments.model, seed=0)
        cifarzoo.Trainer(model, recipe, device=DEVICE).fit(rounds)
        show(f"{arguments.model}, batches of {batch}", rounds)


def contenders() -> dict[str, BatchAugmentation]:
    """Those of the library, in their strongest usual settings, and one draw for all images."""
    return {
        "trivial_augment": build_augmentation("trivial_augment"),
        "rand_augment": build_augmentation("rand_augment"),
        "auto_augment": build_augmentation("auto_augment"),
        "color_jitter": build_augmentation(
            "color_jitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
        ),
        "color_jitter without hue": build_augmentation(
            "color_jitter", brightness=0.4, contrast=0.4, saturation=0.4
        ),
        "random_erasing": build_augmentation("random_erasing"),
        "random_erasing, noise": build_augmentation("random_erasing", value="random"),
        "torchvision, one for all": adapt_transform(v2.TrivialAugmentWide()),
    }


class Rounds:
    """Batches for the Trainer, and a clock.

    Each step is timed from the moment it is given its batch to the moment it asks for the next.

    Args:
        augmentations: By name.
        batch: Images in a batch.
        count: Rounds that are timed.
    """

    def __init__(
        self, augmentations: dict[str, BatchAugmentation], *, batch: int, count: int
    ) -> None:
        sample = cifarzoo.load_sample("train")
        # as the Loader makes them: on the device, channels last
        self._images = sample.images[:batch].to(DEVICE, memory_format=torch.channels_last)
        self._labels = sample.labels[:batch].to(DEVICE)
        self._augmentations = augmentations
        self._count = count
        self.steps: list[float] = []
        self.seconds: dict[str, list[float]] = {name: [] for name in augmentations}

    def __len__(self) -> int:
        return WARMUP + self._count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for round_ in range(len(self)):
            taken = {}
            for name, augment in self._augmentations.items():
                start = now()
                augment(self._images, generator)
                taken[name] = now() - start
            start = now()
            yield self._images, self._labels
            step = now() - start
            if round_ >= WARMUP:
                self.steps.append(step)
                for name, seconds in taken.items():
                    self.seconds[name].append(seconds)


def now() -> float:
    """Seconds, when the device has done what it was given."""
    synchronize()
    return time.perf_counter()


def show(title: str, rounds: Rounds) -> None:
    """Print medians."""
    step = statistics.median(rounds.steps) * 1000
    table = Table(title=f"{title}: a step takes {step:.1f} ms")
    for column in ("augmentation", "ms", "share of a step", "from", "to"):
        table.add_column(column, justify="left" if column == "augmentation" else "right")
    for name, seconds in rounds.seconds.items():
        shares = [part / whole for part, whole in zip(seconds, rounds.steps, strict=True)]
        table.add_row(
            name,
            f"{statistics.median(seconds) * 1000:.2f}",
            *(f"{share:.1%}" for share in (statistics.median(shares), min(shares), max(shares))),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
