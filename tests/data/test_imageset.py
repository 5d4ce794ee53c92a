from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import image_sets
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor, to_tensor

from cifarzoo import ImageSet, Loader
from cifarzoo.data.image import to_uint8
from cifarzoo.errors import ArgumentError, InputError

CLASSES = ("cat", "dog")


def pixels(count: int, *, side: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def numbered(images: ImageSet) -> ImageSet:
    """The same set with each image's position in its first pixel."""
    marked = images.images.clone()
    marked[:, 0, 0, 0] = torch.arange(len(images)).to(torch.uint8)
    return dataclasses.replace(images, images=marked)


def positions(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def by_class(labels: list[int]) -> ImageSet:
    classes = tuple(str(i) for i in range(max(labels) + 1))
    return numbered(ImageSet(pixels(len(labels)), torch.tensor(labels), classes))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            pixels(2).float(),
            torch.tensor([0, 1]),
            r"float in 0..1, .*got torch.float32 in .*divide",
        ),
        (pixels(2)[0], torch.tensor([0, 1]), r"got \(3, 4, 4\).*from_dataset\(\)"),
        (pixels(2)[:, :1], torch.tensor([0, 1]), r"\(N, 3, H, W\).*got \(2, 1, 4, 4\)"),
        (pixels(2).int(), torch.tensor([0, 1]), r"uint8 in 0..255, or float; got torch.int32"),
        (pixels(2), torch.tensor([0]), r"labels must be \(2,\), one for each image; got \(1,\)"),
        (pixels(2), torch.tensor([0.0, 0.9]), r"labels must be whole numbers.*got 0.9"),
        (pixels(2), [True, False], r"labels must be numbers of classes; got torch.bool"),
        (pixels(2), ["cat", "owl"], r"the label 'owl' is none of the classes 'cat', 'dog'"),
        (pixels(2), torch.full((2, 2), 0.5), r"or rows with one 1; got torch.float32 \(2, 2\)"),
        (
            pixels(2),
            torch.eye(3)[:2],
            r"must be \(2, 2\), with a column for each class; .*\(2, 3\)",
        ),
        (pixels(2), [[0, 1, 0], [1, 0, 0]], r"must be \(2, 2\), with a column for each class"),
        (pixels(2), torch.full((2, 4), 0.25), r"must be \(2, 2\), with a column for each class"),
        (pixels(2), torch.tensor([0, 2]), r"labels must be in 0..1 for 2 classes; got 0..2"),
        (pixels(2), torch.tensor([-1, 0]), r"labels must be in 0..1 for 2 classes; got -1..0"),
        (pixels(2)[:0], torch.tensor([0])[:0], r"at least one image; got none"),
    ],
)
def test_wrong_images_and_labels_are_refused(images: Tensor, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageSet(images, labels, CLASSES)


def test_set_is_a_sequence_of_image_and_label() -> None:
    images = ImageSet(pixels(3), torch.tensor([0, 1, 1]), CLASSES, "pets")
    assert len(images) == 3
    image, label = images[2]
    assert torch.equal(image, images.images[2])
    assert (label, type(label)) == (1, int)
    assert [label for _, label in images] == [0, 1, 1]
    assert repr(images) == "ImageSet('pets', 3 images 4x4, 2 classes)"


def test_classes_become_a_tuple() -> None:
    images = ImageSet(pixels(1), torch.tensor([0]), ["cat", "dog"])
    assert images.classes == CLASSES


def test_torch_dataloader_batches_the_set() -> None:
    images = ImageSet(pixels(5), torch.tensor([0, 1, 1, 0, 1]), CLASSES)
    batches = list(DataLoader(images, batch_size=2))
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)


def test_subset_takes_the_images_in_the_order_given() -> None:
    images = by_class([0, 1, 2, 0])
    taken = images.subset([3, 1, 1], name="taken")
    assert positions(taken) == [3, 1, 1]
    assert taken.labels.tolist() == [0, 1, 1]
    assert taken.classes == images.classes
    assert (taken.name, images.subset(torch.tensor([0])).name) == ("taken", "images")


def test_subset_takes_a_mask() -> None:
    images = by_class([0, 1, 2, 0])
    for mask in (images.labels == 0, np.array([True, False, False, True]), [True, False] * 2):
        expected = [0, 3] if not isinstance(mask, list) else [0, 2]
        assert positions(images.subset(mask)) == expected


def test_subset_refuses_what_is_no_index() -> None:
    images = by_class([0, 1, 2])
    with pytest.raises(ArgumentError, match=r"one boolean for each of the 3 images; got .*\(2,\)"):
        images.subset([True, False])
    with pytest.raises(ArgumentError, match=r"must be integers or booleans; got torch\.float64"):
        images.subset([0.5])


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [4, 2, 0]),
        (slice(-2, None), [3, 4]),
        (slice(3, 99), [3, 4]),
        (range(4, 0, -2), [4, 2]),
        ([-1, 0, -5], [4, 0, 0]),
        ((2, 1), [2, 1]),
        (np.array([3, -2], np.int32), [3, 3]),
        (np.array([3, 1], np.uint16), [3, 1]),
        (np.array([4, 3, 2, 1])[::-2], [1, 3]),
        ([np.int64(2), np.int8(-1)], [2, 4]),
        (np.array([False, True, False, False, True]), [1, 4]),
        (torch.tensor([2, 1], dtype=torch.uint8), [2, 1]),
        ((i for i in (1, 2)), [1, 2]),
        ({3: "a", 1: "b"}, [3, 1]),
    ],
)
def test_subset_takes_what_python_and_numpy_index_with(indices: Any, expected: list[int]) -> None:
    assert positions(by_class([0, 1, 2, 0, 1]).subset(indices)) == expected


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([5], r"must be in -5\.\.4 for a set of 5; got 5\.\.5"),
        ([0, -6], r"must be in -5\.\.4 for a set of 5; got -6\.\.0"),
        (np.array([99, 0]), r"got 0\.\.99"),
        ({1, 2}, r"no order; pass sorted\("),
        (3, "must be whole numbers, a mask or a slice; got 3"),
        (np.int64(3), r"got shape \(\): for one image pass \[index\]"),
        ([[0, 1]], r"got shape \(1, 2\)"),
        ("01", "must be whole numbers, a mask or a slice; got '01'"),
        (torch.tensor([0, 1, 1, 0, 1], dtype=torch.uint8), "may be a mask or two images"),
        (np.array([True, False]), "one boolean for each of the 5"),
    ],
)
def test_subset_refuses_the_rest(indices: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        by_class([0, 1, 2, 0, 1]).subset(indices)


def test_one_image_is_taken_by_a_whole_number_of_any_kind() -> None:
    images = by_class([0, 1, 2])
    assert images[np.int64(2)][1] == images[-1][1] == 2
    with pytest.raises(ArgumentError, match=r"must be a whole number; got slice\(.*subset\(\)"):
        images[0:2]  # type: ignore[index]  # that is the point
    with pytest.raises(IndexError):
        images[3]


def test_numpy_numbers_are_whole_numbers() -> None:
    images = by_class([0, 1] * 6)
    found = images.split(np.int64(4), seed=np.int32(1))  # type: ignore[arg-type]  # what callers do
    expected = images.split(4, seed=1)
    assert [part.sha256() for part in found] == [part.sha256() for part in expected]
    loader = Loader(images, batch_size=np.int64(5))  # type: ignore[arg-type]  # what callers do
    assert [len(labels) for _, labels in loader] == [5, 5, 2]
    with pytest.raises(ArgumentError, match=r"must be a whole number; got 5\.0"):
        Loader(images, batch_size=5.0)  # type: ignore[arg-type]  # that is the point


SETS: dict[str, Any] = {
    "tensors": lambda x, y: (x, y),
    "arrays": lambda x, y: (x.numpy(), y.numpy()),
    "channels last": lambda x, y: (x.permute(0, 2, 3, 1), y),
    "arrays, channels last": lambda x, y: (x.permute(0, 2, 3, 1).numpy(), y),
    "floats": lambda x, y: (x.double().numpy() / 255, y),
    "16 bits": lambda x, y: (x.numpy().astype(np.uint16) * 257, y),
    "a list of images": lambda x, y: (list(x), y),
    "labels in a list": lambda x, y: (x, y.tolist()),
    "labels of int32": lambda x, y: (x, y.int()),
    "labels of numpy's uint8": lambda x, y: (x, y.numpy().astype(np.uint8)),
    "labels of whole floats": lambda x, y: (x, y.float()),
    "labels in a column": lambda x, y: (x, y[:, None]),
    "one-hot labels": lambda x, y: (x, torch.eye(2)[y]),
    "names as labels": lambda x, y: (x, [CLASSES[i] for i in y.tolist()]),
    "an array of names": lambda x, y: (x, np.array(CLASSES)[y.numpy()]),
}


@pytest.mark.parametrize("form", SETS)
def test_sets_are_made_from_what_people_have(form: str) -> None:
    images, labels = pixels(5), torch.tensor([0, 1, 1, 0, 1])
    made = ImageSet(*SETS[form](images, labels), CLASSES)
    assert made.sha256() == ImageSet(images, labels, CLASSES).sha256()
    assert (made.images.dtype, made.labels.dtype) == (torch.uint8, torch.int64)


def test_no_message_contradicts_itself() -> None:
    images = pixels(5)
    with pytest.raises(InputError, match=r"must be a tensor|as a tensor, an array or a list; got"):
        ImageSet(images.numpy().tobytes(), [0] * 5, CLASSES)
    with pytest.raises(InputError, match=r"must be a list of names, one or more; got 'ab'"):
        ImageSet(images, [0] * 5, "ab")


def test_subset_is_a_copy() -> None:
    images = by_class([0, 0])
    images.subset([0, 1]).images.zero_()
    assert positions(images) == [0, 1]


def test_subset_refuses_to_be_empty() -> None:
    with pytest.raises(InputError, match="at least one image"):
        by_class([0, 0]).subset([])


@given(image_sets(max_size=40).filter(lambda s: len(s) > 1), st.data(), st.integers(0, 2**62))
def test_split_divides_the_set(images: ImageSet, data: st.DataObject, seed: int) -> None:
    size = data.draw(st.integers(1, len(images) - 1))
    images = numbered(images)
    rest, held_out = images.split(size, seed=seed)
    assert len(held_out) == size
    assert sorted(positions(rest) + positions(held_out)) == list(range(len(images)))
    for part in (rest, held_out):
        assert positions(part) == sorted(positions(part))
        assert torch.equal(part.images, images.images[positions(part)])
        assert torch.equal(part.labels, images.labels[positions(part)])
        assert part.classes == images.classes


@given(image_sets(max_size=40).filter(lambda s: len(s) > 1), st.data())
def test_one_share_fits_every_class_to_half_an_image(images: ImageSet, data: st.DataObject) -> None:
    _, held_out = images.split(data.draw(st.integers(1, len(images) - 1)))
    members = images.labels.bincount(minlength=len(images.classes)).double()
    held = held_out.labels.bincount(minlength=len(images.classes)).double()
    present = members > 0
    lowest = ((held - 0.5) / members)[present].max()
    highest = ((held + 0.5) / members)[present].min()
    assert lowest <= highest + 1e-12


@given(st.integers(1, 4), st.integers(2, 5), st.data())
def test_split_of_a_balanced_set_is_balanced(
    num_classes: int, members: int, data: st.DataObject
) -> None:
    each = data.draw(st.integers(1, members - 1))
    images = by_class(list(range(num_classes)) * members)
    rest, held_out = images.split(each * num_classes)
    assert held_out.labels.bincount().tolist() == [each] * num_classes
    assert rest.labels.bincount().tolist() == [members - each] * num_classes


def test_split_is_decided_by_the_seed(sample_train: ImageSet) -> None:
    first, again, other = (sample_train.split(200, seed=seed)[1] for seed in (1, 1, 2))
    assert first.sha256() == again.sha256()
    assert first.sha256() != other.sha256()


def test_split_is_the_same_everywhere() -> None:
    _, held_out = by_class([0, 1, 2] * 8).split(6, seed=0)
    assert positions(held_out) == [3, 5, 7, 12, 13, 20]


def test_split_names_the_part_held_out(sample_train: ImageSet) -> None:
    rest, held_out = sample_train.split(10)
    assert rest.name == "cifar10 sample train"
    assert held_out.name == "cifar10 sample train held out"


def test_split_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    by_class([0, 1, 0, 1]).split(2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [-1, 0, 4, 5])
def test_split_refuses_to_leave_a_part_empty(size: int) -> None:
    with pytest.raises(
        ArgumentError,
        match=rf"split size must be a whole number in 1..3 for a set of 4; got {size}",
    ):
        by_class([0, 1, 0, 1]).split(size)


def test_checksum_depends_on_every_pixel_and_label() -> None:
    images = by_class([0, 1, 1])
    other_pixel = dataclasses.replace(images, images=images.images.clone())
    assert other_pixel.sha256() == images.sha256()
    other_pixel.images[2, 2, 3, 3] += 1
    other_label = dataclasses.replace(images, labels=torch.tensor([0, 1, 0]))
    assert len({images.sha256(), other_pixel.sha256(), other_label.sha256()}) == 3


def test_checksum_is_of_the_values_and_not_of_their_layout() -> None:
    images = by_class([0, 1, 1])
    channels_last = images.images.contiguous(memory_format=torch.channels_last)
    assert dataclasses.replace(images, images=channels_last).sha256() == images.sha256()


def as_array(image: Tensor) -> Any:
    return image.permute(1, 2, 0).contiguous().numpy()


FORMS = {
    "uint8 tensor": lambda image: image,
    "float tensor": lambda image: image.float() / 255,
    "half tensor": lambda image: image.double().div(255).to(torch.float16),
    "uint8 array": as_array,
    "array view": lambda image: image.permute(1, 2, 0).numpy(),
    "array with alpha": lambda image: np.dstack([as_array(image), np.full((4, 4), 255, np.uint8)]),
    "float array": lambda image: as_array(image) / 255,
    "uint16 array": lambda image: as_array(image).astype(np.uint16) * 257,
    "uint16 array of the other byte order": lambda image: as_array(image).astype(">u2") * 257,
    "mirrored array": lambda image: as_array(image.flip(2))[:, ::-1],
    "PIL": lambda image: Image.fromarray(as_array(image)),
    "PIL with alpha": lambda image: Image.fromarray(as_array(image)).convert("RGBA"),
    "read-only array": lambda image: np.frombuffer(as_array(image).tobytes(), np.uint8).reshape(
        4, 4, 3
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_from_dataset_reads_every_form_of_an_image(form: str) -> None:
    images = ImageSet(pixels(3), torch.tensor([0, 1, 1]), CLASSES)
    dataset = [(FORMS[form](image), label) for image, label in images]
    read = ImageSet.from_dataset(dataset, classes=CLASSES)
    assert read.sha256() == images.sha256()
    assert (read.classes, read.name) == (CLASSES, "list")


def test_float_images_give_every_pixel_value_back() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    assert torch.equal(to_uint8(to_tensor(as_array(image))), image)


@pytest.mark.parametrize(("value", "expected"), [(0.4, 0), (0.6, 1), (127.6, 128), (254.4, 254)])
def test_float_images_are_rounded_to_the_nearest_value(value: float, expected: int) -> None:
    assert to_uint8(torch.full((3, 1, 1), value / 255)).tolist() == [[[expected]]] * 3


@pytest.mark.parametrize("gray", [np.uint8([[0, 7], [255, 9]]), Image.new("L", (2, 2), 7)])
def test_gray_images_get_three_equal_channels(gray: Any) -> None:
    expected = torch.from_numpy(np.array(gray)).expand(3, 2, 2)
    assert torch.equal(to_uint8(gray), expected)


def test_palette_images_are_read_in_colour() -> None:
    image = Image.new("RGB", (4, 4), (200, 30, 60)).quantize(4)
    assert image.mode == "P"
    assert to_uint8(image)[:, 0, 0].tolist() == [200, 30, 60]


def test_converted_array_is_independent_of_the_original() -> None:
    array = as_array(pixels(1)[0])
    converted = to_uint8(array)
    expected = converted.clone()
    array[:] = 0
    assert torch.equal(converted, expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 4, 3), r"shape \(3, height, width\); got \(4, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"shape \(3, height, width\); got \(1, 3, 4, 4\): pass a batch"),
        (torch.full((3, 4, 4), 1.5), r"not normalized; got torch.float32 in 1.5..1.5: divide"),
        (torch.full((3, 4, 4), -0.1), r"not normalized; got torch.float32 in -0.1..-0.1"),
        (torch.full((3, 4, 4), float("nan")), r"not normalized; got torch.float32 in nan..nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"got torch.int64 in 0..0: convert"),
        (torch.zeros(3, 4, 4, dtype=torch.cfloat), r"got torch.complex64"),
        (np.zeros((4, 4, 3)) + 9, r"got torch.float64 in 9..9: divide values in 0..255"),
        (np.full((4, 4), 255, np.uint16), r"value of this 16-bit image is 255 of 65535"),
        (np.zeros(4, np.uint8), r"got \(4,\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), r"got \(3, 4, 4, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), r"got \(3, 4, 4\)"),
        (np.zeros((9, 4, 5), np.uint8), r"shape \(height, width, 3\); got \(9, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), r"needs pixels; this one has shape \(0, 4\)"),
        (np.array([["a"]]), r"must hold numbers; got dtype <U1"),
        ("frog.png", r"cannot read an image from frog.png: there is no such file"),
        (3, r"must be a path, a PIL image, an array .*; got 3"),
    ],
)
def test_other_forms_are_refused(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_uint8(image)


def test_from_dataset_reads_torchvision_fake_data() -> None:
    fake = FakeData(size=5, image_size=(3, 8, 6), num_classes=3, random_offset=1)
    read = ImageSet.from_dataset(fake)
    assert torch.equal(read.images, torch.stack([pil_to_tensor(image) for image, _ in fake]))
    assert read.labels.tolist() == [int(label) for _, label in fake]
    assert read.name == "FakeData"
    assert read.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "transform", [None, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])]
)
def test_from_dataset_reads_a_torchvision_image_folder(tmp_path: Path, transform: Any) -> None:
    originals = pixels(2)
    for name, image in zip(("dog", "cat"), originals, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(as_array(image)).save(tmp_path / name / "1.png")
    read = ImageSet.from_dataset(ImageFolder(str(tmp_path), transform=transform), name="pets")
    assert torch.equal(read.images, originals.flip(0))
    assert read.labels.tolist() == [0, 1]
    assert (read.classes, read.name) == (CLASSES, "pets")


def test_from_dataset_reads_a_tensor_dataset() -> None:
    labels = torch.tensor([1, 0, 1])
    read = ImageSet.from_dataset(TensorDataset(pixels(3), labels), classes=CLASSES)
    assert torch.equal(read.images, pixels(3))
    assert torch.equal(read.labels, labels)


def test_channels_first_is_seen_where_it_is_the_only_reading() -> None:
    image = pixels(1, side=6)[0]
    assert torch.equal(to_uint8(image.numpy()), image)
    assert torch.equal(to_uint8(image.permute(1, 2, 0)), image)
    gray = image[:1]
    for form in (gray, gray[0], gray.permute(1, 2, 0), gray.numpy(), gray.float() / 255):
        assert torch.equal(to_uint8(form), gray.expand(3, -1, -1))


def test_from_dataset_refuses_images_of_several_sizes() -> None:
    dataset = [(pixels(1)[0], 0), (pixels(1, side=5)[0], 0)]
    with pytest.raises(InputError, match=r"one size; got \[\(3, 4, 4\), \(3, 5, 5\)\]"):
        ImageSet.from_dataset(dataset)


def test_from_dataset_refuses_an_empty_dataset() -> None:
    with pytest.raises(InputError, match="the dataset is empty"):
        ImageSet.from_dataset([])


def test_from_dataset_refuses_labels_without_a_class() -> None:
    with pytest.raises(InputError, match=r"0..1 for 2 classes; got 0..2"):
        ImageSet.from_dataset([(image, i) for i, image in enumerate(pixels(3))], classes=CLASSES)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), 9, np.uint32), r"got torch.uint32 in 9\.\.9: convert values in 0..255"),
        (torch.full((3, 4, 4), 9, dtype=torch.uint64), r"got torch.uint64 in 9\.\.9"),
        (torch.zeros(3, 4, 4).to_sparse(), "its pixels one by one; got a torch.sparse_coo tensor"),
        (torch.zeros(3, 4, 4, device="meta"), "its pixels one by one; got a meta tensor"),
        (np.ma.masked_equal(np.zeros((4, 4, 3), np.uint8), 0), "some of this one are masked"),
    ],
)
def test_pixels_that_are_not_there_are_refused(image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_uint8(image)


def test_an_image_without_a_label_is_refused() -> None:
    with pytest.raises(InputError, match="each image needs a label; some of these are masked"):
        ImageSet(pixels(2), np.ma.masked_equal([0, 1], 1), CLASSES)


@pytest.mark.parametrize(
    "classes", [None, (), "ab", range(2), 3, {"cat", "dog"}, {"cat": 0, "dog": 1}]
)
def test_classes_that_are_no_names_in_an_order_are_refused(classes: Any) -> None:
    with pytest.raises(
        InputError, match=r"classes must be a list of names, one or more; got .*in the order"
    ):
        ImageSet(pixels(2), [0, 1], classes)
    if classes is not None:
        with pytest.raises(InputError, match="classes must be a list of names, one or more"):
            ImageSet.from_dataset([(pixels(1)[0], 0)], classes=classes)


def test_each_class_has_a_name_of_its_own() -> None:
    with pytest.raises(InputError, match="'cat' stands twice among the 3 classes"):
        ImageSet(pixels(2), [0, 1], ("cat", "dog", "cat"))
    with pytest.raises(InputError, match="'cat' stands twice among the 2 classes"):
        ImageSet.from_dataset([(pixels(1)[0], 0)], classes=["cat", "cat"])


def test_classes_may_come_one_by_one() -> None:
    images = ImageSet(pixels(2), ["dog", "cat"], (name for name in CLASSES))  # type: ignore[arg-type]  # what callers do
    assert images.classes == CLASSES
    assert images.labels.tolist() == [1, 0]


def test_columns_may_name_their_classes() -> None:
    columns = {"image": pixels(2), "label": ["dog", "cat"]}
    images = ImageSet.from_dataset(columns, classes=CLASSES)
    assert images.labels.tolist() == [1, 0]


def test_names_of_classes_are_plain_text() -> None:
    images = ImageSet(pixels(2), [0, 1], np.array(CLASSES))  # type: ignore[arg-type]  # what callers do
    assert images.classes == CLASSES
    assert {type(name) for name in images.classes} == {str}


@pytest.mark.parametrize("empty", [{"img": [], "label": []}, {"image": (), "label": ()}])
def test_a_table_without_images_is_said_to_be_empty(empty: Any) -> None:
    with pytest.raises(InputError, match="the list of images is empty; give at least one"):
        ImageSet.from_dataset(empty)
