"""Networks that take contiguous maps only, as those that flatten by ``view``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo import ImageSet, Loader, Recipe, Trainer, evaluate, load_sample


class Flattening(nn.Module):
    """LeNet's way from maps to a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8 * 15 * 15, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        logits: Tensor = self.fc(x.view(x.size(0), -1))
        return logits


class Standardized(nn.Module):
    """Filters whose mean is subtracted, by a view of them."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.filters.view(8, -1).mean(1).view(8, 1, 1, 1)
        logits: Tensor = self.fc(F.relu(F.conv2d(x, self.filters - mean)).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def few() -> ImageSet:
    return load_sample("train").subset(range(64))


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("kind", [Flattening, Standardized])
def test_they_are_trained_and_evaluated(
    kind: type[nn.Module], few: ImageSet, kernels: bool
) -> None:
    recipe = Recipe(epochs=1, batch_size=32, teacher=kind.__name__)
    network = kind()
    for data in (few, Loader(few, batch_size=32)):
        trainer = Trainer(network, recipe, device="cpu", kernels=kernels, teacher=kind())
        assert len(trainer.fit(data, few)) == 1
    assert not network._forward_pre_hooks
    assert evaluate(network, few, device="cpu", tta="flip").num_images == 64
