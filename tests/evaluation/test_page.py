"""The HTML page: what it says, and that a browser shows it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, faults, open_browser
from html_tags import Tags
from torch import nn

import cifarzoo
from cifarzoo import EvaluationReport, ImageSet
from cifarzoo.display.charts import Series, learning_curves, line_chart, reliability_chart
from cifarzoo.errors import ArgumentError, CifarZooError, InputError, OutputError
from cifarzoo.evaluation import PageEntry, make_entry, write_page
from cifarzoo.evaluation.page import render_page, views_of_entry
from cifarzoo.evaluation.robustness import RobustnessReport


@pytest.fixture(scope="module")
def images(sample_test: ImageSet) -> ImageSet:
    return sample_test.subset(range(0, 1000, 10))


@pytest.fixture(scope="module")
def entries(images: ImageSet, sample_train: ImageSet, tmp_path_factory: Any) -> list[PageEntry]:
    """Two models, the first with a training history and a weights file."""
    model = cifarzoo.create_model("simple", seed=0)
    recipe = cifarzoo.Recipe(epochs=2, batch_size=500, learning_rate=0.02)
    history = cifarzoo.Trainer(model, recipe, device="cpu").fit(sample_train, images)
    path = cifarzoo.save_weights(
        model,
        tmp_path_factory.mktemp("page") / "w.safetensors",
        metadata={
            "command": "cifarzoo train <b>simple</b>",
            "history": history.to_list(),
            "train_seconds": history.seconds,
            "recipe": recipe.to_dict(),
        },
    )
    other = cifarzoo.create_model("simple", seed=1)
    return [
        make_entry(model, images, weights=path, robustness=True),
        make_entry(other, images, label="</script>"),
    ]


@pytest.fixture(scope="module")
def page(entries: list[PageEntry], images: ImageSet) -> str:
    return render_page(entries, images)


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    for tag, attributes in Tags(page).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
    assert "http" not in page
    assert "@import" not in page


def test_the_numbers_shown_are_those_of_the_embedded_json(
    page: str, entries: list[PageEntry]
) -> None:
    embedded = re.search(r'<script type="application/json" id="reports">(.*?)</script>', page, re.S)
    assert embedded
    models = json.loads(embedded[1])
    reports = [[EvaluationReport.from_dict(r) for r in model["reports"]] for model in models]
    assert [model["cost"]["parameters"] for model in models] == [80090, 80090]
    robust = RobustnessReport.from_dict(models[0]["robustness"])
    assert robust == entries[0].robustness
    assert models[1]["robustness"] is None
    assert f"mean {100 * robust.mean_accuracy:.2f} %" in re.sub(r"\s+", " ", page)
    assert reports == [[entry.report, *entry.with_tta] for entry in entries]
    shown = re.findall(r'data-field="(\w+)">\s*([\d.]+)', page)
    expected = [
        pair
        for (report, *_) in reports
        for pair in (
            ("accuracy", f"{100 * report.accuracy:.2f}"),
            ("loss", f"{report.loss:.4f}"),
            ("ece", f"{report.expected_calibration_error:.4f}"),
        )
    ]
    assert shown == expected


def test_names_and_commands_are_text_and_never_markup(page: str) -> None:
    assert "&lt;b&gt;simple&lt;/b&gt;" in page
    assert "<b>simple</b>" not in page
    assert page.count("</script>") == 1


def test_history_provenance_comparison_and_errors_are_there(
    page: str, entries: list[PageEntry]
) -> None:
    assert page.count("while training</h3>") == 2
    assert "McNemar" in page
    assert "weights sha256" in page
    wrong = [min(24, len(entry.report.confident_errors(200))) for entry in entries]
    assert page.count("data:image/png;base64,") == sum(wrong)


def test_without_images_history_and_comparison_it_is_shorter(entries: list[PageEntry]) -> None:
    page = render_page([PageEntry(entries[1].report)])
    Tags(page)
    assert "data:image" not in page
    assert "while training" not in page
    assert "McNemar" not in page


@pytest.mark.parametrize(
    ("views", "robustness", "shown"),
    [("none", False, []), ("flip", True, ["flip"]), ("flip_shift", False, ["flip", "flip_shift"])],
)
def test_a_page_has_the_views_that_were_asked_for_and_counts_them(
    views: Any, robustness: bool, shown: list[str], images: ImageSet
) -> None:
    few, done = images.subset(range(7)), []
    model = cifarzoo.create_model("simple", seed=0)
    entry = make_entry(model, few, views=views, robustness=robustness, advance=done.append)
    assert [report.tta for report in entry.with_tta] == shown
    assert sum(done) == views_of_entry(len(few), views, robustness=robustness)


def test_views_of_a_page_are_asked_for_by_name(images: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="views must be one of none, flip, flip_shift; got 'x'"):
        make_entry(cifarzoo.create_model("simple"), images, views="x")  # type: ignore[arg-type]


def test_images_of_another_size_cost_what_they_cost(images: ImageSet) -> None:
    large = ImageSet(images.images[:5].repeat(1, 1, 2, 2), images.labels[:5], images.classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10))
    entry = make_entry(model, large, views="none")
    assert entry.cost is not None
    assert (entry.cost.macs, entry.cost.image_size) == (3 * 64 * 64 * 10 + 10, 64)
    assert "images of 64x64" in render_page([entry], large)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weights": "typo.safetensors"}, "no weights file"), ({"robustness": True}, r"3, 32, 32")],
)
def test_what_refuses_does_so_before_anything_is_measured(
    options: dict[str, Any], message: str, images: ImageSet
) -> None:
    large = ImageSet(images.images[:5].repeat(1, 1, 2, 2), images.labels[:5], images.classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10))
    seen: list[int] = []
    with pytest.raises(CifarZooError, match=message):
        make_entry(model, large, advance=seen.append, **options)
    assert not seen


def test_a_network_with_more_outputs_than_classes_has_a_page(images: ImageSet) -> None:
    model = cifarzoo.create_model("simple", num_classes=20, seed=0)
    report = cifarzoo.evaluate(model, images)
    assert report.check_images(images) is images
    assert "<html" in render_page([PageEntry(report)], images)


def test_a_perfect_model_has_no_errors_to_show(images: ImageSet) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), images)
    perfect = dataclasses.replace(report, predicted=report.labels)
    assert "Most confident errors" not in render_page([PageEntry(perfect)], images)


def test_bad_input_is_refused(entries: list[PageEntry], images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one report"):
        render_page([])
    fewer = images.subset(range(50))
    with pytest.raises(InputError, match="the images are not those of the report"):
        render_page(entries, fewer)
    turned = dataclasses.replace(images, images=images.images.flip(3))
    with pytest.raises(InputError, match="the images are not those of the report"):
        render_page(entries, turned)
    short = PageEntry(cifarzoo.evaluate(cifarzoo.create_model("simple"), fewer))
    with pytest.raises(InputError, match="on the same images"):
        render_page([entries[0], short])
    with pytest.raises(OutputError):
        write_page(tmp_path, entries, images)
    assert not list(tmp_path.iterdir())


def test_a_chart_of_equal_values_and_of_one_point() -> None:
    for points in ([(1, 0.5), (2, 0.5)], [(1, 0.0)]):
        chart = line_chart([Series("", points)], title="t", x_label="x", y_label="y")
        assert "nan" not in chart
        assert chart.count("<circle") == len(points)


@pytest.mark.parametrize("span", [0.5, 0.05, 0.004, 0.0003])
def test_the_ticks_of_a_short_run_are_whole_epochs_and_differ(span: float) -> None:
    points = [(1, 0.5), (2, 0.5 + span)]
    chart = line_chart([Series("", points)], title="t", x_label="x", y_label="y", in_percent=True)
    ticks = re.findall(r'class="tick"[^>]*>([^<]+)<', chart)
    across, up = ([t for t in ticks if t.endswith("%") == is_up] for is_up in (False, True))
    assert across == ["1", "2"]
    assert len(up) == len(set(up)) > 2


def test_every_line_of_a_chart_has_a_colour_of_the_page(page: str) -> None:
    lines = [Series(f"model {number}", [(1, 0.5)], colour=number) for number in range(20)]
    chart = line_chart(lines, title="t", x_label="x", y_label="y")
    used = set(re.findall(r"\bc\d+\b", chart))
    assert used == set(re.findall(r"(?<=line\.)c\d+\b", page))


def test_a_run_validated_in_part_is_drawn_in_part(entries: list[PageEntry]) -> None:
    record = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": None, "val_accuracy": None}
    later = {**record, "val_loss": 0.75, "val_accuracy": 0.625}
    history = [{"epoch": 1, **record}, {"epoch": 2, **later}]
    page = render_page([PageEntry(entries[0].report, history=history)])
    assert page.count("validation epoch 2: ") == 2
    assert "validation epoch 1: " not in page


def test_the_recipe_is_a_table_in_words(page: str, entries: list[PageEntry]) -> None:
    assert entries[0].recipe["learning rate"] == "0.02"
    assert entries[0].recipe["augmentation"] == "flip random, crop_padding 4"
    assert not {"label smoothing", "distillation weight"} & {*entries[0].recipe}  # not used
    assert "<tr><th>learning rate</th><td>0.02</td></tr>" in page
    assert "{&#34;" not in page


def test_speeds_come_with_their_spread(page: str, entries: list[PageEntry]) -> None:
    for entry in entries:
        assert entry.cost
        low, high = entry.cost.middle_half_256
        assert low <= entry.cost.images_per_second_256 <= high
        assert f"{entry.cost.images_per_second_256:,.0f}<small>{low:,.0f} to {high:,.0f}" in page


def test_terms_are_explained_once(page: str) -> None:
    for term in (
        "cross-entropy",
        "mean squared error",
        "mirror image",
        "share of right answers",
    ):
        assert page.count(term) == 1


def test_a_bar_of_the_reliability_says_how_many_images_it_holds() -> None:
    chart = reliability_chart(
        [(7, 0.1, 0.2), (0, 0, 0), (9949, 0.9, 0.8), (12_345, 1, 1)], title="t"
    )
    shown = re.findall(r'text class="count".*?>(.*?)</text>', chart)
    assert shown == ["images", "7", "9.9k", "12k"]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("shown", [1, 2])
def test_the_page_can_be_read_on_a_phone(
    entries: list[PageEntry], images: ImageSet, tmp_path: Path, shown: int
) -> None:
    path = write_page(tmp_path / "report.html", entries[:shown], images)
    with open_browser() as browser:
        page = browser.new_page()
        assert faults(page, path.as_uri()) == []
        chart = "document.querySelector('.chart')"
        desk = page.evaluate(f"{chart}.clientWidth / {chart}.closest('.told').clientWidth")
        assert desk > 0.4
        page.set_viewport_size({"width": PHONE, "height": 844})
        matrix = page.locator(".scrolls").first
        assert matrix.evaluate("e => e.scrollWidth > e.clientWidth")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_every_image_and_reports_no_error(
    entries: list[PageEntry], images: ImageSet, tmp_path: Path, width: int
) -> None:
    path = write_page(tmp_path / "report.html", entries, images)
    said: list[str] = []
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.add_init_script("window.errors = 0; addEventListener('error', () => errors++, true)")
        page.goto(path.as_uri())
        assert page.evaluate("errors") == 0
        widths = page.evaluate("[...document.images].map(p => p.complete && p.naturalWidth)")
        assert len(widths) > 20
        assert {*widths} == {32}
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, "the page is wider than the window"
    assert said == []


@pytest.mark.parametrize("name", ["<!--<script>", "</script><img src=x>", "\ud800 'x' & \"y\""])
def test_a_name_cannot_end_the_page_early(
    name: str, entries: list[PageEntry], images: ImageSet, tmp_path: Path
) -> None:
    report = entries[1].report
    classes = [dataclasses.replace(report.classes[0], name=name), *report.classes[1:]]
    odd = dataclasses.replace(report, model=name, data=name, classes=classes)
    path = write_page(tmp_path / "page.html", [dataclasses.replace(entries[1], report=odd)])
    text = path.read_text(encoding="utf-8")
    embedded = re.search(r'id="reports">([^<>&]*)</script>', text)
    assert embedded  # a browser reads on as before "<!--<script" too
    assert json.loads(embedded[1])[0]["reports"][0]["model"] == name
    assert text.count("<script") == text.count("</script>") == 1
    assert text.rstrip().endswith("</html>")
    assert Tags(text).found


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_curves_leave_out_what_is_no_number(bad: float) -> None:
    """A loss of one's own may have been infinite for the validation images."""
    history = [{"epoch": e, "train_loss": 1.0 / e, "val_loss": bad} for e in (1, 2, 3)]
    charts = learning_curves(history)
    assert charts == learning_curves([{**record, "val_loss": None} for record in history])
    assert len(charts) == 1
