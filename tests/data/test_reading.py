"""`ImageSet.from_dataset`: what holds images and labels, and where the names of classes are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.data.classes import class_names
from cifarzoo.errors import ArgumentError, InputError

NAMES = ("ant", "bee", "cow", "dog")


def pixels(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, 5, 6), dtype=torch.uint8, generator=generator)


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


class Named(Dataset[Any]):
    """A dataset in torchvision's style, with a name for each class."""

    def __init__(self, labels: list[Any], classes: tuple[str, ...] | None = NAMES) -> None:
        self.images, self.labels = pixels(len(labels)), labels
        if classes is not None:
            self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return picture(self.images[index]), self.labels[index]  # of tensors: never an IndexError


class ClassLabel:
    """What the `datasets` library puts into ``features`` for a column of labels."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.num_classes = names, len(names)


class Rows:
    """A table as that library has it: dicts of a row, or of columns for a part."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
        self.columns = columns
        self.features = {
            key: ClassLabel(names) if names and key in ("label", "fine_label") else object()
            for key in columns
        }

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))


class Stream(IterableDataset[Any]):
    """Items one after the other, of no known length."""

    def __init__(self, items: list[Any], classes: tuple[str, ...] = NAMES) -> None:
        self.items, self.classes = items, classes

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


# where the names are


@pytest.mark.parametrize("depth", [1, 3])
def test_a_subset_has_the_classes_of_the_whole(depth: int) -> None:
    part: Any = Named([0, 1, 2, 3, 0, 1])
    for _ in range(depth):
        part = Subset(part, [1, 0])
    read = ImageSet.from_dataset(part)
    assert read.classes == NAMES
    assert sorted(read.labels.tolist()) == [0, 1]


def test_both_parts_of_a_random_split_have_all_classes() -> None:
    for part in random_split(Named([0] * 5 + [3]), [3, 3]):
        assert ImageSet.from_dataset(part).classes == NAMES


def test_a_part_without_names_has_as_many_classes_as_the_whole() -> None:
    whole = TensorDataset(pixels(4), torch.tensor([0, 1, 4, 0]))
    read = ImageSet.from_dataset(Subset(Subset(whole, [0, 1, 3]), [1, 0]))
    assert read.classes == ("0", "1", "2", "3", "4")
    assert read.labels.tolist() == [1, 0]
    joined = ConcatDataset([Subset(whole, [0]), Subset(whole, [1])])
    assert len(ImageSet.from_dataset(joined).classes) == 5


def test_names_in_an_array_are_names_too() -> None:
    named = Named([2, 0])
    named.classes = np.array(NAMES)  # type: ignore[assignment]
    assert ImageSet.from_dataset(named).classes == NAMES
    assert class_names(DataLoader(named)) == NAMES


def test_data_sets_that_agree_are_put_together() -> None:
    joined = ConcatDataset([Subset(Named([0, 3]), [1]), Named([1, 2])])
    read = ImageSet.from_dataset(joined)
    assert (read.classes, read.labels.tolist()) == (NAMES, [3, 1, 2])


def test_data_sets_that_do_not_agree_are_refused() -> None:
    joined = ConcatDataset([Named([0]), Named([1], NAMES[::-1])])
    with pytest.raises(InputError, match="must have the same classes"):
        ImageSet.from_dataset(joined)
    assert ImageSet.from_dataset(joined, classes=NAMES).classes == NAMES
    without = ConcatDataset([Named([0]), Named([1], None)])
    assert ImageSet.from_dataset(without).classes == NAMES


def test_names_that_are_given_win() -> None:
    given = ("a", "b", "c", "d", "e")
    assert ImageSet.from_dataset(Subset(Named([0]), [0]), classes=given).classes == given


def test_its_own_names_in_another_order_are_refused() -> None:
    """They would rename the classes, and not renumber the labels."""
    with pytest.raises(ArgumentError, match=r"own names in another order.*; leave classes out"):
        ImageSet.from_dataset(Named([0, 1]), classes=NAMES[::-1])
    by_name = Named([NAMES[0], NAMES[1]])  # here they say how labels are numbered
    assert ImageSet.from_dataset(by_name, classes=NAMES[::-1]).labels.tolist() == [
        len(NAMES) - 1,
        len(NAMES) - 2,
    ]


class Turned(Named):
    """Changes the labels of what it is one of."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image, len(NAMES) - 1 - label


def test_names_of_changed_labels_may_be_given() -> None:
    given = NAMES[::-1]
    assert ImageSet.from_dataset(Turned([0]), classes=given).classes == given


@pytest.mark.parametrize("label", [None, 3, torch.tensor(3)])
def test_a_table_without_labels_is_refused(label: Any) -> None:
    table = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "label": label}
    with pytest.raises(InputError, match="label"):
        ImageSet.from_dataset(table, classes=NAMES)


# what the items are


ITEMS: dict[str, Any] = {
    "pairs": lambda image, label, i: (image, label),
    "lists": lambda image, label, i: [image, label],
    "dicts of datasets": lambda image, label, i: {"img": picture(image), "label": label},
    "dicts with more": lambda image, label, i: {"image": image, "id": i, "labels": label},
    "three with numbers": lambda image, label, i: (image, label, 7 * i),
    "three with paths": lambda image, label, i: (image, label, Path(f"{i}.png")),
    "arrays": lambda image, label, i: (image.permute(1, 2, 0).numpy(), np.int32(label)),
    "labels in tensors": lambda image, label, i: (image, torch.tensor(label)),
    "labels in a column": lambda image, label, i: (image, torch.tensor([label])),
    "one-hot labels": lambda image, label, i: (image, np.eye(4)[label]),
    "names as labels": lambda image, label, i: (image, NAMES[label]),
    "files": lambda image, label, i: (png(image), label),
    "encoded rows": lambda image, label, i: {
        "image": {"bytes": png(image), "path": None},
        "label": label,
    },
}
LABELS = [0, 2, 2, 1, 0]


def png(image: Tensor) -> bytes:
    file = io.BytesIO()
    picture(image).save(file, format="PNG")
    return file.getvalue()


def items(form: str) -> list[Any]:
    return [
        ITEMS[form](image, label, i)
        for i, (image, label) in enumerate(zip(pixels(5), LABELS, strict=True))
    ]


@pytest.mark.parametrize("form", ITEMS)
@pytest.mark.parametrize("holder", [list, iter, Stream])
def test_items_are_taken_in_every_form_from_whatever_holds_them(holder: Any, form: str) -> None:
    read = ImageSet.from_dataset(holder(items(form)), classes=NAMES)
    assert torch.equal(read.images, pixels(5))
    assert read.labels.tolist() == LABELS


def test_a_generator_is_read_to_its_end() -> None:
    read = ImageSet.from_dataset((pair for pair in items("pairs")), name="made")
    assert (read.labels.tolist(), read.classes, read.name) == (LABELS, ("0", "1", "2"), "made")


def test_tables_of_the_datasets_library_have_names() -> None:
    columns = {"img": list(map(picture, pixels(5))), "label": LABELS}
    table = Rows(columns, list(NAMES))
    for source in (table, Subset(table, [4, 3, 2, 1, 0])):  # type: ignore[arg-type]  # it has items
        read = ImageSet.from_dataset(source)
        assert read.classes == NAMES
        assert sorted(read.labels.tolist()) == sorted(LABELS)
    as_columns = ImageSet.from_dataset(table[0:5], classes=NAMES)
    assert as_columns.sha256() == ImageSet.from_dataset(table).sha256()
    hundred = Rows({**columns, "fine_label": LABELS, "coarse_label": [0] * 5}, list(NAMES))
    del hundred.columns["label"], hundred.features["label"]
    assert ImageSet.from_dataset(hundred).labels.tolist() == LABELS
    assert ImageSet.from_dataset(hundred).classes == NAMES


def test_evaluation_maps_the_classes_of_such_a_table_by_their_names(few: ImageSet) -> None:
    names = list(few.classes)[::-1]
    rows = [
        {"pixel_values": image, "labels": 9 - label, "label": 9 - label} for image, label in few
    ]
    table = Rows({"img": [r["pixel_values"] for r in rows], "label": [r["label"] for r in rows]})
    table.features["label"] = ClassLabel(names)
    model = cifarzoo.create_model("simple", seed=0)
    loader = DataLoader(table, batch_size=50)  # type: ignore[arg-type]  # it has items
    found = cifarzoo.evaluate(model, loader, precision="float32")
    assert found.confusion == cifarzoo.evaluate(model, few, precision="float32").confusion


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([2.9, 1.0], r"must be whole numbers, .*got 2\.9"),
        ([True, False], "numbers of classes; got torch.bool"),
        (["ant", "elk"], "the label 'elk' is none of the classes 'ant', 'bee', 'cow', 'dog'"),
        ([None, 1], "one whole number for each image"),
        ([0, 4], r"labels must be in 0\.\.3 for 4 classes; got 0\.\.4"),
        ([[0.5, 0.5, 0, 0], [0.0, 1.0, 0, 0]], "rows with one 1"),
        ([[1], 2], "a mix"),
    ],
)
def test_labels_that_are_no_class_are_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageSet.from_dataset(Named(labels))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([(pixels(1)[0], 0), {"img": pixels(1)[0]}], "item 1 of the dataset: a dict must have one"),
        ([(pixels(1)[0], 0, 1), (pixels(1)[0], 0, 1)], "the last must be the numbers or names"),
        ([pixels(1)[0]], r"item 0 of the dataset: .*got Tensor \(3, 5, 6\)"),
        (DataLoader(Named([0, 1])), "list|batch"),
        ([(pixels(2), torch.zeros(2))], "holds a batch; pass the dataset behind the DataLoader"),
        ([("lost.png", 0)], r"item 0 .*lost\.png: there is no such file"),
        (3, r"must have items \(image, label\).*; got 3"),
        ({"train": 1, "test": 2}, "got 'train', 'test'"),
        (iter(()), "the dataset is empty"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset: Any, message: str) -> None:
    if isinstance(dataset, DataLoader):
        dataset.collate_fn = lambda pairs: (torch.stack([pixels(1)[0] for _ in pairs]), [0])
    with pytest.raises(InputError, match=message):
        ImageSet.from_dataset(dataset)


def test_photos_of_a_dataset_are_turned_upright() -> None:
    exif = Image.Exif()
    exif[274] = 3
    file = io.BytesIO()
    picture(pixels(1)[0].rot90(2, (1, 2))).save(file, format="PNG", exif=exif)
    read = ImageSet.from_dataset([(Image.open(file), 0)])
    assert torch.equal(read.images, pixels(1))
