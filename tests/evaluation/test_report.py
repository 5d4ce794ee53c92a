from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import cifarzoo
from cifarzoo import EvaluationReport, ImageSet, Preprocessing
from cifarzoo.compute.place import Place
from cifarzoo.errors import ArgumentError, InputError, MissingExtraError, OutputError
from cifarzoo.evaluation import evaluate_views
from cifarzoo.evaluation.inference import collect_logits
from cifarzoo.evaluation.views import TestTimeAugmentation
from cifarzoo.zoo.card import ModelCard, attach_card

PLACE = Place(torch.device("cpu"))


class Brightness(nn.Module):
    """Class 1 for images whose left half is brighter than 0 after normalization, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        left = images[:, :, :, : images.shape[3] // 2].mean((1, 2, 3))
        return torch.stack((torch.zeros_like(left), left), 1)


@pytest.fixture
def model() -> nn.Module:
    return cifarzoo.create_model("simple", seed=0)


@pytest.fixture
def halves() -> ImageSet:
    """Bright-left images of class 1, dark images of class 0."""
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    images[:3, :, :, :4] = 255
    return ImageSet(images, torch.tensor([1, 1, 1, 0, 0, 0]), ("dark", "bright"))


def test_report_counts_what_is_there(halves: ImageSet) -> None:
    report = cifarzoo.evaluate(Brightness(), halves, precision="float32")
    assert report.accuracy == 1
    assert report.confusion == ((3, 0), (0, 3))
    assert [score.name for score in report.classes] == ["dark", "bright"]
    assert report.num_images == 6
    assert report.accuracy_interval[0] < 1 == report.accuracy_interval[1]


def test_flip_averages_with_the_mirror_image(halves: ImageSet) -> None:
    report = cifarzoo.evaluate(Brightness(), halves, tta="flip", precision="float32")
    mirrored = ImageSet(halves.images.flip(3), halves.labels, halves.classes)
    again = cifarzoo.evaluate(Brightness(), mirrored, tta="flip", precision="float32")
    plain = cifarzoo.evaluate(Brightness(), mirrored, precision="float32")
    assert report.loss == pytest.approx(again.loss)
    assert report.loss != pytest.approx(plain.loss)
    assert report.tta == "flip"


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Moved up and left, the reflected edge coming in."""
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    return padded.roll((-pixels, -pixels), (2, 3))[:, :, 1:-1, 1:-1]


def test_flip_shift_averages_six_views(few: ImageSet, model: nn.Module) -> None:
    model.eval()
    images = cifarzoo.CIFAR10_PREPROCESSING.normalize(few.images)
    found, _ = collect_logits(model, few, tta="flip_shift", place=PLACE)
    expected = torch.zeros_like(found)
    with torch.no_grad():
        for weight, pixels in ((0.5, 0), (0.25, 1), (0.25, -1)):
            view = shifted(images, pixels)
            expected += weight * (model(view) + model(view.flip(3))) / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_flip_shift_unsure_spends_views_on_the_least_confident_quarter(
    few: ImageSet, model: nn.Module
) -> None:
    with torch.no_grad():
        model.get_parameter("fc3.weight").mul_(30)  # confidences that differ clearly
    found, six, plain = (
        collect_logits(model, few, tta=tta, place=PLACE)[0]
        for tta in ("flip_shift_unsure", "flip_shift", "none")
    )
    unsure = plain.softmax(1).amax(1).argsort()[:50]  # of 200
    sure = torch.ones(200, dtype=torch.bool)
    sure[unsure] = False
    assert torch.equal(found[sure], plain[sure])
    torch.testing.assert_close(found[unsure], six[unsure], rtol=1e-4, atol=1e-4)
    report = cifarzoo.evaluate(model, few, tta="flip_shift_unsure")
    assert report.tta == "flip_shift_unsure"


def test_several_ways_share_their_views(few: ImageSet, model: nn.Module) -> None:
    ways: list[TestTimeAugmentation] = ["flip_shift", "flip_shift_unsure", "none", "flip"]
    alone = [cifarzoo.evaluate(model, few, tta=tta, device="cpu") for tta in ways]
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    assert evaluate_views(model, few, ways, device="cpu") == alone
    assert sum(seen) == 6 * len(few) + 6 * len(few) // 4


@pytest.mark.parametrize("images", ["cifar10", None, torch.zeros(3, 32, 32)])
def test_what_is_no_images_is_refused(images: Any, model: nn.Module) -> None:
    with pytest.raises(InputError, match="takes an ImageSet or batches"):
        cifarzoo.evaluate(model, images)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 32, 32), [torch.zeros(2, 3, 32, 32)]])
def test_images_without_labels_cannot_be_evaluated(images: Any, model: nn.Module) -> None:
    with pytest.raises(InputError, match="evaluation needs labels; pass pairs"):
        cifarzoo.evaluate(model, images)


def test_a_name_is_no_model(few: ImageSet) -> None:
    wrong: Any = "simple"
    with pytest.raises(ArgumentError, match="must be a torch module; got 'simple'"):
        cifarzoo.evaluate(wrong, few)


def test_batches_as_torchvisions_totensor_makes_them_are_refused(
    few: ImageSet, model: nn.Module
) -> None:
    with pytest.raises(InputError, match="float images must be normalized"):
        cifarzoo.evaluate(model, [(few.images / 255, few.labels)])


def test_the_models_own_normalization_is_used(halves: ImageSet) -> None:
    model = Brightness()
    attach_card(model, ModelCard("b", 2, preprocessing=Preprocessing((1, 1, 1), (1, 1, 1))))
    dimmed = dataclasses.replace(halves, images=halves.images // 2)
    report = cifarzoo.evaluate(model, dimmed, precision="float32")
    assert report.confusion == ((3, 0), (3, 0))  # nothing is brighter than a mean of 1


def test_mode_of_every_module_is_restored(model: nn.Module, few: ImageSet) -> None:
    deep = cifarzoo.create_model("deep_bn").train()
    deep.get_submodule("bn_conv1").eval()
    before = {k: v.clone() for k, v in deep.state_dict().items()}
    cifarzoo.evaluate(deep, few)
    assert deep.training
    assert not deep.get_submodule("bn_conv1").training
    assert all(torch.equal(before[k], v) for k, v in deep.state_dict().items())


def test_evaluation_ignores_the_mode_it_finds(few: ImageSet) -> None:
    deep = cifarzoo.create_model("deep_bn", seed=0)
    assert cifarzoo.evaluate(deep.train(), few) == cifarzoo.evaluate(deep.eval(), few)


@pytest.mark.parametrize("normalized", [False, True])
def test_batches_from_anywhere_give_the_same_report(
    model: nn.Module, few: ImageSet, normalized: bool
) -> None:
    batches = list(DataLoader(few, batch_size=64))
    if normalized:
        prepare = cifarzoo.get_card(model).preprocessing.normalize
        batches = [(prepare(images), labels) for images, labels in batches]
    expected = cifarzoo.evaluate(model, few, precision="float32")
    found = cifarzoo.evaluate(model, batches, precision="float32")
    assert found.confusion == expected.confusion
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.classes == expected.classes


def test_batch_size_changes_nothing(model: nn.Module, few: ImageSet) -> None:
    small, large = (
        cifarzoo.evaluate(model, few, batch_size=size, precision="float32") for size in (7, 200)
    )
    assert small.confusion == large.confusion
    assert small.loss == pytest.approx(large.loss, abs=1e-5)


def test_bfloat16_stays_close(model: nn.Module, few: ImageSet) -> None:
    exact, rough = (
        cifarzoo.evaluate(model, few, precision=name) for name in ("float32", "bfloat16")
    )
    assert rough.loss == pytest.approx(exact.loss, abs=0.01)


def test_report_survives_json(model: nn.Module, few: ImageSet) -> None:
    report = cifarzoo.evaluate(model, few)
    assert EvaluationReport.from_dict(json.loads(report.to_json())) == report


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"comment": 1}, "unknown field 'comment'"),
        ({"classes": 5}, "classes should be a valid list; got 5"),
        ({"labels": None}, "labels should be a valid list; got None"),
        ({"accuracy_interval": [0.1]}, "accuracy_interval .* at least 2"),
        ({"predicted": [1, 2]}, "predicted has 2 entries for 200 images"),
        ({"labels": [10] * 200}, "labels beyond its 10 classes"),
        ({"confusion": [[200]]}, "not one of 10 classes"),
    ],
)
def test_a_report_whose_parts_contradict_each_other_is_refused(
    model: nn.Module, few: ImageSet, change: dict[str, Any], reason: str
) -> None:
    data = cifarzoo.evaluate(model, few).to_dict()
    with pytest.raises(InputError, match=f"it is no report of cifarzoo: .*{reason}"):
        EvaluationReport.from_dict({**data, **change})


def test_a_class_without_images_has_no_interval(halves: ImageSet) -> None:
    three = ImageSet(halves.images, halves.labels, ("dark", "bright", "absent"))

    class Three(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.pad(super().forward(images), (0, 1), value=-9.0)

    report = cifarzoo.evaluate(Three(), three)
    absent = report.classes[2]
    assert (absent.count, absent.recall, absent.recall_interval) == (0, 0.0, None)
    assert EvaluationReport.from_dict(json.loads(report.to_json())) == report


def test_texts_hold_the_numbers(model: nn.Module, few: ImageSet) -> None:
    report = cifarzoo.evaluate(model, few)
    for text in (str(report), report.to_markdown()):
        assert f"{report.accuracy:.2%}" in text
        assert all(name in text for name in few.classes)
    assert "| class | precision | recall | F1 | images |" in report.to_markdown()
    assert "confusion matrix (rows true, columns predicted)" in str(report)


@pytest.mark.parametrize("suffix", [".json", ".md", ".txt", ".png", ".svg", ".pdf"])
def test_saves_by_suffix(model: nn.Module, few: ImageSet, tmp_path: Path, suffix: str) -> None:
    report = cifarzoo.evaluate(model, few)
    path = report.save(tmp_path / f"report{suffix}")
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size > 500
    if suffix == ".png":
        with Image.open(path) as picture:
            assert picture.size[0] > 500


def test_save_refuses_what_it_cannot_write(model: nn.Module, few: ImageSet, tmp_path: Path) -> None:
    report = cifarzoo.evaluate(model, few)
    with pytest.raises(ArgumentError, match=r"one of \.json, \.md.*got 'report\.docx'"):
        report.save(tmp_path / "report.docx")
    (tmp_path / "file").touch()
    for name in ("report.json", "report.png"):
        with pytest.raises(OutputError, match="cannot write"):
            report.save(tmp_path / "file" / name)


def test_pictures_without_matplotlib_name_the_extra(
    model: nn.Module, few: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cifarzoo\[plots\]'"):
        cifarzoo.evaluate(model, few).save(tmp_path / "matrix.png")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused(model: nn.Module, few: ImageSet) -> None:
    with pytest.raises(InputError, match="no images to evaluate"):
        cifarzoo.evaluate(model, [])
    with pytest.raises(ArgumentError, match="tta must be one of"):
        cifarzoo.evaluate(model, few, tta="mirror")  # type: ignore[arg-type]
    narrow = cifarzoo.create_model("simple", num_classes=3)
    with pytest.raises(InputError, match=r"labels must be in 0\.\.2 .* got 0\.\.9"):
        cifarzoo.evaluate(narrow, few)


def test_nan_is_refused(model: nn.Module, few: ImageSet) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="NaN or infinity for 200 of 200 images"):
        cifarzoo.evaluate(model, few)


def test_every_batch_is_checked(model: nn.Module) -> None:
    good = (torch.randn(9, 3, 32, 32), torch.zeros(9, dtype=torch.int64))
    raw = (torch.rand(9, 3, 32, 32) * 255, good[1])
    with pytest.raises(InputError, match="float images must be normalized"):
        cifarzoo.evaluate(model, [good, raw])
    with pytest.raises(InputError, match=r"labels must be int64 \(9,\)"):
        cifarzoo.evaluate(model, [good, (good[0], good[1][:8])])


def test_what_a_report_derives_from_single_images(few: ImageSet, model: nn.Module) -> None:
    report = cifarzoo.evaluate(model, few)
    assert sum(a == b for a, b in zip(report.labels, report.predicted, strict=True)) == round(
        200 * report.accuracy
    )
    errors = report.confident_errors(200)
    assert len(errors) == 200 - round(200 * report.accuracy)
    assert [e.confidence for e in errors] == sorted((e.confidence for e in errors), reverse=True)
    for error in errors[:5]:
        assert few.classes[few.labels[error.index]] == error.label != error.predicted
    pairs = report.most_confused(90)
    assert sum(count for *_, count in pairs) == len(errors)
    assert [count for *_, count in pairs] == sorted((n for *_, n in pairs), reverse=True)
    curve = report.selective_accuracy()
    assert curve[-1] == (1.0, report.accuracy)
    assert [share for share, _ in curve] == pytest.approx([i / 20 for i in range(1, 21)])
    assert sum(b.count for b in report.reliability) == 200
    error = sum(b.count * abs(b.accuracy - b.confidence) for b in report.reliability) / 200
    assert error == pytest.approx(report.expected_calibration_error)


def test_one_image_is_enough_for_every_part(few: ImageSet, model: nn.Module) -> None:
    report = cifarzoo.evaluate(model, few.subset([3]))
    assert report.selective_accuracy() == [(1.0, report.accuracy)]
    assert len(report.confident_errors()) + len(report.most_confused()) in (0, 2)
    assert "most confused" in str(report)


def test_names_stay_in_their_cells(model: nn.Module, few: ImageSet) -> None:
    name = "a|b\n| c | `d` <script> [e](f) *g* \\| \x1b[2J\ud800"
    report = cifarzoo.evaluate(model, few)
    classes = [dataclasses.replace(report.classes[0], name=name), *report.classes[1:]]
    odd = dataclasses.replace(report, model=name, data=name, note=name, classes=classes)
    plain, marked = report.to_markdown(), odd.to_markdown()
    assert len(marked.splitlines()) == len(plain.splitlines()) + 2  # the note

    def cells(text: str) -> list[int]:
        return [len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in text.splitlines()]

    rows = [count for count in cells(marked) if count > 2]
    assert rows == [count for count in cells(plain) if count > 2]
    assert not re.search(r"(?<!\\)[<\[`]", marked)
    for text in (marked, str(odd)):
        assert "\x1b" not in text
        text.encode()
    assert len(str(odd).splitlines()) == len(str(report).splitlines()) + 2
