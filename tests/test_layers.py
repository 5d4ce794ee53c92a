from __future__ import annotations

import pytest
import torch
from torch import nn

from cifarzoo.layers import BatchNorm1d, BatchNorm2d, check_images


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_torchs_for_ordinary_batches(training: bool) -> None:
    ours, theirs = BatchNorm2d(4).train(training), nn.BatchNorm2d(4).train(training)
    images = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.running_mean, theirs.running_mean)


def test_batch_of_one_is_normalized_by_the_running_statistics() -> None:
    layer = BatchNorm1d(3, affine=False)
    layer.running_mean.fill_(1.0)
    expected = (torch.tensor([[2.0, 3.0, 4.0]]) - 1) / (1 + layer.eps) ** 0.5
    torch.testing.assert_close(layer(torch.tensor([[2.0, 3.0, 4.0]])), expected)
    assert torch.equal(layer.running_mean, torch.ones(3))


def test_batch_norm_still_refuses_other_ranks() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        BatchNorm2d(3)(torch.zeros(1, 3))


def test_mixed_precision_may_bring_images_of_another_dtype() -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_images(images, torch.zeros(1))
