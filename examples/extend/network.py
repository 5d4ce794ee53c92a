"""A network of your own in the zoo: registered, listed, trained, saved and loaded by name.

Run: python examples/extend/network.py [output folder]
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import cifarzoo


class Tiny(nn.Module):
    """Two convolutions and a global average."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W)."""
        x = self.pool(torch.relu(self.conv1(images)))
        x = torch.relu(self.conv2(x))
        return self.head(x.mean((2, 3)))


@cifarzoo.register_model(
    description="Two convolutions and a global average.",
    source="examples/extend/network.py",
    parameters=5_418,
    macs=1_646_922,
    recipes={"default": cifarzoo.Recipe(epochs=3, batch_size=100, learning_rate=0.1)},
)
def tiny(*, num_classes: int = 10, width: int = 16) -> Tiny:
    """Build it with random parameters."""
    return Tiny(width, num_classes)


def main(output: Path) -> None:
    """Use the registered network as any other of the zoo."""
    print(f"models: {', '.join(cifarzoo.list_models())}")
    spec = cifarzoo.get_model_info("tiny")
    model = cifarzoo.create_model("tiny", seed=0)
    counted = cifarzoo.summary(model)
    print(f"parameters: {spec.parameters:,} declared, {counted.total_params:,} counted")
    print(f"MACs: {spec.macs:,} declared, {counted.total_mult_adds:,} counted")
    print(f"options: {spec.options}")

    cifarzoo.Trainer(model, spec.recipe).fit(cifarzoo.load_sample("train"))
    weights = cifarzoo.save_weights(model, output / "tiny.safetensors")
    print(f"written: {weights}")

    again = cifarzoo.load_model(weights)  # the file knows the name and the options
    report = cifarzoo.evaluate(again, cifarzoo.load_sample("test"))
    print(f"{report.model} on {report.data}: {report.accuracy:.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/network"))
