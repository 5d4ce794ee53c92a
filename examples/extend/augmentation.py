"""An augmentation of your own, by name in a recipe; and any function of uint8 batches.

What is registered makes a function of a batch and a generator, from which all draws are made. It
changes all images at once, each in its own way.

Run: python examples/extend/augmentation.py [output folder]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

import cifarzoo


@cifarzoo.register_augmentation("dim")
def dim(*, darkest: float = 0.5) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Each image as dark as drawn, between ``darkest`` and as it is."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)
        return (images * (darkest + (1 - darkest) * drawn)).to(torch.uint8)

    return augment


def main(output: Path) -> None:
    """Train with it, after one of the library's own, and before one of torchvision's."""
    recipe = cifarzoo.Recipe(
        epochs=2,
        batch_size=100,
        learning_rate=0.02,
        augmentation=cifarzoo.Augmentation(
            flip="random",
            crop_padding=4,
            policies=["trivial_augment", {"name": "dim", "darkest": 0.6}],
        ),
    )
    model = cifarzoo.create_model("simple", seed=0)
    trainer = cifarzoo.Trainer(model, recipe, transform=v2.RandomGrayscale(p=0.2))
    history = trainer.fit(cifarzoo.load_sample("train"))
    print(f"loss {history[-1].train_loss:.2f} with {', '.join(cifarzoo.list_augmentations())}")
    print(f"written: {recipe.save(output / 'recipe.toml')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/augmentation"))
