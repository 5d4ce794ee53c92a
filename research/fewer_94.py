"""Trials of networks that need less arithmetic than ``airbench94``, for the way to 94 %.

Usage: python research/fewer_94.py [--only NAME ...] [--seeds 0 1] [--output FILE]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every trial changes the network of ``fast94``,
trains it on 40,000 of the training images, and is measured on the 10,000 others after the last
epoch; the test images are not read. A trial that is in the file already is not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trials import check_names, run_if_missing

import cifarzoo
from cifarzoo import Recipe
from cifarzoo.models.airbench import AirBench
from cifarzoo.recipe import muon
from cifarzoo.zoo.known import read_recipe

RESULTS = Path(__file__).parent / "results" / "fewer_94.json"
FAST94 = read_recipe("fast94")
UNCHANGED = cifarzoo.get_model_info("airbench94")


class Fewer(AirBench):
    """AirBench with less arithmetic.

    Args:
        widths: Channels of the three groups.
        early_pooling: Numbers of the groups that pool before their first convolution.
        pointwise: Names of convolutions with filters of 1x1, such as "group3.conv2".
        computed_bias: Compute the bias of the first layer instead of training it.
        num_classes: Size of the output.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        early_pooling: Sequence[int] = (),
        pointwise: Sequence[str] = (),
        computed_bias: bool = False,
        num_classes: int = 10,
    ) -> None:
        super().__init__(widths, depth=2, early_pooling=early_pooling, num_classes=num_classes)
        for name in pointwise:
            layer = self.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            inputs, outputs = layer.in_channels, layer.out_channels
            smaller = nn.Conv2d(inputs, outputs, 1, bias=False)
            nn.init.dirac_(smaller.weight[:inputs])
            self.set_submodule(name, smaller)
        self.computed_bias = computed_bias
        if computed_bias:
            assert self.whiten.bias is not None
            self.whiten.bias.requires_grad = False

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the first layer; its bias is that of another framework's recipe for this network."""
        super().prepare(images)
        if self.computed_bias:
            assert self.whiten.bias is not None
            mean = F.unfold(images.float(), self.whiten.kernel_size).mean((0, 2))
            self.whiten.bias.copy_(0.34 - 0.8 * self.whiten.weight.flatten(1) @ mean)


@cifarzoo.register_model(
    description="airbench94 with less arithmetic.",
    source="research/fewer_94.py",
    parameters=UNCHANGED.parameters,
    macs=UNCHANGED.macs,
)
def fewer_94(
    *,
    widths: Sequence[int] = (64, 256, 256),
    early_pooling: Sequence[int] = (),
    pointwise: Sequence[str] = (),
    computed_bias: bool = False,
    num_classes: int = 10,
) -> Fewer:
    """Build the network; without options it is airbench94."""
    return Fewer(
        widths,
        early_pooling=early_pooling,
        pointwise=pointwise,
        computed_bias=computed_bias,
        num_classes=num_classes,
    )


def orthogonalize_cubic(matrices: Tensor, steps: int, smallest: float = 0.1) -> Tensor:
    """Move the singular values towards 1 by steps that take two products, and not three.

    Each step is the cubic polynomial that comes closest to 1 between the smallest and the largest
    singular value which the step before it can leave (Grishina et al., arXiv:2506.10935).

    Args:
        matrices: (N, rows, columns), float32.
        steps: Number of iterations.
        smallest: Singular value from which on the first step aims at 1, relative to the norm.

    Returns:
        Float32 (N, rows, columns).
    """
    x: Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    if x.shape[1] > x.shape[2]:
        return orthogonalize_cubic(matrices.mT, steps, smallest).mT
    low, high = smallest, 1.0
    for _ in range(steps):
        squares = low * low + low * high + high * high
        b = 2 / (low * high * (low + high) + 2 * (squares / 3) ** 1.5)
        x = b * squares * x - b * (x @ x.mT) @ x
        low = b * low * high * (low + high)
        high = 2 - low
    return x


@cifarzoo.register_optimizer("cubic_muon")
class CubicMuon(muon.MuonSGD):
    """Muon with cubic Newton-Schulz steps."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch's overloads
        """Take one step."""
        with mock.patch.object(muon, "orthogonalize", orthogonalize_cubic):
            return super().step(closure)


def changed(epochs: int, **options: object) -> Recipe:
    """``fast94`` for another network, with another number of epochs."""
    return FAST94.replace(epochs=epochs, model_options=options)


def without_whiten_bias(recipe: Recipe) -> Recipe:
    """The first layer's bias is not trained, so it has no rate."""
    groups = {name: options for name, options in recipe.groups.items() if name != "whiten_bias"}
    return recipe.replace(groups=groups)


LAST = ("group3.conv1", "group3.conv2")  # with pooling before them, they see maps of 3x3

TRIALS = {
    "group 3 pools first, 12 epochs": changed(12, early_pooling=(3,)),
    "groups 2 and 3 pool first, 80, 256, 320 channels, 14 epochs": changed(
        14, early_pooling=(2, 3), widths=(80, 256, 320)
    ),
    "group 3 pools first, its filters 1x1, 13 epochs": changed(
        13, early_pooling=(3,), pointwise=LAST
    ),
    "group 3 pools first, first bias computed, cubic Muon, 12 epochs": without_whiten_bias(
        changed(12, early_pooling=(3,), computed_bias=True)
    ).replace(optimizer="cubic_muon", optimizer_options={"steps": 2}),
    "group 3 pools first, first bias computed, 12 epochs": without_whiten_bias(
        changed(12, early_pooling=(3,), computed_bias=True)
    ),
    "group 3 pools first, first bias computed, 13 epochs": without_whiten_bias(
        changed(13, early_pooling=(3,), computed_bias=True)
    ),
    "group 3 pools first, cubic Muon, 12 epochs": changed(12, early_pooling=(3,)).replace(
        optimizer="cubic_muon", optimizer_options={"steps": 2}
    ),
}


def main() -> None:
    """Run the trials that are missing, and save each when it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(TRIALS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="each of them")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    check_names(parser, "--only", arguments.only, TRIALS)
    for name in arguments.only:
        for seed in arguments.seeds:
            run_if_missing(
                name,
                "fewer_94",
                TRIALS[name].replace(seed=seed),
                held_out=10_000,
                views=("none", "flip_shift"),
                output=arguments.output,
            )


if __name__ == "__main__":
    main()
