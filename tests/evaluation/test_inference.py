"""From images to answers, without labels: probabilities and features."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import timm
import torch
import torchvision
from kinds import KINDS, create_short
from torch import Tensor, nn
from torch.utils.data import DataLoader

import cifarzoo
from cifarzoo import ImageSet, Place, embeddings, evaluate, predict, probabilities
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation import evaluate_views
from cifarzoo.evaluation.views import UNSURE, TestTimeAugmentation, count_views
from cifarzoo.zoo.classifier import find_classifier

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=True)


def test_probabilities_are_those_that_evaluate_counts(model: nn.Module, few: ImageSet) -> None:
    found = probabilities(model, few, **CPU)
    assert (found.shape, found.dtype) == ((200, 10), torch.float32)
    torch.testing.assert_close(found.sum(1), torch.ones(200))
    report = evaluate(model, few, **CPU)
    assert tuple(found.argmax(1).tolist()) == report.predicted
    torch.testing.assert_close(found.amax(1), torch.tensor(report.confidence))


def test_a_loader_that_normalizes_otherwise_is_refused(model: nn.Module, few: ImageSet) -> None:
    half = cifarzoo.Preprocessing((0.5,) * 3, (0.5,) * 3)
    loader = cifarzoo.Loader(few, batch_size=50, preprocessing=half)
    for measure in (evaluate, probabilities, cifarzoo.calibrate):
        with pytest.raises(InputError, match=r"the Loader normalizes by .*0\.5.*and the network"):
            measure(model, loader)
    trainer = cifarzoo.Trainer(cifarzoo.create_model("simple"), cifarzoo.Recipe(epochs=1))
    with pytest.raises(InputError, match=r"pass Loader\(\.\.\., preprocessing=get_card\(model\)"):
        trainer.fit(loader)
    with pytest.raises(InputError, match="the Loader normalizes by"):
        trainer.fit(few, loader)
    # an ensemble normalizes inside
    with pytest.raises(InputError, match="the Loader normalizes by"):
        evaluate(cifarzoo.ensemble([model]), cifarzoo.Loader(few, batch_size=50))
    own = cifarzoo.create_model("simple", seed=0, preprocessing=half)
    assert evaluate(own, loader, **CPU).loss == pytest.approx(evaluate(own, few, **CPU).loss)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_small_batches_that_are_not_normalized_are_refused_together(
    size: int, model: nn.Module, few: ImageSet
) -> None:
    pixels = few.images.float() / 255
    number = -(-8 // size)
    with pytest.raises(InputError, match=f"batch {number}: float images must be normalized"):
        evaluate(model, zip(pixels.split(size), few.labels.split(size), strict=True), **CPU)
    bright = torch.full((4, 3, 32, 32), 0.5)
    probabilities(model, [bright, few.images[:4], bright - 1, bright, bright], **CPU)


def forms(few: ImageSet) -> dict[str, Any]:
    pixels = few.images
    floats = cifarzoo.CIFAR10_PREPROCESSING.normalize(pixels)
    return {
        "uint8 tensor": pixels,
        "normalized tensor": floats,
        "batches without labels": [pixels[:150], pixels[150:]],
        "arrays": [pixels[:150].permute(0, 2, 3, 1).numpy(), pixels[150:].numpy()],
        "batches with labels": [(pixels, few.labels)],
        "DataLoader": DataLoader(few, batch_size=60),  # type: ignore[arg-type]
        "DataLoader without labels": DataLoader(pixels, batch_size=60),  # type: ignore[arg-type]
        "generator": (pixels[i : i + 50] for i in range(0, 200, 50)),
        "Loader": cifarzoo.Loader(few, batch_size=70),
    }


@pytest.mark.parametrize("form", forms(cifarzoo.load_sample("test").subset(range(4))))
def test_images_of_any_form_have_the_same_answer(
    form: str, model: nn.Module, few: ImageSet
) -> None:
    expected = probabilities(model, few, **CPU)
    found = probabilities(model, forms(few)[form], **CPU)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ways", [("none",), ("flip", "none"), ("flip_shift",), (UNSURE, "flip")])
def test_as_many_views_are_told_of_as_were_counted(
    ways: tuple[TestTimeAugmentation, ...], model: nn.Module, few: ImageSet
) -> None:
    told: list[int] = []
    images = few.subset(range(40))
    evaluate_views(model, images, ways, batch_size=3, advance=told.append)
    assert sum(told) == count_views(ways, len(images))


def test_views_and_temperature_act_as_elsewhere(model: nn.Module, few: ImageSet) -> None:
    found = probabilities(model, few, tta="flip_shift_unsure", temperature=2.0, **CPU)
    report = evaluate(model, few, tta="flip_shift_unsure", temperature=2.0, **CPU)
    torch.testing.assert_close(found.amax(1), torch.tensor(report.confidence))
    one = predict(model, few.images[0], temperature=3.0, **CPU)
    (row,) = probabilities(model, few.images[:1], temperature=3.0, **CPU)
    assert one.probability == pytest.approx(float(row.max()))
    with pytest.raises(ArgumentError, match="temperature must be a positive number"):
        probabilities(model, few, temperature=0.0)
    wrong: Any = "mirror"
    with pytest.raises(ArgumentError, match="tta must be one of"):
        probabilities(model, few, tta=wrong)
    with pytest.raises(ArgumentError, match="advance must be a function of a number; got 'mirror'"):
        evaluate(model, few, advance=wrong, **CPU)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images"),
        (5, "takes an ImageSet or batches"),
        ("cat.png", "takes an ImageSet or batches"),
        (torch.zeros(3, 32, 32), "takes an ImageSet or batches"),
        (torch.zeros(2, 1, 32, 32), "batch 1: batches must hold images"),
        (torch.full((2, 3, 32, 32), 200.0), "batch 1: .*must be normalized"),
    ],
)
def test_what_is_no_images_is_refused(images: Any, message: str, model: nn.Module) -> None:
    with pytest.raises(InputError, match=message):
        probabilities(model, images)


@pytest.mark.parametrize("kernels", [True, False])
def test_a_place_may_leave_everything_to_torch(kernels: bool, few: ImageSet) -> None:
    classes: list[type] = []
    network = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> Tensor:
            classes.append(type(self.inner[0]))
            logits: Tensor = self.inner(x)
            return logits

    place = Place(torch.device("cpu"), kernels=kernels)
    probabilities(Look(), few, device=place)
    assert (classes[0] is nn.Conv2d) == (not kernels)


def test_labels_for_some_batches_are_refused(model: nn.Module, few: ImageSet) -> None:
    mixed = [(few.images[:50], few.labels[:50]), few.images[50:100]]
    with pytest.raises(InputError, match="some batches have labels and others none"):
        probabilities(model, mixed)


def test_nothing_of_the_models_is_changed_or_moved(few: ImageSet) -> None:
    model, few = cifarzoo.create_model("resnet20", seed=0).train(), few.subset(range(20))
    before = {name: (t.clone(), t.data_ptr()) for name, t in model.state_dict().items()}
    probabilities(model, few, **CPU)
    embeddings(model, few, **CPU)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.data_ptr() == before[name][1]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*model.modules()][1:])


@pytest.mark.parametrize("columns", [7, 12])
def test_rows_of_labels_have_a_column_for_each_class(few: ImageSet, columns: int) -> None:
    model, rows = cifarzoo.create_model("simple"), torch.eye(columns)[few.labels[:8] % 7]
    with pytest.raises(InputError, match=rf"need 10 columns, one for each class; got {columns}"):
        cifarzoo.evaluate(model, [(few.images[:8], rows)], **CPU)


def test_features_give_the_logits_when_the_last_layer_sees_them(few: ImageSet) -> None:
    for name in KINDS:
        network = create_short(name).eval()
        found = embeddings(network, few.images[:3], **CPU)
        head = network.get_submodule(find_classifier(network))
        assert isinstance(head, nn.Linear), name
        assert found.shape == (3, head.in_features)
        with torch.no_grad():
            logits = network(cifarzoo.CIFAR10_PREPROCESSING.normalize(few.images[:3]))
            ours = head(found)
        ratio = logits / ours  # airbench scales its logits
        torch.testing.assert_close(
            ratio, ratio.median().expand_as(ratio), rtol=2e-3, atol=1e-3, msg=name
        )


ELSEWHERE: dict[str, Any] = {
    "fc": lambda: torchvision.models.resnet18(num_classes=7),
    "classifier.1": lambda: torchvision.models.mobilenet_v2(num_classes=7),
    "classifier.6": lambda: torchvision.models.vgg11_bn(num_classes=7, init_weights=False),
    "head.fc": lambda: timm.create_model("convnext_atto", num_classes=7),
    "head": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32),
    "3": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Conv2d(5, 7, 1), nn.Flatten()
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_last_layer_of_networks_from_elsewhere_is_found(name: str) -> None:
    assert find_classifier(ELSEWHERE[name]()) == name


class NoHead(nn.Module):
    """Its logits come from no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] * self.scale


def test_features_are_seen_behind_hooks_and_names(few: ImageSet) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3072, 10)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(input=x.flatten(1))
            return out

    images = few.images.float() / 64 - 2
    wrapper = nn.DataParallel(Named())
    assert torch.equal(cifarzoo.embeddings(wrapper, images, **CPU), images.flatten(1))
    wrapper.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2,))
    assert torch.equal(cifarzoo.embeddings(wrapper, images, **CPU), images.flatten(1) / 2)


@pytest.mark.parametrize("temperature", [0.01, 1e20])
def test_the_order_of_the_classes_does_not_depend_on_the_temperature(
    temperature: float, model: nn.Module, few: ImageSet
) -> None:
    plain, changed = (cifarzoo.evaluate(model, few, temperature=t, **CPU) for t in (1, temperature))
    assert changed.predicted == plain.predicted
    assert changed.top5_accuracy == plain.top5_accuracy
    first, second = (cifarzoo.predict(model, few, temperature=t, **CPU) for t in (1, temperature))
    for a, b in zip(first, second, strict=True):
        assert [name for name, _ in a.top] == [name for name, _ in b.top]


def test_a_quantized_network_computes_in_float32(few: ImageSet) -> None:
    model, few = cifarzoo.create_model("resnet20", pretrained=True).eval(), few.subset(range(40))
    with warnings.catch_warnings(action="ignore"):  # deprecated, and still in use
        small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    answers = cifarzoo.probabilities(small, few)
    assert (answers.argmax(1) == cifarzoo.probabilities(model, few).argmax(1)).float().mean() > 0.9


def test_images_of_two_sizes_have_no_least_confident_quarter(few: ImageSet) -> None:
    model, images, labels = cifarzoo.create_model("resnet20"), few.images[:4], few.labels[:4]
    batches = [(each, labels) for each in (images, images.repeat(1, 1, 2, 2))]
    assert cifarzoo.evaluate(model, batches, **CPU).num_images == 8
    with pytest.raises(InputError, match=r"images of one size; there are 32x32 and 64x64"):
        cifarzoo.evaluate(model, batches, tta="flip_shift_unsure", **CPU)


def test_no_way_to_look_at_images_is_refused(few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="at least one way"):
        evaluate_views(cifarzoo.create_model("simple"), few, [])


def test_a_network_without_a_last_layer_says_so(few: ImageSet) -> None:
    with pytest.raises(InputError, match="the last layer of NoHead cannot be found"):
        embeddings(NoHead(), few)
    assert probabilities(NoHead(), few).shape == (200, 10)
