"""Write the embedded sample of CIFAR-10 (src/cifarzoo/data/sample) from the official files.

Usage: python tools/make_sample.py        (reads $CIFARZOO_DATA, as the library does)
"""

import json
from pathlib import Path

import torch
from PIL import Image

from cifarzoo.data.sets.cifar import load_cifar10

TARGET = Path(__file__).parents[1] / "src/cifarzoo/data/sample"
COLUMNS = 50


def main() -> None:
    """Take the first images of each class and store them as lossless mosaics."""
    labels = {}
    for split, per_class in (("train", 200), ("test", 100)):
        full = load_cifar10(split, download=False)
        first = [(full.labels == label).nonzero().squeeze(1)[:per_class] for label in range(10)]
        sample = full.subset(torch.cat(first).sort().values)
        tiles = sample.images.view(-1, COLUMNS, 3, 32, 32).permute(0, 3, 1, 4, 2)
        mosaic = tiles.reshape(-1, COLUMNS * 32, 3).numpy()
        image = Image.fromarray(mosaic)
        image.save(TARGET / f"{split}.webp", lossless=True, quality=100, method=6)
        labels[split] = sample.labels.tolist()
    (TARGET / "labels.json").write_text(json.dumps(labels, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
