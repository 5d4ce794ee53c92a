"""Trials of the zoo's recipes, on a validation split of the training images.

Usage: python research/tune_zoo.py [--only "MODEL: NAME" ...] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every trial trains on 45,000 of the training
images and is measured on the 5,000 others after the last epoch; the test images are not read. A
teacher trains on the same 45,000, by its default recipe. A trial that is in the file already is not
run again.

wrn16_2 trains on 10,000 images and is measured on the 40,000 others. It learns so few by heart in
an hour, and all in many hours. Its trials show what helps against that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trials import check_names, run_if_missing

from cifarzoo import Augmentation, Recipe
from cifarzoo.zoo.known import read_recipe

RESULTS = Path(__file__).parent / "results" / "tune_zoo.json"

PLAIN = Recipe(epochs=24, batch_size=128, learning_rate=0.05, weight_decay=5e-4)

GENTLE = PLAIN.replace(weight_decay=1e-4, augmentation={"crop_padding": 2})

GROWING = PLAIN.replace(image_sizes=[[0, 16], [0.3, 24], [0.5, 32]])

MUON = read_recipe("muon").replace(augmentation={"flip": "random"})

DENSE = MUON.replace(optimizer_options={"dense": True})

SMALL_BATCHES = DENSE.replace(batch_size=256, learning_rate=0.07)

SIMPLE = "Muon for dense layers too, crop padding 2"
SIMPLE_MUON = SMALL_BATCHES.replace(epochs=24, augmentation={"crop_padding": 2})
MORE_MOMENTUM = SIMPLE_MUON.replace(learning_rate=0.035, momentum=0.9)

RESNET_MUON = MUON.replace(epochs=8, image_sizes=GROWING.image_sizes)

RESNET18 = read_recipe("muon").replace(
    epochs=15,
    label_smoothing=0.1,
    augmentation=Augmentation(flip="alternating", crop_padding=4, contrast=0.15, brightness=0.15),
    image_sizes=GROWING.image_sizes,
)

FEW_IMAGES = read_recipe("resnet_small").replace(epochs=48)

SMALLER_BATCHES = FEW_IMAGES.replace(batch_size=128, learning_rate=0.075)

HELD_OUT = {"wrn16_2": 40_000}

TRIALS: dict[str, dict[str, Recipe]] = {
    "simple": {
        "24 epochs": PLAIN,
        "less decay, crop padding 2": GENTLE,
        "Muon": PLAIN.replace(optimizer="nmuon", learning_rate=0.02, weight_decay=0.0),
        "Muon for filters alone, crop padding 2": MUON.replace(
            epochs=24, augmentation={"crop_padding": 2}
        ),
        f"{SIMPLE}, batch 256, rate 0.07": SIMPLE_MUON,
        f"{SIMPLE}, batch 256, rate 0.07, smoothing 0.1": SIMPLE_MUON.replace(label_smoothing=0.1),
        f"{SIMPLE}, batch 256, rate 0.07, one-cycle": SIMPLE_MUON.replace(scheduler="onecycle"),
        **{
            f"{SIMPLE}, batch 256, rate {rate}, momentum {momentum}": SIMPLE_MUON.replace(
                learning_rate=rate, momentum=momentum
            )
            for rate, momentum in (
                (0.1, 0.6),
                (0.035, 0.6),
                (0.02, 0.9),
                (0.035, 0.9),
                (0.055, 0.9),
                (0.0175, 0.95),
            )
        },
        f"{SIMPLE}, batch 256, rate 0.035, momentum 0.9, smoothing 0.1": MORE_MOMENTUM.replace(
            label_smoothing=0.1
        ),
        f"{SIMPLE}, batch 256, rate 0.035, momentum 0.9, one-cycle": MORE_MOMENTUM.replace(
            scheduler="onecycle"
        ),
        f"{SIMPLE}, batch 128, rate 0.025, momentum 0.9": MORE_MOMENTUM.replace(
            batch_size=128, learning_rate=0.025
        ),
        "less decay, crop padding 2, rate 0.1": GENTLE.replace(learning_rate=0.1),
        "less decay, crop padding 2, batch 64": GENTLE.replace(batch_size=64, learning_rate=0.03),
        "less decay, crop padding 2, 72 epochs": GENTLE.replace(epochs=72),
        **{
            f"{SIMPLE}, batch 256, rate 0.035, momentum 0.9, teacher at {temperature}": (
                MORE_MOMENTUM.replace(
                    teacher="airbench94", distillation_temperature=float(temperature)
                )
            )
            for temperature in (2, 4)
        },
    },
    "deep_bn": {
        "16 epochs, less decay, crop padding 2": GENTLE.replace(epochs=16, learning_rate=0.06),
        "16 epochs, Muon": MUON.replace(epochs=16, augmentation={"crop_padding": 2}),
        "12 epochs, Muon": MUON.replace(epochs=12),
        "12 epochs, Muon, rate 0.05": MUON.replace(epochs=12, learning_rate=0.05),
        "12 epochs, Muon for dense layers too, rate 0.05": DENSE.replace(
            epochs=12, learning_rate=0.05
        ),
        "12 epochs, Muon for dense layers too": DENSE.replace(epochs=12),
        "12 epochs, Muon for dense layers too, batch 256, rate 0.07": SMALL_BATCHES.replace(
            epochs=12
        ),
    },
    "resnet20": {
        "8 epochs, SGD": GROWING.replace(epochs=8, learning_rate=0.2),
        "8 epochs, Muon": RESNET_MUON,
        "8 epochs, Muon, rate 0.0375, momentum 0.9": RESNET_MUON.replace(
            learning_rate=0.0375, momentum=0.9
        ),
        "8 epochs, Muon, teacher at 2": RESNET_MUON.replace(
            teacher="airbench94", distillation_temperature=2.0
        ),
    },
    "resnet18_cifar": {
        "15 epochs, rate 0.15, no cutout": RESNET18,
        "28 epochs, rate 0.09, cutout 8": RESNET18.replace(epochs=28, learning_rate=0.09).override(
            "augmentation.cutout", 8
        ),
    },
    "wrn16_2": {
        "10,000 images": FEW_IMAGES,
        "10,000 images, smoothing 0.1": FEW_IMAGES.replace(label_smoothing=0.1),
        "10,000 images, batch 128, rate 0.075": SMALLER_BATCHES,
        "10,000 images, SGD": GROWING.replace(epochs=48, learning_rate=0.1),
        "10,000 images, batch 128, rate 0.075, smoothing 0.1": SMALLER_BATCHES.replace(
            label_smoothing=0.1
        ),
        "10,000 images, smoothing 0.1, cutout 8": FEW_IMAGES.replace(label_smoothing=0.1).override(
            "augmentation.cutout", 8
        ),
    },
}


def main() -> None:
    """Run the trials that are missing, and save each when it ends."""
    everything = {
        f"{model}: {name}": (model, recipe)
        for model, trials in TRIALS.items()
        for name, recipe in trials.items()
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(everything), metavar="NAME")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    check_names(parser, "--only", arguments.only, everything)
    for name in arguments.only:
        model, recipe = everything[name]
        run_if_missing(
            name.split(": ", 1)[1],
            model,
            recipe,
            held_out=HELD_OUT.get(model, 5_000),
            views=("none", "flip"),
            output=arguments.output,
        )


if __name__ == "__main__":
    main()
