"""One rule wherever images meet a network: labels are taken by the names of the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cifarzoo
from cifarzoo import EvaluationReport, ImageSet, Loader, Recipe, Trainer
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation import compare_with_humans, evaluate_robustness
from cifarzoo.evaluation.page import PageEntry, render_page

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
SHORT = Recipe(epochs=1, batch_size=50, learning_rate=0.01, scheduler="constant")


def reversed_classes(images: ImageSet) -> ImageSet:
    """The same images, their classes numbered from the other end."""
    last = len(images.classes) - 1
    return ImageSet(images.images, last - images.labels, images.classes[::-1], images.name)


def only(images: ImageSet, *names: str) -> ImageSet:
    """The images of a few classes, numbered as an image folder numbers them."""
    numbers = [images.classes.index(name) for name in names]
    part = images.subset(torch.isin(images.labels, torch.tensor(numbers)))
    labels = torch.tensor([numbers.index(label) for label in part.labels.tolist()])
    return ImageSet(part.images, labels, names, "folder")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=True)


FORMS: dict[str, Callable[[ImageSet], Any]] = {
    "images": lambda images: images,
    "loader": lambda images: Loader(images, batch_size=64),
    "torch's loader": lambda images: DataLoader(images, batch_size=64),
}


def numbers_of(report: EvaluationReport) -> tuple[float, ...]:
    return report.accuracy, report.loss, report.expected_calibration_error


@pytest.mark.parametrize("form", FORMS)
def test_evaluate_takes_labels_by_name(form: str, model: nn.Module, few: ImageSet) -> None:
    plain = cifarzoo.evaluate(model, few, **CPU)
    report = cifarzoo.evaluate(model, FORMS[form](reversed_classes(few)), **CPU)
    assert numbers_of(report) == pytest.approx(numbers_of(plain))
    assert report.labels == plain.labels
    assert [score.name for score in report.classes] == list(few.classes)
    assert "by the names of the classes (0 is truck, 1 is ship" in report.note
    assert report.note in str(report)
    assert report.note in report.to_markdown()
    assert EvaluationReport.from_dict(report.to_dict()) == report
    assert plain.note == ""


def test_a_report_of_an_earlier_version_can_be_read(model: nn.Module, few: ImageSet) -> None:
    report = cifarzoo.evaluate(model, few.subset(range(9)), **CPU)
    earlier = {key: value for key, value in report.to_dict().items() if key != "note"}
    assert EvaluationReport.from_dict(earlier) == report


@pytest.mark.parametrize("form", FORMS)
def test_a_few_classes_are_answered_over_all_outputs(
    form: str, model: nn.Module, sample_test: ImageSet
) -> None:
    three = only(sample_test, "cat", "dog", "ship")
    report = cifarzoo.evaluate(model, FORMS[form](three), **CPU)
    assert report.accuracy > 0.7
    assert [score.count for score in report.classes] == [0, 0, 0, 100, 0, 100, 0, 0, 100, 0]
    assert "7 classes of the model have no images" in report.note
    absent = next(line for line in str(report).splitlines() if line.startswith("airplane "))
    assert absent.split() == ["airplane", "-", "-", "-", "0"]


def test_a_page_shows_absent_classes_without_a_share(
    model: nn.Module, sample_test: ImageSet
) -> None:
    three = only(sample_test, "ship", "cat")
    page = render_page([PageEntry(cifarzoo.evaluate(model, three, **CPU))], three)
    assert page.count("no images") >= 8
    assert "labels were taken by the names" in page
    assert "airplane taken for ship: 0 of 0" in page


def test_calibrate_takes_labels_by_name(model: nn.Module, few: ImageSet) -> None:
    plain = cifarzoo.calibrate(model, few, **CPU)
    assert cifarzoo.calibrate(model, reversed_classes(few), **CPU) == plain


def test_robustness_takes_labels_by_name(model: nn.Module, few: ImageSet) -> None:
    options = {"corruptions": ["fog"], "severities": [1], **CPU}
    plain = evaluate_robustness(model, few, **options)
    assert evaluate_robustness(model, reversed_classes(few), **options) == plain


def test_people_are_compared_by_name(model: nn.Module, few: ImageSet) -> None:
    humans = torch.nn.functional.one_hot(few.labels, 10).double()
    plain = compare_with_humans(model, few, humans, **CPU)
    assert compare_with_humans(model, reversed_classes(few), humans.flip(1), **CPU) == plain


def test_models_that_number_classes_differently_can_be_compared(
    model: nn.Module, few: ImageSet
) -> None:
    other = cifarzoo.create_model("simple", pretrained=True)
    with torch.no_grad():
        for parameter in other.get_submodule("fc3").parameters():
            parameter.copy_(parameter.flip(0))
    card = cifarzoo.get_card(other)
    cifarzoo.attach_card(other, dataclasses.replace(card, classes=few.classes[::-1]))
    first, second = (cifarzoo.evaluate(m, few, **CPU) for m in (model, other))
    assert second.accuracy == first.accuracy
    assert cifarzoo.compare(first, second).difference == 0
    assert cifarzoo.compare(first, second).p_value == 1


@pytest.mark.parametrize(
    "use",
    [
        cifarzoo.evaluate,
        cifarzoo.calibrate,
        lambda model, images, **place: Trainer(model, SHORT, **place).fit(images),
        lambda model, images, **place: Trainer(model, SHORT, **place).fit(
            cifarzoo.load_sample(), images
        ),
    ],
    ids=["evaluate", "calibrate", "fit", "fit's validation"],
)
def test_classes_known_in_part_are_refused(use: Callable[..., Any], few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = ("unicorn", *few.classes[:9])
    with pytest.raises(InputError, match="'unicorn' is unknown"):
        use(model, dataclasses.replace(few, classes=names), **CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("measure", [cifarzoo.evaluate, cifarzoo.calibrate])
def test_images_of_fewer_and_other_classes_are_refused(
    measure: Callable[..., Any], few: ImageSet
) -> None:
    model = cifarzoo.create_model("simple", pretrained="cifar100")
    with pytest.raises(InputError, match=r"none of the images' 10 classes \('airplane', .* 100"):
        measure(model, few, **CPU)


def test_names_of_which_none_is_known_go_by_number(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    renamed = dataclasses.replace(few, classes=tuple(f"my {name}" for name in few.classes))
    report, plain = (cifarzoo.evaluate(model, images, **CPU) for images in (renamed, few))
    assert numbers_of(report) == numbers_of(plain)
    assert report.note.startswith("labels were taken by their numbers: 'my airplane' as 'airplane'")
    assert report.classes[0].name == "my airplane"


def test_names_of_which_some_are_known_in_their_places_go_by_number(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    renamed = dataclasses.replace(few, classes=("plane", "car", *few.classes[2:9], "TRUCK"))
    report = cifarzoo.evaluate(model, renamed, **CPU)
    assert numbers_of(report) == numbers_of(cifarzoo.evaluate(model, few, **CPU))
    assert report.note.endswith(": 'plane' as 'airplane', 'car' as 'automobile'")


@pytest.mark.parametrize("form", FORMS)
def test_training_images_and_validation_images_are_taken_by_name(form: str, few: ImageSet) -> None:
    """The same images in any numbering train the same network, and are measured alike."""
    results = []
    for change in (lambda images: images, reversed_classes):
        model = cifarzoo.create_model("simple", seed=0)
        trainer = Trainer(model, SHORT, **CPU)
        history = trainer.fit(FORMS[form](change(few)), FORMS[form](change(few)))
        crossed = Trainer(cifarzoo.create_model("simple", seed=0), SHORT, **CPU)
        other = crossed.fit(FORMS[form](few), FORMS[form](change(few)))
        results.append((history.records[0].val_accuracy, other.records[0].val_accuracy))
        assert cifarzoo.get_card(model).classes == few.classes
        results.append([p.detach().clone() for p in model.parameters()])
    assert results[0] == results[2]
    assert all(map(torch.equal, results[1], results[3]))


def test_a_part_of_the_classes_can_be_validated(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", pretrained=True)
    recipe = SHORT.replace(learning_rate=0.0, optimizer="sgd")
    for parameter in [p for n, p in model.named_parameters() if not n.startswith("fc3")]:
        parameter.requires_grad_(False)  # so that the network stays what it is
    history = Trainer(model, recipe, **CPU).fit(few, only(few, "ship", "cat"))
    assert history.records[0].val_accuracy > 0.9


def test_a_network_with_more_outputs_than_named_classes_is_refused(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for names in (("cat", "dog", "ship"), ("red", "green", "blue")):
        three = dataclasses.replace(only(few, "cat", "dog", "ship"), classes=names)
        for images in (three, DataLoader(three, batch_size=20)):
            with pytest.raises(InputError, match=r"build it with\s+num_classes=3"):
                Trainer(model, SHORT.replace(batch_size=20), **CPU).fit(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert cifarzoo.get_card(model).classes == few.classes


def with_two_outputs() -> nn.Module:
    """A network for ten classes whose last layer was replaced by hand."""
    model = cifarzoo.create_model("simple", seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.fc3 = nn.Linear(32, 2)
    return model


def test_a_head_replaced_by_hand_is_on_the_card_after_training(few: ImageSet) -> None:
    model = with_two_outputs()
    batches = [(few.images[i : i + 50], few.labels[i : i + 50] % 2) for i in range(0, 200, 50)]
    Trainer(model, SHORT, **CPU).fit(batches)
    card = cifarzoo.get_card(model)
    assert (card.num_classes, card.classes) == (2, None)
    assert cifarzoo.predict(model, few.images[0], **CPU).label in ("0", "1")


@pytest.mark.parametrize("names", [("ship", "cat"), ("cat", "zebra")], ids=["known", "in part"])
def test_a_head_replaced_by_hand_takes_the_names_of_the_data(
    names: tuple[str, ...], few: ImageSet
) -> None:
    model = with_two_outputs()
    two = dataclasses.replace(only(few, "ship", "cat"), classes=names)
    Trainer(model, SHORT.replace(batch_size=10), **CPU).fit(DataLoader(two, batch_size=10))
    card = cifarzoo.get_card(model)
    assert (card.num_classes, card.classes) == (2, names)


@pytest.mark.parametrize("use", [cifarzoo.evaluate, cifarzoo.calibrate])
def test_the_card_of_another_head_is_not_believed(use: Callable[..., Any], few: ImageSet) -> None:
    """Trained in a loop of one's own, the network still has the card of the head it had."""
    two = only(few, "ship", "cat")
    model, nameless = with_two_outputs(), with_two_outputs()
    cifarzoo.attach_card(nameless, cifarzoo.ModelCard("simple", 2))
    assert use(model, two, **CPU) == use(nameless, two, **CPU)


def test_validation_names_are_not_taken_by_the_card_of_another_head(few: ImageSet) -> None:
    two = only(few, "ship", "cat")
    results = []
    for val in (two, [(two.images, two.labels)]):
        trainer = Trainer(with_two_outputs(), SHORT.replace(batch_size=10), **CPU)
        results.append(trainer.fit([(two.images, two.labels)], val)[0].val_accuracy)
    assert results[0] == results[1]


class Binary(Dataset[tuple[torch.Tensor, int]]):
    """Names ten classes and gives two labels, as with a ``target_transform``."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.classes = images, list(images.classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[index]
        return image, int(label in (0, 1, 8, 9))


def test_more_names_than_outputs_are_not_cut_for_the_card(few: ImageSet) -> None:
    data = DataLoader(Binary(few), batch_size=50)
    for names in (None, ("animal", "machine")):
        model = with_two_outputs()
        cifarzoo.attach_card(model, cifarzoo.ModelCard("simple", 2, classes=names))
        Trainer(model, SHORT, **CPU).fit(data)
        assert cifarzoo.get_card(model).classes == names


def test_names_of_classes_without_images_may_follow(few: ImageSet) -> None:
    """A part of an image set keeps all its names."""
    part = few.subset(few.labels < 3)
    model = cifarzoo.create_model("simple", num_classes=3, seed=0)
    trainer = Trainer(model, SHORT.replace(batch_size=20), **CPU)
    for _ in range(2):  # with and without names on its card
        trainer.fit(part, part)
        assert cifarzoo.get_card(model).classes == few.classes[:3]
    report = cifarzoo.evaluate(model, part, **CPU)
    assert [score.name for score in report.classes] == list(few.classes[:3])


def test_robustness_is_not_measured_by_labels_without_an_output(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", num_classes=3, seed=0)
    with pytest.raises(InputError, match=r"labels must be in 0\.\.2"):
        evaluate_robustness(model, few, corruptions=["fog"], severities=[1], **CPU)


LEARNS = SHORT.replace(teacher="simple", distillation_weight=1.0, batch_size=20)


@pytest.mark.parametrize(
    "names",
    [None, ("ship", "cat", "dog"), ("airplane", "automobile", "bird")],
    ids=["in another order", "some", "the first"],
)
def test_a_teacher_is_understood_by_name(names: tuple[str, ...] | None, few: ImageSet) -> None:
    """A student that says what its teacher says of the same classes has nothing to learn."""
    images = only(few, *names) if names else reversed_classes(few)
    teacher = cifarzoo.create_model("simple", seed=1)
    order = [few.classes.index(name) for name in images.classes]
    student = cifarzoo.create_model("simple", num_classes=len(order), seed=1)
    cifarzoo.attach_card(student, cifarzoo.ModelCard("simple", len(order), classes=images.classes))
    with torch.no_grad():
        student.load_state_dict(
            {n: v[order] if n.startswith("fc3") else v for n, v in teacher.state_dict().items()}
        )
    history = Trainer(student, LEARNS, teacher=teacher, **CPU).fit(images)
    assert history[0].train_loss == pytest.approx(0, abs=1e-5)


def test_a_teacher_that_lacks_a_class_is_refused_before_any_step(few: ImageSet) -> None:
    student = cifarzoo.create_model("simple", num_classes=3, seed=0)
    teacher = cifarzoo.create_model("simple", seed=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    three = dataclasses.replace(only(few, "cat", "dog", "ship"), classes=("cat", "dog", "gnu"))
    with pytest.raises((InputError, ArgumentError), match="not among the teacher's: 'gnu'"):
        Trainer(student, LEARNS, teacher=teacher, **CPU).fit(three)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
