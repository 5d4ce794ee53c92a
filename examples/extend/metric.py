"""A metric of your own in every report: a function of probabilities and labels, and a name.

Run: python examples/extend/metric.py [output folder]
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

import cifarzoo

ANIMALS = [cifarzoo.CIFAR10_CLASSES.index(name) for name in ("bird", "cat", "deer", "dog", "frog")]


@cifarzoo.register_metric("told from a vehicle")
def told_from_a_vehicle(probabilities: Tensor, labels: Tensor) -> float:
    """Share of the animals that are taken for one, whichever."""
    animals = torch.tensor([*ANIMALS, cifarzoo.CIFAR10_CLASSES.index("horse")])
    is_animal = torch.isin(labels, animals)
    taken = probabilities[is_animal][:, animals].sum(1) > 0.5
    return float(taken.double().mean())


def main(output: Path) -> None:
    """Evaluate a pretrained network."""
    model = cifarzoo.create_model("resnet20", pretrained=True)
    report = cifarzoo.evaluate(model, cifarzoo.load_sample("test"))
    print(f"{report.model}: {report.metrics}")
    print(f"written: {report.save(output / 'report.json')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/metric"))
