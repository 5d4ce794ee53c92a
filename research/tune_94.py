"""Trials on the way to ``fast94``, on a validation split of the training images.

Usage: python research/tune_94.py [--only NAME ...] [--seeds 1] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every trial trains ``airbench94`` on 40,000 of
the training images and is measured on the 10,000 others after the last epoch; the test images are
not read. A trial that is in the file already is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trials import check_names, run_if_missing

from cifarzoo import Augmentation, Recipe
from cifarzoo.zoo.known import read_recipe

REFERENCE = read_recipe("reference")
RESULTS = Path(__file__).parent / "results" / "tune_94.json"

# image sizes in pixels, each from a fraction of the run on
LATE = [[0, 20], [0.3, 24], [0.6, 28], [0.85, 32]]
EARLY = [[0, 24], [0.5, 28], [0.75, 32]]
STEPS = [[0, 16], [0.15, 20], [0.3, 24], [0.5, 28], [0.7, 32]]
SLOW = [[0, 16], [0.3, 20], [0.5, 24], [0.7, 28], [0.88, 32]]
HALF = [[0, 16], [0.3, 24], [0.5, 32]]
LATER = [[0, 16], [0.35, 24], [0.55, 32]]
NEARLY = [[0, 16], [0.4, 24], [0.55, 30], [0.8, 32]]
TWO = [[0, 16], [0.55, 32]]

LIGHT = {"contrast": 0.15, "brightness": 0.15}


def muon_recipe(batch_size: int, epochs: int, sgd_scale: float = 1.0) -> Recipe:
    """Muon for the filters, SGD for the rest; rates of the published code, for any batch size.

    The published code sums the loss over a batch of 2000 images where ours takes the mean, so its
    rates for SGD appear multiplied by 2000. Its weight decay, 2e-6 an image, is divided by
    the rate, as SGD multiplies it by the rate again. ``sgd_scale`` multiplies the rates alone.
    """
    decay = 2e-6 * batch_size
    biases, head = (rate * batch_size * sgd_scale for rate in (0.053, 0.67))
    sgd = {"momentum": 0.85}
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer="muon_sgd",
        learning_rate=0.24,
        momentum=0.6,
        weight_decay=0.0,
        groups={
            "whiten_bias": {
                "learning_rate": biases,
                "weight_decay": decay / biases,
                "freeze_at": 0.375,
                **sgd,
            },
            **{
                f"group{number}_biases": {
                    "learning_rate": biases,
                    "weight_decay": decay / biases,
                    **sgd,
                }
                for number in (1, 2, 3)
            },
            "head": {"learning_rate": head, "weight_decay": decay / head, **sgd},
        },
        label_smoothing=0.2,
        scheduler="linear",
        augmentation=Augmentation(flip="alternating", crop_padding=2),
    )


def short(batch_size: int, rate: float, momentum: float, **changes: Any) -> Recipe:
    """Six epochs, most of them on small images: cheap, to compare settings."""
    return with_sizes(batch_size, 6, rate, momentum, LATE, **changes)


def with_sizes(
    batch_size: int, epochs: int, rate: float, momentum: float, sizes: Any, **changes: Any
) -> Recipe:
    """The published recipe at another batch size, with progressive resolution."""
    return muon_recipe(batch_size, epochs).replace(
        learning_rate=rate, momentum=momentum, image_sizes=sizes, **changes
    )


def narrow(widths: list[int], epochs: int, sizes: Any = None, rate: float = 0.2) -> Recipe:
    """Fewer channels, more epochs."""
    recipe = with_sizes(1000, epochs, rate, 0.65, sizes or HALF)
    return recipe.replace(model_options={"widths": widths})


def scaled_sgd(recipe: Recipe, factor: float) -> Recipe:
    """Other rates for biases and head; the weight decay of a step stays."""
    groups = {
        name: {
            **options,
            "learning_rate": options["learning_rate"] * factor,
            "weight_decay": options["weight_decay"] / factor,
        }
        for name, options in recipe.groups.items()
    }
    return recipe.replace(groups=groups)


def freezing(recipe: Recipe, **ends: float) -> Recipe:
    """Groups of convolutions left alone from a fraction of the run on (Brock et al. 2017)."""
    groups = {name: dict(options) for name, options in recipe.groups.items()}
    for group, end in ends.items():
        for part in ("filters", "biases"):
            groups.setdefault(f"{group}_{part}", {})["freeze_at"] = end
    return recipe.replace(groups=groups)


# what fast94 was at first, and most later trials start from
FIRST = muon_recipe(1000, 9, sgd_scale=2.25).replace(
    model_options={"widths": [64, 192, 256]}, learning_rate=0.2, momentum=0.65, image_sizes=HALF
)


def full_width(epochs: int) -> Recipe:
    """All channels, a quarter of the run at 30 pixels, contrast and brightness changed."""
    return FIRST.replace(model_options={}, epochs=epochs, image_sizes=NEARLY, augmentation=LIGHT)


TRIALS = {
    "reference": REFERENCE,
    "batch 500, rate 0.06": with_sizes(500, 8, 0.06, 0.6, EARLY),
    "batch 500, rate 0.12": with_sizes(500, 8, 0.12, 0.6, EARLY),
    "batch 500, rate 0.24": with_sizes(500, 8, 0.24, 0.6, EARLY),
    "batch 500, five sizes": with_sizes(500, 8, 0.12, 0.6, STEPS),
    "batch 1000, five sizes": with_sizes(1000, 8, 0.2, 0.65, STEPS),
    "batch 1000, five sizes, 7 epochs": with_sizes(1000, 7, 0.2, 0.65, STEPS),
    "batch 1000, late, 8 epochs": with_sizes(1000, 8, 0.2, 0.65, LATE),
    "batch 1000, slow, 10 epochs": with_sizes(1000, 10, 0.2, 0.65, SLOW),
    "batch 1000, half at 32, 7 epochs": with_sizes(1000, 7, 0.2, 0.65, HALF),
    "batch 1000, 16 then 32, 8 epochs": with_sizes(1000, 8, 0.2, 0.65, TWO),
    "64, 192, 256 channels, 8 epochs": narrow([64, 192, 256], 8),
    "64, 192, 256 channels, 9 epochs": narrow([64, 192, 256], 9),
    "64, 192, 256 channels, 9 epochs, rate 0.16": narrow([64, 192, 256], 9, rate=0.16),
    "64, 192, 256 channels, 9 epochs, batch 500": with_sizes(
        500, 9, 0.14, 0.6, HALF, model_options={"widths": [64, 192, 256]}
    ),
    "64, 192, 256 channels, 9 epochs, SGD x 1.5": scaled_sgd(narrow([64, 192, 256], 9), 1.5),
    "64, 192, 256 channels, 9 epochs, SGD x 2.25": scaled_sgd(narrow([64, 192, 256], 9), 2.25),
    "64, 192, 256 channels, 9 epochs, SGD x 2.25, crop padding 3": scaled_sgd(
        narrow([64, 192, 256], 9), 2.25
    ).replace(augmentation={"crop_padding": 3}),
    "64, 192, 256 channels, 10 epochs, SGD x 2.25, 30 pixels before 32": scaled_sgd(
        narrow([64, 192, 256], 10, NEARLY), 2.25
    ),
    "64, 192, 256 channels, 10 epochs, SGD x 2.25, 30 pixels before 32, cosine": scaled_sgd(
        narrow([64, 192, 256], 10, NEARLY), 2.25
    ).replace(scheduler="cosine"),
    "64, 192, 256 channels, 10 epochs, SGD x 2.25, 30 pixels before 32, power 1.5": scaled_sgd(
        narrow([64, 192, 256], 10, NEARLY), 2.25
    ).replace(scheduler="polynomial", scheduler_options={"power": 1.5}),
    "64, 192, 256 channels, 11 epochs, 30 before 32, group 1 until 0.8": freezing(
        scaled_sgd(narrow([64, 192, 256], 11, NEARLY), 2.25), group1=0.8
    ),
    "64, 192, 256 channels, 13 epochs, SGD x 2.25, 30 before 32, light 0.15": FIRST.replace(
        epochs=13, image_sizes=NEARLY, augmentation=LIGHT
    ),
    "12 epochs, SGD x 2.25, 30 before 32, light 0.15": full_width(12),
    "12 epochs, SGD x 2.25, 30 before 32, light 0.15, crop padding 3": full_width(12).replace(
        augmentation={"crop_padding": 3}
    ),
    "12 epochs, SGD x 2.25, 30 before 32, light 0.15, cutout 8": full_width(12).replace(
        augmentation={"cutout": 8}
    ),
    "reference, 12 epochs, 30 before 32": REFERENCE.replace(epochs=12, image_sizes=NEARLY),
    "10 epochs, SGD x 2.25, 30 before 32, light 0.15": full_width(10),
    "first, rate 0.0857, momentum 0.85": FIRST.replace(learning_rate=0.0857, momentum=0.85),
    "first, light 0.15, rate 0.34, momentum 0.4": FIRST.replace(
        learning_rate=0.34, momentum=0.4, augmentation=LIGHT
    ),
    "first, light 0.15": FIRST.replace(augmentation=LIGHT),
    "first, light 0.15, smoothing 0.1": FIRST.replace(augmentation=LIGHT, label_smoothing=0.1),
    "64, 160, 256 channels, 10 epochs": narrow([64, 160, 256], 10),
    "64, 160, 256 channels, 10 epochs, rate 0.24": narrow([64, 160, 256], 10, rate=0.24),
    "64, 160, 256 channels, 11 epochs, later": narrow([64, 160, 256], 11, LATER),
    "64, 160, 320 channels, 9 epochs": narrow([64, 160, 320], 9),
    "48, 160, 256 channels, 12 epochs": narrow([48, 160, 256], 12),
    "64, 128, 256 channels, 12 epochs": narrow([64, 128, 256], 12),
    "short, batch 500": short(500, 0.12, 0.6),
    "short, batch 500, momentum 0.85": short(500, 0.12, 0.85),
    "short, batch 500, momentum 0.85, rate 0.08": short(500, 0.08, 0.85),
    "short, batch 500, smoothing 0.1": short(500, 0.12, 0.6, label_smoothing=0.1),
    "short, batch 500, lookahead 0.95": short(500, 0.12, 0.6, lookahead_decay=0.95),
    "short, batch 1000": short(1000, 0.2, 0.65),
    "short, batch 1000, rate 0.14": short(1000, 0.14, 0.65),
    "short, batch 1000, rate 0.28": short(1000, 0.28, 0.65),
    "short, batch 1000, smoothing 0.1": short(1000, 0.2, 0.65, label_smoothing=0.1),
    "short, batch 1000, SGD rates x 1.5": scaled_sgd(short(1000, 0.2, 0.65), 1.5),
    "short, batch 1000, SGD rates x 0.67": scaled_sgd(short(1000, 0.2, 0.65), 0.67),
    "short, batch 1000, crop padding 3": short(1000, 0.2, 0.65).replace(
        augmentation={"crop_padding": 3}
    ),
    "short, batch 1500": short(1500, 0.24, 0.65),
    "short, batch 2000": short(2000, 0.28, 0.6),
}


def main() -> None:
    """Run the trials that are missing, and save each when it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(TRIALS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    check_names(parser, "--only", arguments.only, TRIALS)
    for name in arguments.only:
        for seed in range(arguments.seeds):
            run_if_missing(
                name,
                "airbench94",
                TRIALS[name].replace(seed=seed),
                held_out=10_000,
                views=("none", "flip", "flip_shift", "flip_shift_unsure"),
                output=arguments.output,
            )


if __name__ == "__main__":
    main()
