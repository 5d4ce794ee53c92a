"""The airbench networks: built to reach an accuracy with the least work."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.errors import ArgumentError
from cifarzoo.names import whole_numbers
from cifarzoo.zoo.foreign import Layout
from cifarzoo.zoo.known import known
from cifarzoo.zoo.registry import register_model

__all__ = ["AirBench", "ConvGroup", "airbench94", "airbench95", "airbench96"]

_WHITEN_SIZE = 2
_WHITEN_EPS = 5e-4  # added to the eigenvalues: faint directions of the patches are noise


MUON_LAYOUT = Layout(
    "KellerJordan/cifar10-airbench (airbench94_muon)",
    tuple((rf"^layers\.{number}\.", f"group{number}.") for number in (1, 2, 3)),
)
"""CifarNet in airbench94_muon.py."""


SEQUENTIAL_LAYOUT = Layout(
    "KellerJordan/cifar10-airbench",
    (
        (r"^0\.", "whiten."),
        *((rf"^{number + 1}\.", f"group{number}.") for number in (1, 2, 3)),
        (r"^7\.", "head."),
    ),
    scales={"head.weight": lambda weight: weight.shape[1] / 9},
)
"""make_net() in airbench94.py, airbench95.py and airbench96_faster.py.

Its logits are divided by 9 whatever the number of features, by which ours are."""


class ConvGroup(nn.Module):
    """Applies two or three 3x3 convolutions, and 2x2 max pooling after or before the first.

    If there are three, the output of the first is added before the last activation.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        depth: Number of convolutions, 2 or 3.
        pools_first: Pool before the first convolution, which then reads a quarter of the pixels.
    """

    def __init__(
        self, in_channels: int, channels: int, depth: int, *, pools_first: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = _normalization(channels)
        self.conv2 = _convolution(channels, channels)
        self.norm2 = _normalization(channels)
        self.conv3 = _convolution(channels, channels) if depth == 3 else None
        self.norm3 = _normalization(channels) if depth == 3 else None
        self.activation = nn.GELU()
        self.depth = depth
        self.pools_first = pools_first

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H // 2, W // 2)."""
        x = self.conv1(self.pool(x)) if self.pools_first else self.pool(self.conv1(x))
        x = first = self.activation(self.norm1(x))
        x = self.norm2(self.conv2(x))
        if self.conv3 is not None and self.norm3 is not None:
            x = self.norm3(self.conv3(self.activation(x))) + first
        y: Tensor = self.activation(x)
        return y


class AirBench(nn.Module):
    """Whitening convolution, three groups of convolutions, global max pooling, one dense layer.

    Source: Jordan 2024, arXiv:2404.00498, sections 3.1 to 3.4 and appendix A, with the widths of
    its networks for 94, 95 and 96 %. Convolutions start as identities on their first channels,
    batch normalization has no scale, and logits are divided by the number of features.

    The first layer is not trained. `prepare` sets it so that its outputs for 2x2 patches of the
    training images are uncorrelated and of equal size. The Trainer calls `prepare`, unless weights
    were loaded.

    Args:
        widths: Channels of the three groups; no group has fewer channels than its input.
        depth: Convolutions in a group, 2 or 3.
        early_pooling: Numbers of the groups, from 1 on, that pool before their first convolution
            instead of after it, as the source does.
        num_classes: Size of the output.

    Raises:
        ArgumentError: ``widths`` are not three whole numbers from 24 on, or one is smaller than the
            one before; or ``depth`` is another number, or there is no group of a number in
            ``early_pooling``.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (MUON_LAYOUT, SEQUENTIAL_LAYOUT)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        depth: int,
        early_pooling: Sequence[int] = (),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        whitened = 2 * 3 * _WHITEN_SIZE**2
        rising = [whitened, *(whole_numbers(widths) or ())]
        # a convolution that starts as an identity has an output for each input
        if len(rising) != 4 or rising != sorted(rising):
            raise ArgumentError(
                f"widths must be three numbers of channels, each at least the one before and the "
                f"first at least {whitened}; got {widths!r}"
            )
        if depth not in (2, 3):
            raise ArgumentError(f"depth must be 2 or 3 convolutions in a group; got {depth!r}")
        early = whole_numbers(early_pooling)
        if early is None or not set(early) <= {1, 2, 3}:
            raise ArgumentError(
                f"early_pooling must be numbers of groups, from 1 to 3; got {early_pooling!r}"
            )
        self.whiten = nn.Conv2d(3, whitened, _WHITEN_SIZE)
        self.whiten.weight.requires_grad = False
        self.activation = nn.GELU()
        self.group1, self.group2, self.group3 = (
            ConvGroup(inputs, outputs, depth, pools_first=number in early)
            for number, (inputs, outputs) in enumerate(itertools.pairwise(rising), 1)
        )
        self.head = nn.Linear(rising[-1], num_classes, bias=False)
        with torch.no_grad():
            self.head.weight.mul_(3**0.5 * rising[-1] ** 0.5)  # to a standard deviation of 1

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalized float images (B, 3, H, W) of at least 16x16."""
        x = self.activation(self.whiten(images))
        x = self.group3(self.group2(self.group1(x)))
        logits: Tensor = self.head(x.amax((2, 3))) / x.shape[1]
        return logits

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the first layer from training images.

        Half of its filters are the eigenvectors of the covariance of all patches, each divided by
        the root of its eigenvalue. The other half are the negatives of these filters.

        Args:
            images: Normalized float images (B, 3, H, W); a few thousand are enough.
        """
        patches = F.unfold(images.float(), _WHITEN_SIZE).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + _WHITEN_EPS).sqrt()).T.view(-1, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat((filters, -filters)))

    @property
    def is_prepared(self) -> bool:
        """Tell whether the first layer was set or loaded; it then has pairs of opposite filters."""
        filters, opposite = self.whiten.weight.chunk(2)
        return torch.equal(filters, -opposite)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters by their role; a recipe's ``groups`` name these roles."""
        named: dict[str, nn.Parameter] = dict(self.named_parameters())
        groups: dict[str, list[nn.Parameter]] = {}
        for number in (1, 2, 3):
            members = [(n, p) for n, p in named.items() if n.startswith(f"group{number}.")]
            groups[f"group{number}_filters"] = [p for n, p in members if ".conv" in n]
            groups[f"group{number}_biases"] = [p for n, p in members if n.endswith(".bias")]
        return {**groups, "whiten_bias": [named["whiten.bias"]], "head": [named["head.weight"]]}

    def output_divisors(self) -> dict[str, float]:
        """By what the output of a group's layer is divided; see `build_optimizer`."""
        return {"head": self.head.in_features}


def _convolution(in_channels: int, channels: int) -> nn.Conv2d:
    """A 3x3 convolution whose first outputs are its inputs."""
    layer = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[:in_channels])
    return layer


def _normalization(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


@register_model(**known("airbench94"))
def airbench94(
    *,
    widths: Sequence[int] = (64, 256, 256),
    early_pooling: Sequence[int] = (),
    num_classes: int = 10,
) -> AirBench:
    """Build the network for 94 %, with random parameters and a first layer that is not set yet.

    Args:
        widths: Channels of the three groups.
        early_pooling: Numbers of the groups, from 1 on, that pool before their first convolution.
        num_classes: Size of the output.
    """
    return AirBench(widths, depth=2, early_pooling=early_pooling, num_classes=num_classes)


@register_model(**known("airbench95"))
def airbench95(*, num_classes: int = 10) -> AirBench:
    """Build the network for 95 %."""
    return AirBench((128, 384, 384), depth=2, num_classes=num_classes)


@register_model(**known("airbench96"))
def airbench96(*, num_classes: int = 10) -> AirBench:
    """Build the network for 96 %."""
    return AirBench((128, 384, 512), depth=3, num_classes=num_classes)
