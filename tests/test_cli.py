from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run
from PIL import Image

import cifarzoo
from cifarzoo import History, Recipe, WeightsInfo
from cifarzoo.cli.train import _choose_recipe
from cifarzoo.errors import ArgumentError
from cifarzoo.files.writing import file_digest

COMMANDS = (
    *("models", "info", "summary", "recipes", "data", "train"),
    *("evaluate", "calibrate", "report", "compare", "predict", "export", "verify"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the sample."""
    folder = tmp_path_factory.mktemp("runs") / "simple"
    run("train", "simple", "--data", "sample", "--set", "epochs=2", "--output", folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert f"cifarzoo {command}" in run(command, "--help").output.replace("\n", " ")


def test_version() -> None:
    assert cifarzoo.__version__ in run("--version").output


def test_models_lists_the_zoo() -> None:
    output = run("models").output
    assert all(name in output for name in cifarzoo.list_models())
    names = [entry["name"] for entry in json.loads(run("models", "resnet*", "--json").stdout)]
    assert names == cifarzoo.list_models("resnet*")
    pretrained = json.loads(run("models", "--pretrained", "--json").stdout)
    assert [entry["name"] for entry in pretrained] == cifarzoo.list_models(pretrained=True)
    seeds = cifarzoo.get_model_info("simple").weights["default"].facts["seeds"]
    mean = statistics.mean(seed["test_accuracy"]["none"] for seed in seeds)
    assert f"{100 * mean:.2f} %" in output


def test_info_tells_source_and_recipes() -> None:
    output = run("info", "deep_bn").output
    for text in ("453,242", "69 %", "\nrecipes\n", "  original  epochs=8, ", "scheduler=multistep"):
        assert text in output
    assert max(map(len, output.splitlines())) <= 100
    assert json.loads(run("info", "deep_bn", "--json").stdout)["image_size"] == 32


def test_summary_prints_the_layers() -> None:
    assert "453,242" in run("summary", "deep_bn").output


def test_data_checks_the_files() -> None:
    assert "cifar10 sample test: 1,000 images, 10 classes, intact" in run("data", "sample").output
    facts = json.loads(run("data", "sample", "--json").stdout)
    assert [entry["images"] for entry in facts] == [2000, 1000]


def test_train_keeps_everything(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "checkpoint.pt",
        "confusion.png",
        "curves.png",
        "history.csv",
        "history.json",
        "recipe.toml",
        "report-flip.json",
        "report.json",
        "run.json",
        "weights.safetensors",
    }
    assert len(History.load(trained / "history.json")) == 2
    assert Recipe.load(trained / "recipe.toml").epochs == 2
    with Image.open(trained / "confusion.png") as picture:
        assert picture.size[0] > 500
    facts = cifarzoo.read_metadata(trained / "weights.safetensors")["metadata"]
    assert facts["recipe"]["epochs"] == 2
    assert facts["data_sha256"] == cifarzoo.load_sample("train").sha256()
    assert len(facts["history"]) == 2
    report = json.loads((trained / "report.json").read_text())
    assert facts["test_accuracy"]["none"] == report["accuracy"]


def test_evaluate_finds_the_accuracy_again(trained: Path, tmp_path: Path) -> None:
    stated = json.loads((trained / "report.json").read_text())
    found = run("evaluate", trained, "--data", "sample", "--json").stdout
    assert json.loads(found)["accuracy"] == stated["accuracy"]
    matrix = tmp_path / "matrix.svg"
    weights = trained / "weights.safetensors"
    output = run("evaluate", weights, "--data", "sample", "--tta", "flip", "--save", matrix).output
    assert "test-time augmentation: flip" in output
    assert matrix.exists()


def test_predict_names_what_it_sees(trained: Path, tmp_path: Path) -> None:
    pixels = cifarzoo.load_sample("test").images[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((64, 48)).save(tmp_path / "a.png")
    output = run("predict", trained, tmp_path / "a.png").output
    assert re.search(r"a\.png: \w+ \d+\.\d%, .*\(resized from 64x48 to 32x32\)", output)
    answer = json.loads(run("predict", trained, tmp_path / "a.png", "--json").stdout)
    assert len(answer[0]["top"]) == 5


def test_recipe_fields_can_be_overridden(tmp_path: Path) -> None:
    run(
        "train",
        "simple",
        *("--data", "sample", "--recipe", "original", "--seed", "7", "--val-size", "500"),
        *("--set", "epochs=1", "--set", "augmentation.flip=random"),
        # in any order: the name does not drop options that are given beside it
        *("--set", "scheduler_options.warmup_epochs=0.5", "--set", "scheduler=cosine"),
        *("--output", tmp_path / "run", "--tensorboard"),
    )
    recipe = Recipe.load(tmp_path / "run" / "recipe.toml")
    assert (recipe.epochs, recipe.seed, recipe.batch_size) == (1, 7, 64)
    assert recipe.augmentation.flip == "random"
    assert (recipe.scheduler, recipe.scheduler_options) == ("cosine", {"warmup_epochs": 0.5})
    assert History.load(tmp_path / "run" / "history.json")[0].val_accuracy is not None
    logs = (tmp_path / "run" / "tensorboard").glob("events*")
    assert any(b"test/confusion" in log.read_bytes() for log in logs)


@pytest.mark.usefixtures("without_pictures")
def test_a_recipe_file_is_a_recipe(tmp_path: Path) -> None:
    path = Recipe(epochs=1, batch_size=500).save(tmp_path / "mine.toml")
    run("train", "simple", "--data", "sample", "--recipe", path, "--output", tmp_path / "run")
    assert Recipe.load(tmp_path / "run" / "recipe.toml") == Recipe.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "deepbn"), "did you mean 'deep_bn'?"),
        (("train", "simple", "--data", "sample", "--set", "epoch=2"), "did you mean 'epochs'?"),
        (("train", "simple", "--data", "sample", "--set", "epochs"), "--set takes NAME=VALUE"),
        (
            ("train", "simple", "--data", "sample", "--set", "optimizer_options.dense=yes"),
            "dense must be True or False; got 'yes'",
        ),
        (("train", "simple", "--data", "sample", "--set", "epochs=-1"), "epochs must be"),
        (
            ("train", "simple", "--data", "sample", "--set", 'groups={{"a":1,"a":2}}'),
            "key 'a' twice",
        ),
        (("train", "simple", "--data", "sample", "--recipe", "orig"), "did you mean 'original'?"),
        (("train", "simple", "--data", "sample", "--recipe", ""), "unknown recipe of 'simple': ''"),
        (("train", "simple", "--data", "cifar10.1"), "no 'train' images, only 'test' images"),
        (("train", "simple", "--data", "sample", "--val-size", "9999"), "--val-size must be"),
        (("train", "--resume", "nowhere"), "there is no checkpoint"),
        (
            ("train", "simple", "--resume", "x", "--set", "a=1"),
            "started with; leave out model, --set",
        ),
        (("evaluate", "lost.safetensors", "--data", "sample"), "there is no weights file"),
        (("evaluate", "resnet110", "--data", "sample"), "has no pretrained weights"),
        (("evaluate", "simple.safetensors", "--data", "sample"), "there is no weights file"),
        (("verify", "deep_bn.orig", "--data", "sample"), "did you mean 'original'?"),
        (("evaluate", "resnet18", "--data", "sample"), "has no default weights; it has original"),
        (("evaluate", "deep_bn.orig", "--data", "sample"), "did you mean 'original'?"),
        (("data", "--root", "{tmp}", "--no-download"), "no cifar-10-batches-py in"),
        (("train", "simple", "--data", "sample", "--device", "tpu9"), "cannot be used here"),
    ],
)
def test_bad_input_exits_1_with_the_reason(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(a.format(tmp=tmp_path) for a in arguments), code=1)
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_a_tag_follows_the_name_of_a_pretrained_model(tmp_path: Path) -> None:
    output = run("evaluate", "deep_bn.original", "--data", "sample", "--json").stdout
    stated = cifarzoo.read_metadata(cifarzoo.get_model_info("deep_bn").weights["original"].path)
    expected = stated["metadata"]["sample_accuracy"]["none"]
    assert json.loads(output)["accuracy"] == pytest.approx(expected, abs=0.004)
    names = ("deep_bn", "deep_bn.original")
    options = ("--views", "none", "-o", tmp_path / "page.html")
    compared = run("report", *names, "--data", "sample", *options).output
    assert all(f"deep_bn {tag}: " in compared for tag in ("default", "original"))


def test_wrong_usage_exits_2() -> None:
    run("train", "simple", "--seed", "x", code=2)
    run("evaluate", "x", "--tta", "twice", code=2)


def test_files_that_a_run_would_replace_are_kept(tmp_path: Path) -> None:
    mine = tmp_path / "recipe.toml"
    mine.write_text("# mine\nepochs = 1\n")
    arguments = ("train", "simple", "--data", "sample", "--recipe", mine, "--output", tmp_path)
    assert "(its recipe.toml)" in run(*arguments, code=1).stderr
    assert mine.read_text().startswith("# mine")
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("name", ["report.json", "confusion.png", "curves.png", "history.csv"])
def test_a_report_that_a_run_would_replace_is_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    arguments = ("train", "simple", "--data", "sample", "--output", tmp_path)
    assert f"(its {name})" in run(*arguments, code=1).stderr
    assert (tmp_path / name).read_text() == "mine"


def folder_of_pets(path: Path, parts: dict[str, tuple[str, ...]]) -> Path:
    """Pictures in PART/CLASS, twenty of each class."""
    generator = torch.Generator().manual_seed(0)
    for part, classes in parts.items():
        for name in classes:
            (path / part / name).mkdir(parents=True)
            for number in range(20):
                pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=generator)
                Image.fromarray(pixels.numpy()).save(path / part / name / f"{number}.png")
    return path


SHORT = ("--set", "epochs=1", "--set", "batch_size=20", "--device", "cpu")


def test_classes_that_only_the_test_images_have_are_noticed_before_training(tmp_path: Path) -> None:
    for number, (test, message) in enumerate(
        {
            ("bird", "cat", "dog"): "no training images of 'dog'",
            ("ant", "bird", "cat"): "not among the training images': 'ant' is unknown",
        }.items()
    ):
        parts = {"train": ("bird", "cat"), "test": test}
        pets = folder_of_pets(tmp_path / f"pets{number}", parts)
        arguments = ("train", "simple", "--data", f"folder:{pets}", *SHORT)
        assert message in run(*arguments, "--output", tmp_path / "run", code=1).stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_run_on_a_folder_goes_on_where_the_folder_lies_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_pets(tmp_path / "pets", {"train": ("bird", "cat"), "test": ("bird", "cat")})
    run("train", "simple", "--data", "folder:pets", *SHORT, "--output", "run")
    (tmp_path / "pets").rename(tmp_path / "moved")
    assert (
        f"there is no folder {tmp_path / 'pets'}" in run("train", "--resume", "run", code=1).stderr
    )
    again = run("train", "--resume", "run", "--root", "moved")
    assert "nothing was trained" in again.stderr
    (tmp_path / "moved" / "train" / "cat" / "0.png").unlink()
    assert "differ" in run("train", "--resume", "run", "--root", "moved", code=1).stderr


@pytest.mark.usefixtures("without_pictures")
def test_the_command_that_continues_a_run_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text("")
    arguments = ("--import", "my_models", "train", "simple", "--data", "sample", *SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["cifarzoo.cli.train"], "_keep_reports", interrupt)
        stopped = run(*arguments, "--root", ".", "--no-download", "--output", "run", code=130)
    command = "cifarzoo --import my_models train --resume run"
    assert f"{command} --root . --no-download --device cpu" in " ".join(stopped.stderr.split())
    assert "report.json" in run("train", "--resume", "run").stdout


def test_a_report_is_saved_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.echo", lambda *texts, **options: 1 / 0)  # nobody listens
    run("evaluate", "simple", "--data", "sample", "--save", tmp_path / "r.json", code=1)
    assert (tmp_path / "r.json").exists()


def test_a_folder_for_the_hub_is_measured(tmp_path: Path) -> None:
    network = cifarzoo.create_model("simple", pretrained=True)
    cifarzoo.save_pretrained(network, tmp_path / "pub", license="mit")
    assert "accuracy" in run("evaluate", tmp_path / "pub", "--data", "sample").stdout


def test_evaluate_takes_the_checkpoint_of_a_run(trained: Path) -> None:
    of_run, of_weights = (
        json.loads(run("evaluate", path, "--data", "sample", "--json").stdout)
        for path in (trained / "checkpoint.pt", trained)
    )
    assert of_run["accuracy"] == of_weights["accuracy"]


def test_info_says_which_shortcuts_are_counted() -> None:
    output = " ".join(run("info", "resnet20").output.split())
    assert "with padded shortcuts" in output
    assert "269,722; 272,474 with shortcut='conv'" in output


def test_resume_takes_the_checkpoint_itself(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "recipe.toml").write_text("epochs = 1")
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    error = run("train", "--resume", tmp_path / "checkpoint.pt", code=1).stderr
    assert "run.json is damaged" in error.replace("\n", " ")


def test_a_finished_run_is_not_overwritten(trained: Path) -> None:
    before = (trained / "weights.safetensors").read_bytes()
    again = ("train", "simple", "--data", "sample", "--output", trained)
    assert "holds a run already" in run(*again, code=1).stderr
    assert (trained / "weights.safetensors").read_bytes() == before


@pytest.mark.usefixtures("without_pictures")
def test_resume_takes_another_file_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("train", "simple", "--data", "sample", "--set", "epochs=1", "--output", folder)
    earlier = shutil.copy(folder / "checkpoint.pt", folder / "earlier.pt")
    assert "would replace" in run("train", "--resume", earlier, code=1).stderr
    (folder / "checkpoint.pt").unlink()
    assert "run folder" in run("train", "--resume", earlier).stderr
    assert (folder / "run.json").exists()


def test_a_run_without_a_checkpoint_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    arguments = ("train", "simple", "--data", "sample", "--output", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(cifarzoo.Trainer, "fit", fail)
        run(*arguments, code=1)
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # and then it was killed
    (tmp_path / "run" / "run.json").write_text("{}")
    Recipe().save(tmp_path / "run" / "recipe.toml")
    refused = run(*arguments, code=1).stderr
    assert "if it ended, remove its run.json, recipe.toml, or choose" in refused


def test_resume_refuses_other_images(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    note = tmp_path / "run" / "run.json"
    facts = json.loads(note.read_text())
    assert facts["command"].startswith("cifarzoo")
    assert set(facts["versions"]) == {"cifarzoo", "torch", "python"}
    note.write_text(json.dumps({**facts, "val_size": 100}))
    errors = run("train", "--resume", tmp_path / "run", code=1).stderr
    assert "the images found here differ from those that" in errors


def test_a_run_without_a_model_or_with_two_things_to_measure_is_refused() -> None:
    assert "name the model" in run("train", code=1).stderr
    both = ("train", "simple", "--data", "sample", "--val-size", "100", "--watch-test")
    assert "give one of them" in run(*both, code=1).stderr


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    arguments = ("train", "simple", "--data", "sample", "--output", tmp_path / "run")
    assert "drop_last" in run(*arguments, "--set", "batch_size=5000", code=1).stderr
    assert not (tmp_path / "run").exists()
    sizes = ("--set", "image_sizes=[[0, 24]]")
    assert "cannot" in run(*arguments, *sizes, code=1).stderr
    assert not (tmp_path / "run").exists()


def test_no_model_matches() -> None:
    assert "no model matches 'foo*'" in run("models", "foo*").stderr


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    error = run("evaluate", folder, code=1).stderr
    assert f"finish it with cifarzoo train --resume '{folder}'" in error


def test_a_run_is_evaluated_on_the_data_it_names(trained: Path) -> None:
    assert "cifar10 sample test" in run("evaluate", trained).stdout
    assert "a report is saved as" in run("evaluate", trained, "--save", "x.xyz", code=1).stderr


@pytest.mark.usefixtures("without_pictures")
def test_train_builds_the_network_of_the_recipe(tmp_path: Path) -> None:
    small = ("--set", "epochs=1", "--set", "batch_size=500", "--set", "image_sizes=[[0,16]]")
    narrow = ("--set", "model_options.widths=[24,32,48]", "--data", "sample")
    run("train", "airbench94", "--recipe", "fast94", *small, *narrow, "--output", tmp_path)
    assert cifarzoo.get_card(cifarzoo.load_model(tmp_path)).options == {"widths": [24, 32, 48]}


def test_a_weights_file_says_what_it_is_evaluated_on(trained: Path, tmp_path: Path) -> None:
    alone = shutil.copy(trained / "weights.safetensors", tmp_path)
    assert "cifar10 sample test" in run("evaluate", alone).stdout
    assert "cifar10 sample test" in run("evaluate", tmp_path).stdout  # a folder without run.json


def test_folders_may_write_class_names_in_capitals(tmp_path: Path) -> None:
    sample = cifarzoo.load_sample("test").subset(range(20))
    for number, (pixels, label) in enumerate(zip(sample.images, sample.labels, strict=True)):
        folder = tmp_path / sample.classes[label].capitalize()
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    assert "taken by the names" in run("evaluate", "simple", "--data", f"folder:{tmp_path}").stdout


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_weights_for_other_classes_are_not_measured(command: str, tmp_path: Path) -> None:
    images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4) % 2
    pets = cifarzoo.create_model("simple", num_classes=2)
    recipe = Recipe(epochs=1, batch_size=2)
    cifarzoo.Trainer(pets, recipe).fit(cifarzoo.ImageSet(images, labels, ("cat", "dog")))
    path = cifarzoo.save_weights(pets, tmp_path / "pets.safetensors")
    refused = run(command, path, "--data", "sample", code=1)
    assert "(cat, dog) are not those of the image set 'sample'" in refused.stderr


def test_test_images_set_no_learning_rate() -> None:
    plateau = ("--data", "sample", "--set", "scheduler=plateau", "--watch-test")
    assert "use --val-size instead" in run("train", "simple", *plateau, code=1).stderr


@pytest.mark.usefixtures("without_pictures")
def test_temperature_is_fitted_on_what_was_held_out(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    short = ("--data", "sample", "--set", "epochs=1", "--output", folder)
    run("train", "simple", *short, "--val-size", "400")
    network = cifarzoo.load_model(folder)
    _, held_out = cifarzoo.load_sample("train").split(400)
    expected = cifarzoo.calibrate(network, held_out)
    found = json.loads(run("calibrate", folder, "--json").stdout)
    assert found["temperature"] == expected.temperature
    text = run("calibrate", folder).stdout
    assert f"evaluate '{folder}' --temperature {expected.temperature:.4f}" in text
    assert (
        f"evaluate '{folder}' --tta flip --temp" in run("calibrate", folder, "--tta", "flip").stdout
    )
    cooled = run("evaluate", folder, "--temperature", found["temperature"], "--json").stdout
    assert json.loads(cooled)["temperature"] == found["temperature"]
    picture = tmp_path / "picture.png"
    Image.fromarray(held_out.images[0].permute(1, 2, 0).numpy()).save(picture)
    sharp, flat = (
        json.loads(run("predict", folder, picture, "--temperature", value, "--json").stdout)
        for value in (0.1, 10)
    )
    assert sharp[0]["label"] == flat[0]["label"]
    assert sharp[0]["probability"] > flat[0]["probability"]
    # of a run that held none out
    refused = run("calibrate", trained, code=1).stderr
    assert "was trained on all training images" in refused
    assert "the same recipe and --val-size 5000" in refused


@pytest.mark.slow
def test_interrupted_run_exits_130_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "cifarzoo", "train", "simple", "--data", "sample"]
    changes = ["--set", "epochs=8", "--set", "batch_size=50", "--precision", "float32"]

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*arguments, *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    first = start(*changes, "--output", str(tmp_path / "stopped"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopped" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "continue with: cifarzoo train --resume" in errors
    assert not (tmp_path / "stopped" / "weights.safetensors").exists()
    second = subprocess.Popen(
        [*arguments[:4], "--resume", str(tmp_path / "stopped")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    third = start(*changes, "--output", str(tmp_path / "whole"))
    for process in (second, third):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    models = [
        cifarzoo.load_model(tmp_path / name / "weights.safetensors")
        for name in ("stopped", "whole")
    ]
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)


def test_report_writes_a_page_about_several_runs(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "other")
    page = tmp_path / "pages" / "report.html"
    result = run("report", trained, tmp_path / "other", "-o", page)
    assert f"written: {page}" in result.stdout
    text = page.read_text()
    assert "simple (other)" in text
    assert "cifar10 sample test" in text
    assert "an .html file" in run("report", trained, "-o", tmp_path / "x.pdf", code=1).stderr


@pytest.mark.usefixtures("without_pictures")
def test_a_teacher_stays_the_same_for_a_whole_run(
    tmp_path: Path, give_weights: Callable[..., None]
) -> None:
    def teach(seed: int) -> str:
        path = tmp_path / f"{seed}.safetensors"
        cifarzoo.save_weights(cifarzoo.create_model("simple", seed=seed), path)
        info = WeightsInfo(path, file_digest(path))
        give_weights("simple", default=info)
        return info.sha256

    sha256 = teach(1)
    folder = tmp_path / "run"
    options = ("--set", "teacher=simple", "--set", "epochs=1", "--data", "sample")
    run("train", "simple", *options, "--output", folder)
    metadata = cifarzoo.read_metadata(folder / "weights.safetensors")["metadata"]
    assert metadata["teacher_sha256"] == sha256
    teach(2)
    result = run("train", "--resume", folder, code=1)
    assert "the weights of the teacher 'simple' differ from those" in result.stderr


@pytest.mark.usefixtures("without_pictures")
def test_a_teacher_may_be_any_weights_of_a_model(
    tmp_path: Path, give_weights: Callable[..., None]
) -> None:
    path = tmp_path / "other.safetensors"
    cifarzoo.save_weights(cifarzoo.create_model("simple", seed=5), path)
    give_weights("simple", other=WeightsInfo(path, file_digest(path)))
    folder = tmp_path / "run"
    options = ("--set", "epochs=1", "--data", "sample")
    run("train", "simple", "--set", "teacher=simple.other", *options, "--output", folder)
    content = cifarzoo.read_metadata(folder / "weights.safetensors")
    assert content["metadata"]["teacher_sha256"] == file_digest(path)
    another = ("--set", "teacher=simple.another", "--output", tmp_path / "second")
    result = run("train", "simple", *options, *another, code=1)
    assert "unknown weights of 'simple': 'another'" in result.stderr


@pytest.mark.parametrize(("word", "value"), [("True", True), ("False", False), ("false", False)])
def test_words_of_python_are_values_too(word: str, value: Any) -> None:
    spec = cifarzoo.get_model_info("simple")
    recipe = _choose_recipe(spec, None, [f"optimizer_options.dense={word}"], None)
    assert recipe.optimizer_options["dense"] is value
    with pytest.raises(ArgumentError, match="plain numbers, strings and lists; got None"):
        _choose_recipe(spec, None, ["optimizer_options.dense=None"], None)


@pytest.mark.parametrize("field", ["scheduler", "optimizer"])
def test_options_belong_to_what_is_set_beside_them_in_any_order(field: str) -> None:
    spec = cifarzoo.get_model_info("simple")
    name, options = {
        "scheduler": ("cosine", '{"warmup_epochs": 2}'),
        "optimizer": ("momentum", '{"dampening": 0.1}'),
    }[field]
    changes = [f"{field}={name}", f"{field}_options={options}"]
    for given in (changes, changes[::-1]):
        recipe = _choose_recipe(spec, None, given, None)
        assert getattr(recipe, field) == name
        assert dict(getattr(recipe, f"{field}_options")) == json.loads(options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.05", 0.05),
        (".05", 0.05),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("5.e-2", 0.05),
        (".5E-1", 0.05),
        ("1e-1", 0.1),
        ("+1", 1),
    ],
)
def test_numbers_are_set_as_python_writes_them(text: str, value: float) -> None:
    spec = cifarzoo.get_model_info("simple")
    assert _choose_recipe(spec, None, [f"learning_rate={text}"], None).learning_rate == value


def test_words_are_set_as_they_are() -> None:
    spec = cifarzoo.get_model_info("simple")
    assert _choose_recipe(spec, None, ["teacher=a.b"], None).teacher == "a.b"
    for text in (".", "-", "+", "1.2.3", "007", "1_000"):
        with pytest.raises(ArgumentError, match="learning_rate must be"):
            _choose_recipe(spec, None, [f"learning_rate={text}"], None)
