"""Checks of batches that come from anywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cifarzoo.data.batches import as_pair, check_batch, check_labels, check_logits, check_normalized
from cifarzoo.errors import InputError


def test_good_batches_pass() -> None:
    labels = torch.tensor([0, 9])
    check_batch(torch.zeros(2, 3, 8, 8), labels)
    check_normalized(torch.full((2, 3, 8, 8), -2.2))
    check_normalized(torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16))
    check_normalized(torch.randn(20, 3, 8, 8))
    check_labels(labels, 10)


@pytest.mark.parametrize("value", [30.1, -31.0, float("inf"), float("nan")])
def test_values_that_are_not_normalized_are_refused(value: float) -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[1, 2, 3, 4] = value
    with pytest.raises(InputError, match="float images must be normalized; these lie in"):
        check_normalized(images)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool])
def test_images_of_whole_numbers_that_are_no_bytes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=f"uint8 in 0..255, .* or normalized floats; got {dtype}"):
        check_normalized(torch.ones(2, 3, 8, 8, dtype=dtype))


def test_images_as_torchvisions_totensor_makes_them_are_refused() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"must be normalized; these lie in .*\.\.(1|0\.\d+):"):
        check_normalized(images)


def test_a_few_bright_images_may_happen_to_lie_between_0_and_1() -> None:
    check_normalized(torch.full((7, 3, 8, 8), 0.5))


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(2)])
def test_labels_that_are_not_one_number_for_each_image_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"labels must be int64 \(2,\)"):
        check_batch(torch.zeros(2, 3, 8, 8), labels)


@pytest.mark.parametrize(("labels", "found"), [([0, 5], "0..5"), ([-1, 2], "-1..2")])
def test_labels_without_an_output_are_refused(labels: list[int], found: str) -> None:
    with pytest.raises(InputError, match=f"must be in 0..4 for a model with 5 .*; got {found}:"):
        check_labels(torch.tensor(labels), 5)


@pytest.mark.parametrize("batch", [torch.zeros(3), "images", (1, 2), (torch.zeros(1),), None])
def test_what_is_no_pair_of_tensors_is_refused(batch: Any) -> None:
    with pytest.raises(InputError, match="pairs of tensors"):
        as_pair(batch)


def test_a_list_of_two_is_a_pair() -> None:
    images, labels = torch.zeros(2, 3, 8, 8), torch.zeros(2)
    assert as_pair([images, labels]) == (images, labels)


@pytest.mark.parametrize(
    "output", [(torch.zeros(2, 10),), torch.zeros(2, 10, 1), torch.zeros(3, 10)]
)
def test_outputs_that_are_no_logits_are_refused(output: Any) -> None:
    with pytest.raises(InputError, match=r"must return logits \(2, classes\)"):
        check_logits(output, 2)
    check_logits(torch.zeros(2, 10), 2)
