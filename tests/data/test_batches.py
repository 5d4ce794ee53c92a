"""Checks of batches that come from anywhere."""

from __future__ import annotations

import dataclasses
from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import cifarzoo
from cifarzoo import ImageSet, Preprocessing, Recipe, attach_card
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


@pytest.mark.parametrize("batch", [torch.zeros(3), "images", (torch.zeros(1),), None, [1] * 4])
def test_what_is_no_pair_of_tensors_is_refused(batch: Any) -> None:
    with pytest.raises(InputError, match=r"batches must be pairs \(images, labels\)"):
        as_pair(batch)


def test_a_list_of_two_is_a_pair() -> None:
    images, labels = torch.zeros(2, 3, 8, 8), torch.zeros(2)
    pair = as_pair([images, labels])
    assert pair[0] is images
    assert pair[1].tolist() == [0, 0]


def made(count: int = 4) -> tuple[Tensor, Tensor]:
    """Images that show their place, their colour channel and their corners; and labels."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, 6, 5), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 3


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a pair of tensors": lambda x, y: (x, y),
    "a dict of datasets": lambda x, y: {"img": x, "label": y},
    "a dict of transformers": lambda x, y: {"pixel_values": x, "labels": y, "index": y},
    "a dict of CIFAR-100": lambda x, y: {"img": x, "fine_label": y, "coarse_label": y // 5},
    "a mapping that is no dict": lambda x, y: UserDict({"image": x, "label": y}),
    "three with numbers": lambda x, y: (x, y, torch.arange(len(x)) + 100),
    "three with paths": lambda x, y: (x, y, [f"{i}.png" for i in range(len(x))]),
    "a column of labels": lambda x, y: (x, y[:, None]),
    "one-hot labels": lambda x, y: (x, F.one_hot(y, 10)),
    "one-hot labels of floats": lambda x, y: (x, F.one_hot(y, 10).float()),
    "labels in a list": lambda x, y: (x, y.tolist()),
    "labels in a list of tensors": lambda x, y: (x, list(y)),
    "labels in an array": lambda x, y: (x, y.numpy()),
    "labels of numpy numbers": lambda x, y: (x, list(y.numpy())),
    "labels of int32": lambda x, y: (x, y.int()),
    "labels of uint8": lambda x, y: (x, y.to(torch.uint8).numpy()),
    "labels of whole floats": lambda x, y: (x, y.double()),
    "an array": lambda x, y: (x.numpy(), y),
    "an array that cannot be written to": lambda x, y: (read_only(x.numpy()), y),
    "an array, channels last": lambda x, y: (x.permute(0, 2, 3, 1).numpy(), y),
    "an array of uint16": lambda x, y: (x.numpy().astype(np.uint16) * 257, y),
    "a tensor, channels last": lambda x, y: (x.permute(0, 2, 3, 1), y),
    "a list of tensors": lambda x, y: (list(x), y),
    "a list of arrays": lambda x, y: ([a.permute(1, 2, 0).numpy() for a in x], y),
    "a list of PIL images": lambda x, y: (
        [Image.fromarray(a.permute(1, 2, 0).contiguous().numpy()) for a in x],
        y,
    ),
    "nested lists": lambda x, y: (x.tolist(), y.tolist()),
}


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("form", FORMS)
def test_batches_are_taken_in_every_form_that_means_one_thing(form: str) -> None:
    images, labels = made()
    found, numbers = as_pair(FORMS[form](images, labels))
    assert found.dtype == torch.uint8
    assert torch.equal(found, images)
    assert numbers.dtype == torch.int64
    assert torch.equal(numbers, labels)
    check_batch(found, numbers)


@pytest.mark.parametrize(
    "form", ["an array", "an array, channels last", "a list of tensors", "a tensor, channels last"]
)
def test_floats_stay_what_they_are(form: str) -> None:
    images, labels = made()
    found, _ = as_pair(FORMS[form](images / 100 - 1, labels))
    assert torch.equal(found, images / 100 - 1)


UNCLEAR: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "two keys of images": (
        lambda x, y: {"img": x, "image": x, "label": y},
        r"one key for the images .* got 'img', 'image', 'label': rename or remove",
    ),
    "two keys of labels": (lambda x, y: {"img": x, "label": y, "target": y}, "'label', 'target'"),
    "other keys": (lambda x, y: {"a": x, "b": y}, "got 'a', 'b'"),
    "three with two labels": (lambda x, y: (x, y, y), "last must be the numbers or names"),
    "three with weights": (lambda x, y: (x, y, y * 0.5), "last must be the numbers or names"),
    "three images": (lambda x, y: (x, x, y), "labels must be|last must be"),
    "fractions": (lambda x, y: (x, y + 0.9), r"whole numbers, one class for each image; got 0\.9"),
    "no numbers": (lambda x, y: (x, y / 0.0), "whole numbers, .*; got (nan|inf)"),
    "true and false": (lambda x, y: (x, y > 0), "numbers of classes; got torch.bool"),
    "names": (
        lambda x, y: (x, ["cat"] * 4),
        r"got 'cat': pass classes=\[.*or numbers: \[classes\.index\(",
    ),
    "nothing": (lambda x, y: (x, None), "one whole number for each image; got NoneType"),
    "soft labels": (lambda x, y: (x, F.one_hot(y, 4) * 0.5 + 0.1), "labels.argmax"),
    "several classes": (lambda x, y: (x, F.one_hot(y, 4) + F.one_hot(y * 0 + 3, 4)), "rows with"),
    "lists of two sizes": (lambda x, y: ([x[0], x[1, :, 1:]], y[:2]), "must have one size"),
    "floats and bytes": (lambda x, y: ([x[0] / 255, x[1]], y[:2]), "all be of one kind"),
    "numbers in lists": (lambda x, y: ((x > 99).int().tolist(), y), r"numbers in 0\.\.255"),
    "whole numbers": (lambda x, y: (x.long(), y), "convert values in 0..255 to uint8"),
    "layouts": (lambda x, y: (np.zeros((4, 3, 9, 3)), y), "channels first or last"),
    "one image": (lambda x, y: (Image.new("RGB", (4, 4)), 3), r"from_dataset\(\) reads single"),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_batches_that_could_mean_two_things_are_refused(form: str) -> None:
    make, message = UNCLEAR[form]
    with pytest.raises(InputError, match=message):
        as_pair(make(*made()))


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_and_training_take_them(form: str, few: ImageSet) -> None:
    """The whole way, with the answers of the plain form."""
    images, labels = few.images[:8], few.labels[:8]
    model = cifarzoo.create_model("simple", seed=0)
    expected = cifarzoo.evaluate(model, [(images, labels)], precision="float32")
    report = cifarzoo.evaluate(model, [FORMS[form](images, labels)], precision="float32")
    assert (report.confusion, report.loss) == (expected.confusion, expected.loss)
    losses = [
        cifarzoo.Trainer(
            cifarzoo.create_model("simple", seed=0), Recipe(epochs=1), precision="float32"
        )
        .fit([batch])[0]
        .train_loss
        for batch in (FORMS[form](images, labels), (images, labels))
    ]
    assert losses[0] == losses[1]


def test_grey_and_transparent_batches_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="give grey images three equal channels"):
        check_batch(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="put transparent images on a ground"):
        check_batch(torch.zeros(2, 8, 8, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=r"one image is images\[None\]"):
        check_batch(torch.zeros(3, 8, 8), torch.zeros(3, dtype=torch.int64))


class Stream(IterableDataset[Any]):
    """Images one after the other, of no known length."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __iter__(self) -> Any:
        return iter(self.images)


def test_a_loader_of_a_stream_is_evaluated_and_trained_on(few: ImageSet) -> None:
    stream = DataLoader(Stream(few), batch_size=50)
    model = cifarzoo.create_model("simple", seed=0)
    report = cifarzoo.evaluate(model, stream, precision="float32")
    expected = cifarzoo.evaluate(model, few, precision="float32")
    assert report.confusion == expected.confusion
    history = cifarzoo.Trainer(model, Recipe(epochs=1)).fit(stream, steps_per_epoch=4)
    assert len(history) == 1


@pytest.fixture
def inside() -> nn.Module:
    """A network that normalizes inside, as its card says."""
    card = cifarzoo.get_card(cifarzoo.create_model("simple"))
    plain = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    attach_card(model, dataclasses.replace(card, preprocessing=plain, name="inside"))
    return model


def test_a_network_that_normalizes_inside_takes_floats_in_0_to_1(
    inside: nn.Module, few: ImageSet
) -> None:
    batches = [(few.images / 255, few.labels)]
    found = cifarzoo.evaluate(inside, batches, precision="float32")
    expected = cifarzoo.evaluate(inside, few, precision="float32")
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    with torch.no_grad():
        by_hand = F.cross_entropy(inside(few.images / 255), few.labels)
    assert found.loss == pytest.approx(float(by_hand), rel=1e-5)
    answer = cifarzoo.predict(inside, [few.images[0]], precision="float32")[0]
    probabilities = inside(few.images[:1] / 255).softmax(1).detach()
    assert answer.probability == pytest.approx(float(probabilities.max()), rel=1e-5)
    cifarzoo.Trainer(inside, Recipe(epochs=1)).fit(batches)


def test_such_a_network_takes_no_others(inside: nn.Module, few: ImageSet) -> None:
    for images in (few.images.float(), few.images / 255 * 4 - 2, few.images / 0.0):
        with pytest.raises(
            InputError, match=r"normalizes inside, so float images must lie in 0\.\.1"
        ):
            cifarzoo.evaluate(inside, [(images, few.labels)])
        with pytest.raises(
            InputError, match=r"normalizes inside, so float images must lie in 0\.\.1"
        ):
            cifarzoo.Trainer(inside, Recipe(epochs=1)).fit([(images, few.labels)])


@pytest.mark.parametrize(
    "output", [(torch.zeros(2, 10),), torch.zeros(2, 10, 1), torch.zeros(3, 10)]
)
def test_outputs_that_are_no_logits_are_refused(output: Any) -> None:
    with pytest.raises(InputError, match=r"must return logits \(2, classes\)"):
        check_logits(output, 2)
    check_logits(torch.zeros(2, 10), 2)
