"""What values say of themselves: in a line, as text, and as HTML for notebooks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import open_browser
from html_tags import Tags
from kinds import each_model_slowly

import cifarzoo
from cifarzoo import (
    Calibration,
    Comparison,
    EpochRecord,
    EvaluationReport,
    History,
    ImageSet,
    ModelSpec,
    Prediction,
    Recipe,
)
from cifarzoo.display.html import picture
from cifarzoo.evaluation import RobustnessReport

BAD = "<img src=x onerror=alert(1)>\n\x1b[2J\ud800"


def history(epochs: int, *, val: float | None = 0.5) -> History:
    loss = None if val is None else 1.0
    return History(
        tuple(EpochRecord(i + 1, 2.0, 0.25, loss, val, 0.1, 1.0, 1000.0) for i in range(epochs))
    )


def prediction(name: str, file: str = "") -> Prediction:
    return Prediction(name, 0.75, ((name, 0.75), ("dog", 0.25)), note=name, file=file)


def spec(name: str) -> ModelSpec:
    return dataclasses.replace(
        cifarzoo.get_model_info("simple"), name=name, description=name, source=name
    )


def comparison(*names: str, low: float = -0.01) -> Comparison:
    first, second = names
    return Comparison((first, second), (0.9, 0.88), 0.02, (low, 0.05), 30, 10, 0.002)


@pytest.fixture(scope="module")
def report(sample_test: ImageSet) -> EvaluationReport:
    return cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), sample_test)


def odd_report(report: EvaluationReport, name: str) -> EvaluationReport:
    classes = [dataclasses.replace(score, name=name) for score in report.classes]
    return dataclasses.replace(report, model=name, data=name, note=name, classes=classes)


@pytest.fixture
def values(report: EvaluationReport, few: ImageSet) -> dict[str, Any]:
    """One of each kind, with names as somebody's file may have them."""
    return {
        "report": odd_report(report, BAD),
        "comparison": comparison(BAD, BAD),
        "history": history(3),
        "spec": spec(BAD),
        "prediction": prediction(BAD, BAD),
        "robustness": RobustnessReport(BAD, BAD, 0.9, {BAD: (0.5, 0.3)}, (1, 2)),
        "calibration": Calibration(1.5, (0.75, 0.5), (0.0625, 0.03125), 1000),
        "images": ImageSet(
            few.images, few.labels, [f"{BAD}{i}" for i in range(len(few.classes))], BAD
        ),
    }


def test_no_name_becomes_markup_in_a_notebook(values: dict[str, Any]) -> None:
    for kind, value in values.items():
        html = value._repr_html_()
        html.encode()  # half a surrogate pair would fail
        for tag, attributes in Tags(html).found:
            assert tag != "script", kind
            assert not any(name.startswith("on") for name in attributes), kind
            assert (attributes.get("src") or "data:image/png;base64,").startswith("data:"), kind


def test_a_line_is_one_line_that_a_terminal_can_show(values: dict[str, Any]) -> None:
    for kind, value in values.items():
        for text in (repr(value), f"{value}"):
            assert "\x1b" not in text, kind
        assert "\n" not in repr(value), kind


def test_values_are_short_in_a_line(report: EvaluationReport, sample_train: ImageSet) -> None:
    result = comparison("first", "second")
    assert repr(report) == (
        f"EvaluationReport('simple' on 'cifar10 sample test': accuracy {report.accuracy:.2%}, "
        "1,000 images)"
    )
    assert repr(result) == (
        "Comparison('first' minus 'second': +2.00 points, 95 % interval -1.00 to +5.00)"
    )
    assert repr(history(2)) == "History(2 epochs, val accuracy 50.00%, 2.0 s)"
    assert repr(history(1, val=None)) == "History(1 epoch, train accuracy 25.00%, 1.0 s)"
    assert repr(History()) == str(History()) == "History(0 epochs)"
    assert repr(prediction("cat", "a.png")) == "Prediction('cat' 75.0%, file 'a.png')"
    assert str(prediction("cat", "a.png")) == "a.png: cat 75.0%, dog 25.0% (cat)"
    assert repr(cifarzoo.get_model_info("simple")).startswith(
        "ModelSpec('simple': 80,090 parameters, 723,178 MACs, weights default, "
    )
    robust = RobustnessReport("m", "d", 0.9, {"fog": (0.5, 0.3)}, (1, 2))
    assert repr(robust) == ("RobustnessReport('m' on 'd': 90.00% clean, 40.00% under 1 corruption)")
    model = cifarzoo.create_model("simple", seed=0)
    trainer = cifarzoo.Trainer(model, Recipe(epochs=3, batch_size=64), device="cpu")
    assert re.fullmatch(
        r"Trainer\('simple': 3 epochs, batches of 64, sgd, b?float(16|32) on cpu\)", repr(trainer)
    )
    own = cifarzoo.Trainer(model, optimizer=lambda _: torch.optim.SGD(model.parameters(), 0.1))
    assert "an optimizer of yours" in repr(own)


def test_a_long_history_is_printed_with_its_ends() -> None:
    lines = str(history(200)).splitlines()
    assert len(lines) == 22
    assert lines[1].split()[0] == "1"
    assert lines[-1].split()[0] == "200"
    assert "..." in lines[11]
    assert len(str(history(20)).splitlines()) == 21
    assert "-" in str(history(1, val=None)).splitlines()[1].split()


def test_the_html_of_a_history_has_every_epoch_and_its_curves() -> None:
    html = history(30)._repr_html_()
    assert html.count("<tr><td") == 30
    assert html.count("<svg") == 2
    assert "Training history, 0 epochs" in History()._repr_html_()


def test_the_html_of_robustness_and_calibration_has_their_numbers(values: dict[str, Any]) -> None:
    html = values["robustness"]._repr_html_()
    assert ">50.0</td>" in html
    assert "40.00\u00a0%" in html
    html = values["calibration"]._repr_html_()
    for number in ("1.500", "0.7500", "0.0312", "1,000"):
        assert number in html


def test_a_comparison_says_whether_the_images_decide() -> None:
    assert "do not show which" in comparison("a", "b")._repr_html_()
    assert "leaves out 0: a is better" in comparison("a", "b", low=0.01)._repr_html_()
    worse = dataclasses.replace(comparison("a", "b"), difference_interval=(-0.2, -0.1))
    assert "leaves out 0: b is better" in worse._repr_html_()


def test_models_of_one_name_are_told_apart(report: EvaluationReport) -> None:
    assert cifarzoo.compare(report, report).names == ("simple (1)", "simple (2)")
    other = dataclasses.replace(report, model="other")
    assert cifarzoo.compare(report, other).names == ("simple", "other")


def test_a_report_of_many_classes_shows_the_least_recognized(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(300) % 100, [f"class {i}" for i in range(100)])
    found = cifarzoo.evaluate(cifarzoo.create_model("simple", num_classes=100, seed=0), data)
    text = str(found)
    assert "and 90 more classes" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "confusion matrix" not in text
    assert '<table class="heat">' not in found._repr_html_()
    written = found.save(tmp_path / "report.txt").read_text(encoding="utf-8")
    assert all(score.name in written for score in found.classes)


def test_images_are_shown_evenly_spaced_and_small(few: ImageSet) -> None:
    large = ImageSet(
        torch.zeros(100, 3, 300, 200, dtype=torch.uint8), [i // 50 for i in range(100)], ("a", "b")
    )
    for images in (few, large):
        html = images._repr_html_()
        assert html.count("<img") == 24
        assert len(html) < 150_000
    assert html.count('">a</figure>') == html.count('">b</figure>') == 12
    assert "24 of them" in html
    assert "of them" not in large.subset([0, 1])._repr_html_()


def test_a_picture_keeps_its_pixels_unless_it_is_too_large() -> None:
    import base64
    import io

    from PIL import Image

    image = torch.randint(0, 256, (3, 40, 20), dtype=torch.uint8)

    def read(address: str) -> Any:
        return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))

    same = torch.tensor(list(read(picture(image)).tobytes()), dtype=torch.uint8)
    assert torch.equal(same.view(40, 20, 3).permute(2, 0, 1), image)
    assert read(picture(image, side=10)).size == (5, 10)
    assert read(picture(image, side=40)).size == (20, 40)


@each_model_slowly
def test_print_of_a_spec_is_no_wider_than_100_columns(name: str) -> None:
    text = str(cifarzoo.get_model_info(name))
    assert max(map(len, text.splitlines())) <= 100
    assert f"{cifarzoo.get_model_info(name).parameters:,}" in text


def test_a_recipe_in_a_line_says_what_is_on() -> None:
    text = str(Recipe(epochs=3, ema_decay=0.99, groups={"weights": {"momentum": 0.5}}))
    assert "epochs=3, " in text
    assert "ema_decay=0.99" in text
    assert "groups=(weights)" in text
    assert "augmentation=(flip=random, crop_padding=4)" in text
    assert "mixup" not in text
    assert "augmentation=none" in str(Recipe.from_dict({"augmentation": {}}))


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_every_value_fits_a_phone_and_can_be_read_on_any_background(
    values: dict[str, Any], report: EvaluationReport, tmp_path: Path, background: str
) -> None:
    """A page like a notebook's holds them all; a script measures width and contrast."""
    name = "a_class_with_a_name_that_is_long_and_has_no_place_to_break"
    shown = [
        report,
        *values.values(),
        odd_report(report, name),
        prediction(name, f"/{name}/{name}"),
    ]
    parts = "".join(f"<main>{value._repr_html_()}</main>" for value in shown)
    ink = "#111111" if background == "#ffffff" else "#ffffff"
    path = tmp_path / "notebook.html"
    path.write_text(PROBE.format(ink=ink, background=background, parts=parts), encoding="utf-8")
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 500, "height": 900})
        page.goto(path.as_uri())
        wide, contrast, parts_measured = page.title().split()
    assert int(wide) == 0, "something is wider than a phone"
    assert float(contrast) >= 4.5, "text is too faint"
    assert int(parts_measured) > 500


# the script writes what it measures into the title
PROBE = """<!doctype html><html><head><meta charset="utf-8"><title></title>
<style>body {{ background: {background}; color: {ink}; margin: 0 }}
main {{ width: 390px; overflow-x: clip }}</style></head><body>{parts}
<script>
const parse = text => {{
  const mixed = text.startsWith("color(");
  const n = text.match(/[\\d.e-]+/g).map(Number);
  const at = mixed ? n.slice(-(text.includes("/") ? 4 : 3)) : n;
  const rgb = at.slice(0, 3).map(x => mixed ? x * 255 : x);
  return [...rgb, at.length > 3 ? at[3] : 1];
}};
const over = (top, under) => under.map((u, i) => top[i] * top[3] + u * (1 - top[3]));
const light = c => c.map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92
  : ((x + 0.055) / 1.055) ** 2.4).reduce((s, x, i) => s + x * [0.2126, 0.7152, 0.0722][i], 0);
const page = parse(getComputedStyle(document.body).backgroundColor).slice(0, 3);
let least = 99, count = 0;
for (const e of document.querySelectorAll("main *")) {{
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || ["STYLE", "TITLE", "SCRIPT"].includes(e.tagName)) continue;
  const style = getComputedStyle(e);
  let ground = page;
  const above = [];
  for (let p = e; p !== document.body; p = p.parentElement) above.unshift(p);
  for (const p of above) ground = over(parse(getComputedStyle(p).backgroundColor), ground);
  const ink = over(parse(e.tagName === "text" ? style.fill : style.color), ground);
  const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
  least = Math.min(least, (a + 0.05) / (b + 0.05));
  count++;
}}
const wide = [...document.querySelectorAll("main")].filter(m => m.scrollWidth > 390).length;
document.title = [wide, least.toFixed(2), count].join(" ");
</script></body></html>"""


@pytest.mark.parametrize(
    "make",
    [lambda: history(2), lambda: prediction("cat"), lambda: comparison("a", "b")],
)
def test_data_frames_name_the_extra_where_pandas_is_missing(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        cifarzoo.errors.MissingExtraError, match=r"pip install 'cifarzoo\[pandas\]'"
    ):
        make().to_dataframe()
