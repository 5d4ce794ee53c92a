from __future__ import annotations

import dataclasses
import html
import itertools
import pickle
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

import cifarzoo
from cifarzoo import EpochRecord, EvaluationReport, History, ImageSet
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation import (
    RobustnessReport,
    plot_comparison,
    plot_predictions,
    plot_reliability,
    plot_robustness,
)
from cifarzoo.names import one_line


def history(epochs: int, *, val: bool = True) -> History:
    return History(
        tuple(
            EpochRecord(
                epoch=i + 1,
                train_loss=1 / (i + 1),
                train_accuracy=0.5,
                val_loss=2 / (i + 1) if val else None,
                val_accuracy=0.4 if val else None,
                learning_rate=0.1,
                seconds=1.0,
                images_per_second=10.0,
            )
            for i in range(epochs)
        )
    )


@pytest.fixture
def report(few: ImageSet) -> EvaluationReport:
    return cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)


def test_confusion_matrix_writes_every_count() -> None:
    figure = cifarzoo.plot_confusion_matrix([[5, 1], [0, 7]], ("cat", "dog"), title="pets")
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["1", "5", "7"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert axes.get_title() == "pets"
    assert axes.images[0].get_array().tolist() == [[5 / 6, 1 / 6], [0, 1]]


@pytest.mark.parametrize(
    ("count", "largest"), [(2, 123_456), (10, 7), (10, 970), (10, 9_700), (20, 970), (20, 123_456)]
)
def test_counts_are_large_and_stay_in_their_cells(count: int, largest: int) -> None:
    names = [f"a class {number}" for number in range(count)]
    figure = cifarzoo.plot_confusion_matrix([[largest] * count] * count, names, title="pets")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / count
    assert all(text.get_window_extent().width < cell for text in axes.texts)
    assert axes.title.get_window_extent().y1 <= figure.bbox.height
    if largest < 1_000 and count <= 10:  # such as 10,000 images, on a phone of 390 pixels
        sizes = {text.get_fontsize() * 340 / (72 * figure.get_figwidth()) for text in axes.texts}
        assert min(sizes) > 9


def test_names_of_a_hundred_classes_stand_apart_in_a_picture_that_a_screen_shows() -> None:
    names = [f"class {number}" for number in range(100)]
    figure = cifarzoo.plot_confusion_matrix([[7] * 100] * 100, names)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(lower.y1 < upper.y0 for upper, lower in itertools.pairwise(labels))
    assert figure.bbox.width <= 1920


@pytest.mark.slow
def test_a_thousand_classes_are_drawn_on_a_picture_that_can_be_drawn() -> None:
    names = [f"class number {number}" for number in range(1000)]
    figure = cifarzoo.plot_confusion_matrix(torch.eye(1000).long().tolist(), names)
    assert max(figure.get_size_inches()) <= 25
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["class number 0", "class number 9"]
    assert len(labels) <= 120


def test_a_class_without_images_is_marked_in_the_confusion_matrix() -> None:
    axes = cifarzoo.plot_confusion_matrix([[5, 1], [0, 0]], ("cat", "dog")).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["cat", "dog (no images)"]


@pytest.mark.parametrize(
    "counts",
    [
        [[1]],
        [[1, 2], [3]],
        [[1, 2], [3, 4], [5, 6]],
        [[0.9, 0.1], [0.2, 0.8]],
        [[1, -2], [3, 4]],
        [["1", "2"], ["3", "4"]],
        [1, 2],
        [[], []],
        7,
        "report.json",
        None,
    ],
)
def test_confusion_matrix_must_be_counts_that_fit_the_classes(counts: Any) -> None:
    with pytest.raises(InputError, match="or 2x2 numbers of images"):
        cifarzoo.plot_confusion_matrix(counts, ("cat", "dog"))


def test_confusion_matrix_takes_counts_of_tensors_and_arrays() -> None:
    counts = torch.tensor([[5, 1], [0, 7]])
    for each in (counts, counts.numpy(), [*counts]):
        axes = cifarzoo.plot_confusion_matrix(each, ("cat", "dog")).axes[0]
        assert sorted(text.get_text() for text in axes.texts) == ["1", "5", "7"]


@pytest.mark.parametrize("classes", ["ab", (), (1, 2), 5])
def test_confusion_matrix_needs_a_list_of_names(classes: Any) -> None:
    with pytest.raises(InputError, match="classes must be a list of names"):
        cifarzoo.plot_confusion_matrix([[1, 2], [3, 4]], classes)


def test_history_draws_training_and_validation() -> None:
    figure = cifarzoo.plot_history(history(3))
    loss, accuracy, rate = figure.axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    assert list(loss.lines[1].get_ydata()) == [2.0, 1.0, 2 / 3]
    assert list(accuracy.lines[0].get_ydata()) == [50.0] * 3
    assert list(rate.lines[0].get_xdata()) == [1, 2, 3]


def test_runs_are_compared_in_one_picture() -> None:
    runs = {"deep": history(3), "shallow": history(1, val=False)}
    loss = cifarzoo.plot_history(runs, title="both").axes[0]
    assert [line.get_label() for line in loss.lines] == ["deep train", "deep val", "shallow train"]
    assert loss.lines[0].get_color() != loss.lines[2].get_color()


def test_a_run_validated_in_part_is_drawn_in_part() -> None:
    records = (*history(1, val=False).records, history(2).records[1])
    loss = cifarzoo.plot_history(History(records)).axes[0]
    assert [str(y) for y in loss.lines[1].get_ydata()] == ["nan", "1.0"]


def test_nothing_cannot_be_drawn() -> None:
    for empty in ({}, History(), {"run": History()}):
        with pytest.raises(InputError, match="at least one epoch"):
            cifarzoo.plot_history(empty)


def test_reliability_draws_every_bin_that_has_images(few: ImageSet) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)
    upper, lower = plot_reliability(report).axes
    filled = [b for b in report.reliability if b.count]
    assert [bar.get_height() for bar in upper.patches] == [b.accuracy for b in filled]
    assert list(upper.lines[0].get_ydata()) == [b.confidence for b in filled]
    assert sum(bar.get_height() for bar in lower.patches) == pytest.approx(1)


def test_predictions_are_shown_with_their_mistakes(few: ImageSet) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)
    wrong = report.confident_errors(3)
    figure = plot_predictions(report, few, [error.index for error in wrong])
    assert figure is not None
    for axis, error in zip(figure.axes, wrong, strict=True):
        assert axis.get_title() == f"{error.label}\n{error.predicted} {error.confidence:.0%}"
        shown = axis.images[0].get_array()
        assert (shown == few.images[error.index].permute(1, 2, 0).numpy()).all()
    first = plot_predictions(report, few)
    assert first is not None
    assert len(first.axes) == min(24, len(few))
    assert plot_predictions(report, few, []) is None


def test_predictions_are_drawn_on_the_images_of_the_report(few: ImageSet) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)
    turned = dataclasses.replace(few, images=few.images.flip(3))
    for other in (turned, few.subset(range(50))):
        with pytest.raises(InputError, match="the images are not those of the report"):
            plot_predictions(report, other)
    for number in (-1, 200):
        with pytest.raises(ArgumentError, match=r"indices must be numbers in 0\.\.199"):
            plot_predictions(report, few, [0, number])


def test_panels_stand_in_as_many_columns_as_asked_for(
    report: EvaluationReport, few: ImageSet
) -> None:
    figures = [
        cifarzoo.plot_history(history(2), columns=1),
        plot_predictions(report, few, range(7), columns=3),
    ]
    for figure, rows, columns in zip(figures, (3, 3), (1, 3), strict=True):
        assert figure is not None
        figure.draw_without_rendering()
        boxes = [axes.get_position() for axes in figure.axes]
        assert len({round(box.x0, 2) for box in boxes}) == columns
        assert len({round(box.y0, 2) for box in boxes}) == rows
        assert figure.get_figwidth() < 6


@pytest.mark.parametrize("columns", [0, 4, 1.5, "1"])
def test_columns_that_are_no_number_of_panels_are_refused(columns: Any) -> None:
    with pytest.raises(ArgumentError, match=r"columns must be a whole number in 1\.\.3; got"):
        cifarzoo.plot_history(history(1), columns=columns)


@pytest.mark.parametrize("columns", [0, None])
def test_images_need_at_least_one_column(
    columns: Any, report: EvaluationReport, few: ImageSet
) -> None:
    with pytest.raises(ArgumentError, match="columns must be a whole number of at least 1; got"):
        plot_predictions(report, few, columns=columns)


def test_robustness_draws_a_panel_for_each_corruption() -> None:
    rows = {"fog": (0.6, 0.4), "snow": (0.5, 0.3)}
    one = RobustnessReport("one", "test", 0.8, rows, (1, 5))
    other = RobustnessReport("other", "test", 0.9, rows, (1, 5))
    figure = plot_robustness([one, other])
    assert [axis.get_title() for axis in figure.axes] == ["fog", "snow"]
    assert list(figure.axes[1].lines[0].get_xdata()) == [0, 1, 5]
    assert list(figure.axes[1].lines[0].get_ydata()) == [80, 50, 30]
    assert [line.get_label() for line in figure.axes[0].lines] == ["one", "other"]
    less = RobustnessReport("less", "test", 0.9, {"fog": (0.6, 0.4)}, (1, 5))
    for reports in ([], [one, less]):
        with pytest.raises(InputError, match="same corruptions"):
            plot_robustness(reports)


@pytest.mark.parametrize("name", [r"$\frac{1}$", r"$x_1$ and \$", "a\nb\x1b", "\ud800", "$" * 4])
def test_names_are_drawn_as_they_are(name: str, few: ImageSet, tmp_path: Path) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few, device="cpu")
    classes = [dataclasses.replace(score, name=name) for score in report.classes]
    odd = dataclasses.replace(report, model=name, data=name, classes=classes)
    figures = {
        "confusion": cifarzoo.plot_confusion_matrix([[1]], [name], title=name),
        "history": cifarzoo.plot_history({name: history(2)}, title=name),
        "reliability": plot_reliability(odd),
        "predictions": plot_predictions(odd, few, [0]),
    }
    for kind, figure in figures.items():
        assert figure is not None
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
            figure.savefig(tmp_path / f"{kind}.svg")
        assert one_line(name) in html.unescape((tmp_path / f"{kind}.svg").read_text())


def test_a_report_is_drawn_as_it_is(report: EvaluationReport) -> None:
    axes = cifarzoo.plot_confusion_matrix(report).axes[0]
    assert axes.get_title() == f"simple on {report.data}: {report.accuracy:.2%}"
    assert [t.get_text() for t in axes.get_xticklabels()] == [c.name for c in report.classes]
    assert cifarzoo.plot_confusion_matrix(report, title="mine").axes[0].get_title() == "mine"
    with pytest.raises(InputError, match="leave out classes"):
        cifarzoo.plot_confusion_matrix(report, ("cat", "dog"))
    with pytest.raises(InputError, match="needs the names of its classes"):
        cifarzoo.plot_confusion_matrix([[1]])


def test_a_history_is_drawn_from_its_records_too() -> None:
    runs = [cifarzoo.plot_history(each) for each in (history(3), history(3).to_list())]
    first, second = ([list(line.get_ydata()) for line in run.axes[0].lines] for run in runs)
    assert first == second
    for wrong in (3, [3], "history.json"):
        with pytest.raises(InputError, match="a history is what"):
            cifarzoo.plot_history(wrong)


def test_comparisons_are_drawn_with_their_intervals(report: EvaluationReport) -> None:
    other = dataclasses.replace(report, model="$other$", predicted=report.labels)
    one = cifarzoo.compare(report, dataclasses.replace(other, accuracy=1.0))
    (axes,) = plot_comparison(one).axes
    (low, high), *_ = axes.collections[0].get_segments()
    assert [100 * end for end in one.difference_interval] == pytest.approx([low[0], high[0]])
    assert "\\$other\\$" in axes.get_yticklabels()[0].get_text()
    assert len(plot_comparison([one, one]).axes[0].get_yticklabels()) == 2
    with pytest.raises(InputError, match="no comparison"):
        plot_comparison([])


def test_one_report_of_robustness_is_drawn_like_several() -> None:
    one = RobustnessReport("m", "d", 0.9, {"fog": (0.5, 0.3)}, (1, 2))
    assert len(plot_robustness(one).axes[0].lines) == len(plot_robustness([one]).axes[0].lines) == 1


def test_a_figure_is_a_png_for_notebooks_and_can_be_pickled() -> None:
    figure = cifarzoo.plot_history(history(2))
    again = pickle.loads(pickle.dumps(figure))
    for each in (figure, again):
        assert each._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]  # ours
