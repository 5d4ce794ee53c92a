from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from cifarzoo import ImageSet, Loader
from cifarzoo.data.classes import align, class_names, class_numbers
from cifarzoo.errors import InputError

KNOWN = ("airplane", "bird", "cat", "dog", "ship")


@given(st.permutations(KNOWN), st.integers(1, 5))
def test_known_names_have_the_models_numbers(names: list[str], count: int) -> None:
    numbers = class_numbers(names[:count], KNOWN)
    if numbers is None:
        assert tuple(names) == KNOWN
    else:
        assert [KNOWN[number] for number in numbers] == names[:count]


@pytest.mark.parametrize(
    "names",
    [
        None,
        (),
        KNOWN,
        (*KNOWN, "truck"),
        ("a", "b", "c", "d", "e"),
        ("airplane", "bird", "cat", "dog", "boat"),
    ],
    ids=["none", "empty", "the same", "and more", "none shared", "one renamed"],
)
def test_labels_hold_as_they_are(names: tuple[str, ...] | None) -> None:
    assert class_numbers(names, KNOWN) is None
    assert class_numbers(names, None) is None


def test_fewer_classes_of_which_none_is_known_are_refused() -> None:
    with pytest.raises(InputError, match=r"none of the images' 2 classes .* nobody knows"):
        class_numbers(("a", "b"), KNOWN)


def test_upper_and_lower_case_are_one() -> None:
    assert class_numbers(("Ship", " DOG"), KNOWN) == (4, 3)


def test_case_counts_where_it_tells_classes_apart() -> None:
    letters = ("A", "B", "a", "b")
    assert class_numbers(("b", "a"), letters) == (3, 2)
    assert class_numbers(("a", "b", "A", "B"), letters) == (2, 3, 0, 1)


@pytest.mark.parametrize("names", [("dog", "unicorn"), ("airplane", "unicorn"), KNOWN[1:] + ("x",)])
def test_classes_that_are_known_in_part_are_refused_by_name(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"not among the model's: '(unicorn|x)' is unknown"):
        class_numbers(names, KNOWN)


def test_the_refusal_names_the_numbers_of_both_sides() -> None:
    message = (
        r"'unicorn' is unknown to it\. It knows 'dog' \(number 0 of the images, 3 of the model\)"
    )
    with pytest.raises(InputError, match=message):
        class_numbers(("dog", "unicorn"), KNOWN)


@pytest.mark.parametrize(
    ("names", "known"), [(("dog", "dog"), KNOWN), (("dog", "cat"), ("cat", "dog", "dog"))]
)
def test_a_name_that_stands_twice_has_no_number(
    names: tuple[str, ...], known: tuple[str, ...]
) -> None:
    with pytest.raises(InputError, match="'dog' stands twice"):
        class_numbers(names, known)


def test_names_are_found_wherever_the_images_lie(few: ImageSet) -> None:
    part = Subset(Subset(few, [1, 2, 3]), [0])
    sources = [few, part, DataLoader(part), Loader(few, batch_size=9), ConcatDataset([few, part])]
    assert [class_names(source) for source in sources] == [few.classes] * 5
    assert class_names([(few.images, few.labels)]) is None
    assert class_names(DataLoader(TensorDataset(few.images))) is None


class Relabelled(Dataset[Any]):
    """Changes labels on the way, as data sets of one's own do."""

    def __init__(self, inner: ImageSet) -> None:
        self.dataset = inner

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        image, label = self.dataset[index]
        return image, label % 2


class RelabelledPart(Subset[Any]):
    def __getitem__(self, index: Any) -> Any:
        image, label = super().__getitem__(index)
        return image, label % 2

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class OwnLoader(DataLoader[Any]):
    """Makes its batches as its parent does."""


def test_names_are_not_those_of_labels_that_change_on_the_way(few: ImageSet) -> None:
    assert class_names(Relabelled(few)) is None
    assert class_names(DataLoader(RelabelledPart(few, [0, 1]))) is None
    assert class_names(ConcatDataset([Relabelled(few), Relabelled(few)])) is None
    assert ImageSet.from_dataset(Relabelled(few)).classes == ("0", "1")
    assert class_names(OwnLoader(few)) == few.classes


@pytest.mark.parametrize(
    ("transform", "has_names"),
    [
        (None, True),
        (torch.tensor, True),
        (lambda label: F.one_hot(torch.tensor(label), 10), True),
        (lambda label: 9 - label, False),
        (lambda label: {3: 0, 5: 1}[label], False),
    ],
)
def test_names_hold_where_a_target_transform_keeps_the_numbers(
    transform: Any, has_names: bool, few: ImageSet
) -> None:
    source: Any = SimpleNamespace(classes=[*few.classes], target_transform=transform)
    for each in (source, Subset(source, [0])):
        assert class_names(each) == (few.classes if has_names else None)


def test_a_part_without_names_goes_by_the_others(few: ImageSet) -> None:
    nameless = TensorDataset(few.images, few.labels)
    assert class_names(ConcatDataset([nameless, few])) == few.classes
    assert class_names(ConcatDataset([nameless, nameless])) is None


def test_a_data_set_of_the_library_datasets_names_its_classes_in_its_features() -> None:
    def data_set(**features: object) -> object:
        return SimpleNamespace(features=features)

    label = SimpleNamespace(names=["cat", "dog"])
    assert class_names(data_set(image=object(), label=label)) == ("cat", "dog")
    assert class_names(data_set(fine=label, coarse=SimpleNamespace(names=["pet"]))) is None
    assert class_names(SimpleNamespace(features=64)) is None


def test_parts_that_number_their_classes_differently_are_refused(few: ImageSet) -> None:
    other = ImageSet(few.images, few.labels, few.classes[::-1])
    with pytest.raises(InputError, match=r"must have the same classes.*0 is 'airplane' in one"):
        class_names(DataLoader(ConcatDataset([few, other])))


def test_aligned_images_have_the_models_labels_and_names(few: ImageSet) -> None:
    other = ImageSet(few.images, 9 - few.labels, few.classes[::-1])
    assert align(few, few.classes) is few
    assert torch.equal(align(other, few.classes).labels, few.labels)
    assert align(other, few.classes).classes == few.classes
