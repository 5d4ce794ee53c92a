"""Register an image set of your own: its classes, its normalization, its files.

The command line can use it too: `cifarzoo --import dataset train simple --data stripes`. A folder
of images needs no program: `cifarzoo train simple --data folder:PATH`.

Run: python examples/extend/dataset.py [output folder]
"""

import sys
from pathlib import Path

import torch

import cifarzoo

COUNTS = {"train": 600, "test": 200}


@cifarzoo.register_dataset(
    "stripes",
    preprocessing=cifarzoo.Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    description="Horizontal and vertical stripes with noise.",
)
def stripes(split: str, *, root: object = None, download: bool = True) -> cifarzoo.ImageSet:
    """Make the images here; a real set would read them from files in ``root``."""
    generator = torch.Generator().manual_seed(len(split))
    labels = torch.arange(COUNTS[split]) % 2
    wave = (torch.arange(32) % 8 < 4) * 120
    lying, standing = wave[:, None].expand(32, 32), wave.expand(32, 32)
    patterns = torch.stack((lying, standing))[labels][:, None]
    noise = torch.randint(136, (len(labels), 3, 32, 32), generator=generator)
    return cifarzoo.ImageSet((patterns + noise).to(torch.uint8), labels, ("lying", "standing"))


def main(output: Path) -> None:
    """Train on it and measure."""
    info = cifarzoo.get_dataset_info("stripes")
    train, test = (cifarzoo.load_dataset(info.name, split) for split in ("train", "test"))
    model = cifarzoo.create_model(
        "simple", num_classes=len(train.classes), preprocessing=info.preprocessing, seed=0
    )
    recipe = cifarzoo.Recipe(epochs=2, batch_size=50, learning_rate=0.02)
    recipe = recipe.replace(augmentation={"flip": "random"})
    cifarzoo.Trainer(model, recipe).fit(train)
    report = cifarzoo.evaluate(model, test)
    print(f"{report.data}: {report.accuracy:.1%} of {', '.join(test.classes)}")
    print(f"written: {report.save(output / 'report.json')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/dataset"))
