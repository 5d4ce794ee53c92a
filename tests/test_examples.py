"""The example programs run, on the sample, and write what they say they write."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

import cifarzoo

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.py"))


def name_of(program: Path) -> str:
    return program.relative_to(EXAMPLES).with_suffix("").as_posix()


@pytest.fixture(autouse=True)
def _isolated(own_registries: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an example registers is forgotten; the full data set is not found."""
    monkeypatch.setenv("CIFARZOO_DATA", str(tmp_path / "no-data"))


def run(
    name: str, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run one example as a program; return what it printed, after checking the files it names."""
    program = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(program), str(output)])
    runpy.run_path(str(program), run_name="__main__")
    printed = capsys.readouterr().out
    named = [Path(path) for path in re.findall(r"^written: (.+)$", printed, re.MULTILINE)]
    assert named
    for path in named:
        assert path.is_relative_to(output)
        assert path.stat().st_size > 0
    return printed


def test_every_example_is_tested() -> None:
    tested = re.findall(r'run\(\s*"([\w/]+)"', Path(__file__).read_text(encoding="utf-8"))
    assert sorted(map(name_of, PROGRAMS)) == sorted(set(tested))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"Run: python examples/{name_of(path)}.py [output folder]" in text
    assert f'"build/examples/{name_of(path)}"' in text


def test_quickstart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("quickstart", tmp_path, monkeypatch, capsys)
    assert "first test image: a cat, taken for a " in printed
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") in printed
    for name in ("confusion.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    model = cifarzoo.load_model(tmp_path / "simple.safetensors")
    accuracy = cifarzoo.evaluate(model, cifarzoo.load_sample("test")).accuracy
    assert accuracy > 0.2  # twice as good as guessing, or nothing was learned
    assert f"{accuracy:.2%}" in printed


@pytest.mark.slow
def test_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("train", tmp_path, monkeypatch, capsys)
    (folder,) = tmp_path.glob("*sample*")
    recipe = cifarzoo.Recipe.load(folder / "recipe.toml")
    rows = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + recipe.epochs
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    facts = cifarzoo.read_metadata(folder / "weights.safetensors")["metadata"]
    assert facts["recipe"] == recipe.to_dict()
    assert {"history", "machine", "data_sha256"} <= facts.keys()  # as the Trainer wrote it
    assert f"{report['accuracy']:.2%}" in printed
    # a second start finds nothing left to do, and comes to the same result
    again = run("train", tmp_path, monkeypatch, capsys)
    assert again.splitlines()[-1] == printed.splitlines()[-1]
    assert (folder / "history.csv").read_text(encoding="utf-8").splitlines() == rows


@pytest.mark.slow
def test_a_scheduler_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/scheduler", tmp_path, monkeypatch, capsys)
    rates = {
        name: [float(rate) for rate in re.findall(r"\d[\d.e-]*", line)]
        for name, line in re.findall(r"^(\w+): learning rate .*?epoch (.*)$", printed, re.MULTILINE)
    }
    half = len(rates["restarts"]) // 2
    assert rates["restarts"][:half] == rates["restarts"][half:]
    assert rates["restarts"][0] > rates["restarts"][half - 1]
    assert max(rates["drop_once"]) == pytest.approx(10 * min(rates["drop_once"]))
    assert "drop_once" in cifarzoo.list_schedulers()


@pytest.mark.slow
def test_a_network_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/network", tmp_path, monkeypatch, capsys)
    assert "tiny" in printed.splitlines()[0]
    spec = cifarzoo.get_model_info("tiny")
    counted = cifarzoo.summary(cifarzoo.create_model("tiny"))
    assert (spec.parameters, spec.macs) == (counted.total_params, counted.total_mult_adds)
    assert cifarzoo.read_metadata(tmp_path / "tiny.safetensors")["card"]["name"] == "tiny"


@pytest.mark.slow
def test_evaluate_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("evaluate_and_plot", tmp_path, monkeypatch, capsys)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    report = cifarzoo.EvaluationReport.from_dict(content)
    assert report.num_images == sum(map(sum, report.confusion)) == 1_000
    assert f"accuracy {report.accuracy:.1%}" in printed
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == str(report)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == report.to_markdown()
    hardest = min(report.classes, key=lambda score: score.recall).name
    assert f"hardest class: {hardest}" in printed
    for name in ("confusion.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.slow
def test_pretrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ["deep_bn", "simple"]  # tests/test_verification.py takes all
    monkeypatch.setattr(cifarzoo, "list_models", lambda **options: some)
    printed = run("pretrained", tmp_path, monkeypatch, capsys)
    for name in some:
        for tag, info in cifarzoo.get_model_info(name).weights.items():
            passed = re.search(rf"^{name} {tag}: .*: passed$", printed, re.MULTILINE)
            is_shown = info.path.is_file() and info.facts["data"] == "cifar10"
            assert (passed is not None) == is_shown


@pytest.mark.slow
def test_an_optimizer_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/optimizer", tmp_path, monkeypatch, capsys)
    losses = [float(loss) for loss in re.findall(r"\d\.\d+", printed.splitlines()[0])]
    assert losses[-1] < losses[0]
    assert "sign_sgd" in cifarzoo.list_optimizers()
    assert cifarzoo.Recipe.load(tmp_path / "recipe.toml").optimizer == "sign_sgd"


@pytest.mark.slow
def test_an_image_set_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/dataset", tmp_path, monkeypatch, capsys)
    assert printed.startswith("stripes test: ")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["accuracy"] > 0.95
    assert "stripes" in cifarzoo.list_datasets()


@pytest.mark.slow
def test_an_augmentation_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/augmentation", tmp_path, monkeypatch, capsys)
    assert "dim, " in printed
    augmentation = cifarzoo.Recipe.load(tmp_path / "recipe.toml").augmentation
    assert augmentation.policies == ["trivial_augment", {"name": "dim", "darkest": 0.6}]


@pytest.mark.slow
def test_a_loss_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run("extend/loss", tmp_path, monkeypatch, capsys)
    assert re.search(r"^focal: \d epochs$", printed, re.MULTILINE)
    assert re.search(r"^weighted: \d epochs$", printed, re.MULTILINE)


@pytest.mark.slow
def test_a_metric_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("extend/metric", tmp_path, monkeypatch, capsys)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["metrics"]["told from a vehicle"] > 0.9
    report = cifarzoo.EvaluationReport.from_dict(content)
    assert "told from a vehicle  0.9" in str(report)
