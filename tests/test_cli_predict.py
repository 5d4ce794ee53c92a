"""`cifarzoo predict`: many files, some of them bad."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from command import Result, run
from PIL import Image

import cifarzoo
from cifarzoo.evaluation.inference import TestTimeAugmentation


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = cifarzoo.create_model("simple", seed=0)
    return cifarzoo.save_weights(model, tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them deeper, and two other files."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for place, name in enumerate(("b.png", "a.JPG", "deep/c.webp")):
        Image.new("RGB", (40, 30), (80 * place, 9, 99)).save(folder / name)
    (folder / "list.txt").write_text("a, b")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def names(result: Result) -> list[str]:
    return [Path(line.split(": ")[0]).name for line in result.stdout.splitlines()]


def test_a_folder_is_answered_with_all_in_it(weights: Path, photos: Path) -> None:
    result = run("predict", weights, photos)
    assert names(result) == ["a.JPG", "b.png", "c.webp"]
    assert f"{photos}: other files than images were left out: 1\n" in result.stderr


def test_one_bad_file_is_reported_and_the_others_are_answered(weights: Path, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes((photos / "a.JPG").read_bytes()[:400])
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    result = run("predict", weights, photos, code=1)
    assert names(result) == ["a.JPG", "b.png", "c.webp"]
    errors = result.stderr.splitlines()
    assert any("bad.jpg" in line and line.startswith("error: cannot read") for line in errors)
    assert any("phone.heic: it is HEIC" in line for line in errors)
    assert errors[-1] == "2 of 5 could not be read"


def test_json_holds_the_errors(weights: Path, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")
    result = run("predict", weights, photos / "b.png", photos / "bad.jpg", "--json", code=1)
    good, bad = json.loads(result.stdout)
    assert good["file"] == str(photos / "b.png")
    assert good["note"] == "resized from 40x30 to 32x32"
    assert bad["file"] == str(photos / "bad.jpg")
    assert "it is empty" in bad["error"]
    assert "label" not in bad


def test_a_minus_is_standard_input(weights: Path, photos: Path) -> None:
    path = photos / "b.png"
    found = run("predict", weights, "-", stdin=path.read_bytes())
    expected = run("predict", weights, path)
    assert found.stdout.startswith("-: ")
    assert found.stdout.split(": ", 1)[1] == expected.stdout.split(": ", 1)[1]
    assert "it is empty" in run("predict", weights, "-", code=1, stdin=b"").stderr


def test_patterns_that_the_shell_left_are_expanded(weights: Path, photos: Path) -> None:
    assert names(run("predict", weights, photos / "**" / "*.[pw]*")) == ["b.png", "c.webp"]
    odd = photos / "[1].png"
    Image.new("RGB", (4, 4)).save(odd)
    assert names(run("predict", weights, odd)) == ["[1].png"]
    assert "no file matches" in run("predict", weights, photos / "*.bmp", code=1).stderr


def test_a_folder_without_images_is_an_error(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    result = run("predict", weights, tmp_path, code=1)
    assert f"the folder {tmp_path} holds no images; other files in it: 1" in result.stderr


def test_more_files_than_go_at_once_keep_their_order(weights: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, format="PNG")
    for place in range(103):
        (tmp_path / f"{place:03}.png").write_bytes(file.getvalue())
    found = json.loads(run("predict", weights, tmp_path, "--json").stdout)
    assert [Path(entry["file"]).stem for entry in found] == [f"{place:03}" for place in range(103)]


def test_csv_has_a_row_for_each_image_and_its_error(weights: Path, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"x")
    rows = list(csv.DictReader(run("predict", weights, photos, "--csv", code=1).stdout.split("\n")))
    assert [Path(row["file"]).name for row in rows] == ["a.JPG", "b.png", "bad.jpg", "c.webp"]
    model = cifarzoo.load_model(weights)
    for row in rows:
        if row["error"]:
            assert row["label"] == ""
            continue
        found = cifarzoo.predict(model, row["file"])
        assert isinstance(found, cifarzoo.Prediction)
        assert row["label"] == found.label
        assert float(row["probability"]) == pytest.approx(found.probability, abs=1e-3)
        assert (row["label_5"], row["note"]) == (found.top[4][0], found.note)
    assert "cannot read" in rows[2]["error"]


@pytest.mark.parametrize("kind", ["csv", "json", "txt"])
def test_answers_go_to_a_file_of_the_kind_that_its_name_says(
    weights: Path, photos: Path, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"new/answers.{kind}"
    result = run("predict", weights, photos, "--output", path, "--top", 2)
    assert result.stdout == ""
    printed = run("predict", weights, photos, "--top", 2, *{"txt": ()}.get(kind, (f"--{kind}",)))
    assert path.read_text(encoding="utf-8") == printed.stdout


def test_as_many_classes_are_told_as_are_asked_for(weights: Path, photos: Path) -> None:
    for asked, told in ((1, 1), (3, 3), (99, 10)):
        found = json.loads(run("predict", weights, photos, "--json", "--top", asked).stdout)
        assert [len(entry["top"]) for entry in found] == [told] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--csv", "--json"), "--csv and --json exclude each other"),
        (("--output", "x.md"), "--output must be a .csv, .json or .txt file; got x.md"),
        (("--output", "x.csv", "--json"), "--output is a .csv file: x.csv"),
        (("--top", "0"), "top must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(
    arguments: tuple[str, ...], message: str
) -> None:
    assert message in run("predict", "nosuch", "nowhere", *arguments, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "right", "wrong"),
    [
        (("data", "--no-download"), "pass --download, or set --root or $CIFARZOO_DATA", "True"),
        (
            ("train", "simple", "--data", "sample", "--set", "batch_size=9999"),
            "give --set batch_size=2000 or less",
            "set --set",
        ),
        (("train", "nosuch", "--data", "sample"), "See `cifarzoo models`.", "list_models"),
        (("train", "timm:resnt18"), '`cifarzoo models "timm:*"`', "list_models"),
        (("train", "simple", "--set", "optimizer=sgdd"), "did you mean 'sgd'?", "list_optimizers"),
        (
            ("train", "simple", "--data", "sample", "--val-size", "5000"),
            "--val-size must be a whole number in 1..1999",
            "split size",
        ),
    ],
)
def test_errors_speak_of_options(
    arguments: tuple[str, ...], right: str, wrong: str, tmp_path: Path
) -> None:
    place = ("--root", tmp_path) if arguments[0] == "data" else ("--output", tmp_path / "run")
    result = run(*arguments, *place, code=1)
    assert right in result.stderr
    assert wrong not in result.stderr


def test_an_empty_name_is_no_folder(weights: Path) -> None:
    result = run("predict", weights, "", code=1)  # as of a variable of the shell that is not set
    assert "cannot read an image from '': there is no such file" in result.stderr


def test_what_stands_in_standard_input_is_called_so(weights: Path) -> None:
    result = run("predict", weights, "-", code=1, stdin=b"text")
    assert "cannot read an image from standard input: it is none" in result.stderr


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may open every folder")
def test_a_folder_that_may_not_be_opened_is_reported(weights: Path, photos: Path) -> None:
    closed = photos / "closed"
    closed.mkdir(mode=0)
    try:
        result = run("predict", weights, photos, code=1)
    finally:
        closed.chmod(0o700)
    assert names(result) == ["a.JPG", "b.png", "c.webp"]
    assert f"from {closed}: it is a folder that may not be opened" in result.stderr


def test_a_set_that_is_not_where_it_was_said_belongs_there(weights: Path, tmp_path: Path) -> None:
    result = run(
        *("report", weights, "--data", "sample", "--cifar10-c", tmp_path),
        *("-o", tmp_path / "report.html"),
        code=1,
    )
    assert f"in {tmp_path}; get CIFAR-10-C.tar" in result.stderr
    assert "put it there, or name the folder that holds CIFAR-10-C instead" in result.stderr
    assert "--root" not in result.stderr


@pytest.mark.parametrize("views", get_args(TestTimeAugmentation))
def test_every_way_to_average_views_can_be_asked_for(views: str) -> None:
    assert "unknown model" in run("evaluate", "nosuch", "--tta", views, code=1).stderr


def test_answers_of_a_stopped_command_are_kept(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the file that was named, which may hold the answers of an earlier one."""
    files = [tmp_path / f"{number}.png" for number in range(150)]
    for file in files:
        Image.new("RGB", (32, 32)).save(file)
    output = tmp_path / "answers.csv"
    output.write_text("whole")
    module = importlib.import_module("cifarzoo.evaluation.predict")
    real = module.classify
    calls = itertools.count()

    def stopped(*arguments: Any, **options: Any) -> Any:
        if next(calls):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, "classify", stopped)
    kept = tmp_path / "answers-stopped.csv"
    result = run("predict", weights, *files, "--output", output, code=130)
    assert f"stopped after 100 of 150 pictures; their answers are in {kept}" in result.stderr
    assert len(kept.read_text().splitlines()) == 101
    assert output.read_text() == "whole"
