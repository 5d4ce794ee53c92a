"""Commands beside those that train, measure and predict: compare, export, recipes, completion."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import run

import cifarzoo
from cifarzoo import Recipe


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("weights")
    first, second = (
        cifarzoo.save_weights(
            cifarzoo.create_model("simple", seed=seed), folder / f"{seed}.safetensors"
        )
        for seed in (0, 1)
    )
    return first, second


@pytest.mark.parametrize(
    ("weights", "labels"),
    [
        (["simple", "resnet20"], ["simple", "resnet20"]),
        (["simple", "simple.original"], ["simple default", "simple original"]),
        (["simple", "FOLDER/0.safetensors"], ["simple default", "simple (0.safetensors)"]),
        (
            ["FOLDER/a/w.safetensors", "FOLDER/b/w.safetensors"],
            ["simple (a/w.safetensors)", "simple (b/w.safetensors)"],
        ),
        (["simple", "simple.default"], ["simple (simple)", "simple (simple.default)"]),
    ],
)
def test_labels_are_the_shortest_that_tell_networks_apart(
    weights: list[str], labels: list[str], networks: tuple[Path, Path]
) -> None:
    folder = networks[0].parent
    for name in ("a", "b"):
        (folder / name).mkdir(exist_ok=True)
        shutil.copy(networks[0], folder / name / "w.safetensors")
    paths = [each.replace("FOLDER", str(folder)) for each in weights]
    (found,) = json.loads(run("compare", *paths, "--data", "sample", "--json").stdout)
    assert [each.replace(os.sep, "/") for each in found["names"]] == labels


def test_compare_says_what_python_says(networks: tuple[Path, Path]) -> None:
    """Two files, one of which was evaluated before."""
    test = cifarzoo.load_sample("test")
    reports = [cifarzoo.evaluate(cifarzoo.load_model(path), test) for path in networks]
    expected = cifarzoo.compare(*reports)
    (found,) = json.loads(run("compare", *networks, "--data", "sample", "--json").stdout)
    assert found["names"] == ["simple (0.safetensors)", "simple (1.safetensors)"]
    assert found["difference"] == expected.difference
    assert found["only_first"] == expected.only_first
    saved = reports[0].save(networks[0].with_name("first.json"))
    text = run("compare", saved, networks[1], "--data", "sample").stdout
    low, high = (100 * end for end in expected.difference_interval)
    assert f"{100 * expected.difference:+.2f} points" in text
    assert f"95 % interval {low:+.2f} to {high:+.2f}" in text
    first, second = expected.only_first, expected.only_second
    assert f"only the first is right on {first:,} images, only the second on {second:,}" in text
    assert max(map(len, text.splitlines())) <= 100


def test_all_are_compared_with_the_first(networks: tuple[Path, Path]) -> None:
    found = json.loads(run("compare", *networks, "deep_bn", "--data", "sample", "--json").stdout)
    assert [each["names"] for each in found] == [
        ["simple (0.safetensors)", "simple (1.safetensors)"],
        ["simple (0.safetensors)", "deep_bn"],
    ]


@pytest.fixture(scope="module")
def saved(networks: tuple[Path, Path]) -> Path:
    """A folder with reports: of the sample, of two views, of a loader's images, of other images."""
    folder = networks[0].parent
    report = cifarzoo.evaluate(cifarzoo.load_model(networks[0]), cifarzoo.load_sample("test"))
    for name, changes in {
        "plain": {},
        "flip": {"tta": "flip"},
        "loader": {"data": "batches"},
        "other": {"data": "photos test"},
        "turned": {"pixels_sha256": "0" * 64},
    }.items():
        dataclasses.replace(report, **changes).save(folder / f"{name}.json")
    return folder


@pytest.mark.parametrize("second", ["plain.json", "loader.json"])
def test_reports_need_no_images(second: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    monkeypatch.setenv("CIFARZOO_DATA", "nosuch")
    result = run("compare", "plain.json", second)
    assert "test-time augmentation: none" in result.stdout
    assert "these images do not show which model is better" in result.stdout


def test_models_are_measured_with_the_views_of_the_reports(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    (found,) = json.loads(
        run("compare", "flip.json", "1.safetensors", "--data", "sample", "--json").stdout
    )
    network = cifarzoo.load_model("1.safetensors")
    expected = cifarzoo.evaluate(network, cifarzoo.load_sample("test"), tta="flip")
    assert found["accuracy"][1] == expected.accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plain.json", "flip.json"), "flip.json was measured with --tta flip, and plain.json"),
        (("plain.json", "other.json"), "other.json was measured on 'photos test', and plain.json"),
        (
            ("plain.json", "flip.json", "simple", "--data", "sample"),
            "flip.json was measured with --tta flip, and simple with --tta none",
        ),
        (
            ("plain.json", "simple", "--tta", "flip", "--data", "sample"),
            "plain.json was measured with --tta none, and simple with --tta flip",
        ),
        (
            ("other.json", "simple", "--data", "sample"),
            "other.json was measured on 'photos test', and simple on 'cifar10 sample test'",
        ),
        (("plain.json", "turned.json"), "sets called 'cifar10 sample test' whose images differ"),
        (
            ("turned.json", "simple", "--data", "sample"),
            "turned.json and simple were measured on sets called",
        ),
        (("plain.json", "plain.json", "--tta", "none"), "as they are; leave out --tta, or"),
        (
            ("plain.json", "plain.json", "--data", "sample", "--no-download", "--root", "."),
            "as they are; leave out --data, --root, --download, or",
        ),
    ],
)
def test_reports_are_compared_with_what_was_measured_alike(
    arguments: tuple[str, ...], message: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    assert message in run("compare", *arguments, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simple",), "name two or more models"),
        (("simple", "lost.json"), "cannot read a report from lost.json"),
        (("list.json", "dict.json"), "list.json: it is no report of cifarzoo, but a list"),
        (("dict.json", "list.json"), "dict.json: it is no report of cifarzoo: model is missing"),
        (("deep.json", "simple"), "cannot read a report from deep.json: it is nested too deeply"),
        (("later.json", "simple"), "this version reads up to"),
        (("simple", "nosuch"), "unknown model 'nosuch'"),
    ],
)
def test_what_cannot_be_compared_is_explained(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text('[{"epoch": 1}]')  # as the history of a run
    Path("dict.json").write_text("{}")
    Path("deep.json").write_text("[" * 100_000)
    Path("later.json").write_text('{"format": 99}')
    error = run("compare", *arguments, "--data", "sample", code=1).stderr
    assert message in error
    assert not any(f"--save {name}" in error for name in arguments)  # it would be replaced


def test_a_set_of_test_images_alone_is_checked(own_registries: None) -> None:
    @cifarzoo.register_dataset("later", splits=("test",))
    def later(split: str, **ignored: object) -> cifarzoo.ImageSet:
        return cifarzoo.load_sample("test")

    assert run("data", "later").stdout == "later test: 1,000 images, 10 classes, intact\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export_writes_what_another_runtime_computes_alike(
    networks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    assert "written: simple.onnx" in run("export", networks[0]).stdout
    path = tmp_path / "new/mine.onnx"
    run("export", networks[0], "--output", path)
    assert path.stat().st_size == Path("simple.onnx").stat().st_size
    images = cifarzoo.load_sample("test").images[:8]
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    shares = cifarzoo.probabilities(cifarzoo.load_model(networks[0]), images, precision="float32")
    np.testing.assert_allclose(torch.tensor(logits).softmax(1), shares, atol=1e-4)
    run("export", networks[0], "--output", "mine.pt2")
    logits = torch.export.load("mine.pt2").module()(images)
    np.testing.assert_allclose(logits.detach().softmax(1), shares, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export_names_the_file_by_the_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "written: simple-cifar100.onnx" in run("export", "simple.cifar100").stdout


def test_a_file_that_nobody_named_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in (("simple.onnx", "export"), ("report.html", "report")):
        Path(name).write_text("mine")
        assert "replace it, or name another" in run(command, "simple", code=1).stderr
        assert Path(name).read_text() == "mine"


def test_export_refuses_what_it_cannot_write() -> None:
    assert "must be an .onnx or a .pt2 file" in run("export", "simple", "-o", "x.pt", code=1).stderr
    program = ("export", "simple", "-o", "x.pt2", "--opset", 18)
    assert "--opset applies to .onnx files" in run(*program, code=1).stderr
    assert "at least 1" in run("export", "simple", "--image-size", 0, code=1).stderr
    assert "needs 32x32 images" in run("export", "simple", "--image-size", 48, code=1).stderr


def test_a_recipe_is_printed_as_train_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for name in ("deep_bn", "airbench94"):
        spec = cifarzoo.get_model_info(name)
        for recipe in spec.recipes:
            result = run("recipes", name, recipe)
            path.write_text(result.stdout)
            assert Recipe.load(path) == spec.get_recipe(recipe)
            assert result.stdout == spec.get_recipe(recipe).to_toml()
            assert "other recipes of" in result.stderr
    asked = json.loads(run("recipes", "deep_bn", "--json").stdout)
    assert Recipe.from_dict(asked) == cifarzoo.get_model_info("deep_bn").recipe
    assert "did you mean 'original'?" in run("recipes", "deep_bn", "orig", code=1).stderr


def test_recipes_are_listed_by_model() -> None:
    lines = dict(line.split(maxsplit=1) for line in run("recipes").stdout.splitlines())
    assert list(lines) == cifarzoo.list_models()
    assert lines["airbench94"] == "default, cifar100, fast94, reference"
    assert json.loads(run("recipes", "--json").stdout)["deep_bn"] == ["default", "original"]


PROGRAM = "from cifarzoo.cli import main; main()"


def command(*arguments: str, home: Path, **more: str) -> str:
    """Run the program itself, as a shell does."""
    environ = {**os.environ, "HOME": str(home), "SHELL": "/bin/bash", **more}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout


def complete(words: str, home: Path) -> list[str]:
    """What a shell offers for the last of ``words``."""
    more = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return command(home=home, **more, _CIFARZOO_COMPLETE="complete_bash").split()


def test_completion_knows_commands_and_models(tmp_path: Path) -> None:
    assert complete("cifarzoo re", tmp_path) == ["recipes", "report"]
    assert complete("cifarzoo info deep", tmp_path) == ["deep_bn"]
    assert complete("cifarzoo recipes vgg1", tmp_path) == cifarzoo.list_models("vgg1*")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_after_install_completion(tmp_path: Path) -> None:
    """The shell is told by a process that looks like one, since a test has none around it."""
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)} --install-completion; true"
    environ = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", script], env=environ, timeout=120, check=True)
    (installed,) = (tmp_path / ".bash_completions").iterdir()
    assert str(installed) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    asked = f"source {shlex.quote(str(installed))}; complete -p cifarzoo"
    found = subprocess.run(
        ["bash", "-c", asked], env=environ, capture_output=True, text=True, check=True
    )
    assert "-F _cifarzoo_completion cifarzoo" in found.stdout


def test_every_model_of_the_zoo_is_offered() -> None:
    from cifarzoo.cli.application import complete_model

    assert complete_model("") == cifarzoo.list_models()


def test_a_recipe_for_an_image_set_wants_this_set() -> None:
    error = run("train", "simple", "--recipe", "cifar100", code=1).stderr
    assert "the recipe 'cifar100' is for the image set of this name; add --data cifar100" in error


def test_a_model_with_a_tag_says_how_python_loads_it() -> None:
    error = run("info", "simple.cifar100", code=1).stderr
    assert "loaded by create_model('simple', pretrained='cifar100')" in error


def test_layers_of_weights_are_shown_as_those_of_models(networks: tuple[Path, Path]) -> None:
    assert run("summary", "simple.original").stdout == run("summary", "simple").stdout
    for arguments, problem in (
        (["summary", "simple.original", "--num-classes", "3"], "have the classes that they have"),
        (["info", str(networks[0])], "info takes the name of a model"),
    ):
        assert problem in " ".join(run(*arguments, code=1).output.split())
