"""The documentation covers what there is, and the examples in docstrings are right."""

from __future__ import annotations

import doctest
import html
import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from kinds import each_kind_slowly, hollow

import cifarzoo
from cifarzoo import cli
from cifarzoo.zoo import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def modules_with_examples() -> list[str]:
    """Dotted names of the library's modules whose docstrings hold examples."""
    source = ROOT / "src"
    return [
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(source.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """docs/pages.py, which makes the generated pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("pages")


@pytest.fixture(scope="module")
def reference() -> str:
    """The text of all reference pages."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.usefixtures("own_registries")  # an example may register something
@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_run(
    module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert results.failed == 0
    assert results.attempted > 0


@pytest.mark.parametrize("name", cifarzoo.__all__)
def test_every_public_name_is_in_the_reference(name: str, reference: str) -> None:
    assert re.search(rf"\bcifarzoo\.{re.escape(name)}\b(?!\.)", reference)


def test_every_reference_page_is_reachable() -> None:
    index = (DOCS / "reference/index.md").read_text(encoding="utf-8")
    for page in (DOCS / "reference").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index


def test_every_command_has_its_help_in_the_page(pages: ModuleType) -> None:
    text = pages.command_line()
    registered = typer.main.get_command(cli.app)
    names = list(registered.commands)
    assert {"train", "evaluate", "predict"} <= set(names)
    for name in names:
        assert f"## cifarzoo {name}\n\n```text\nUsage: cifarzoo {name} " in text
        for parameter in registered.commands[name].params:
            shown = max(parameter.opts, key=len)
            assert shown in text or f"[{shown.upper()}]" in text  # as typer 0.26 writes
    assert cli.app.rich_markup_mode == "markdown"


@each_kind_slowly
def test_every_model_has_a_page(name: str, pages: ModuleType) -> None:
    spec = cifarzoo.get_model_info(name)
    model = hollow(name)
    with torch.device("meta"):
        text = pages.model_page(name)
    assert text.startswith(f"# {name}\n\n{spec.description}\n")
    for fact in (spec.source, f"{spec.parameters:,}", f"{spec.macs:,}"):
        assert fact in text
    is_ours = type(model).__module__.startswith("cifarzoo.")
    assert ("\n## The network\n" in text) == is_ours
    for recipe in spec.recipes:
        assert f"\n### {recipe}\n\n```toml\nepochs = " in text
    assert f"\n\n{model}\n```\n" in text
    assert f"\nMACs        {spec.macs:,} for one image\n" in text


def test_recipes_on_a_page_can_be_loaded(pages: ModuleType, tmp_path: Path) -> None:
    blocks = re.findall(r"### (\w+)\n\n```toml\n(.*?)```", pages.model_page("deep_bn"), re.DOTALL)
    recipes = cifarzoo.get_model_info("deep_bn").recipes
    assert [name for name, _ in blocks] == list(recipes)
    for name, text in blocks:
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        assert cifarzoo.Recipe.load(path) == recipes[name]


def test_the_table_of_models_links_every_page(pages: ModuleType) -> None:
    linked = re.findall(r"\(generated/(\w+)\.md\)", pages.model_table())
    assert linked == cifarzoo.list_models()


@pytest.mark.usefixtures("own_registries")
def test_pretrained_weights_show_the_accuracy_in_their_file(
    pages: ModuleType, tmp_path: Path
) -> None:
    metadata = {"test_accuracy": {"none": 0.125, "flip": 0.25}}
    model = cifarzoo.create_model("simple")
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata=metadata)
    info = cifarzoo.WeightsInfo(path, "0123456789abcdef")

    @cifarzoo.register_model(
        description="d", source="s", parameters=1, macs=1, weights={"default": info}
    )
    def weighted(*, num_classes: int = 10) -> object:
        return cifarzoo.create_model("simple", num_classes=num_classes)

    assert (
        "| `default` | 12.50% | 25.00% |  |  | `cifarzoo` | `0123456789ab` |"
        in pages.model_page("weighted")
    )


def test_results_are_means_over_the_seeds_in_the_files(
    pages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds = [
        {
            "test_accuracy": {"none": share, "flip_shift": 0.75},
            "train_seconds": 300,
            "machine": {"bfloat16": share == 0.6},
        }
        for share in (0.5, 0.6)
    ]
    model = cifarzoo.create_model("simple")
    metadata = {"seeds": seeds, "val_size": 5000}
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata=metadata)
    info = cifarzoo.WeightsInfo(path, "0123456789abcdef")
    spec = cifarzoo.get_model_info("simple")
    changed = registry.ModelSpec(**{**vars(spec), "weights": {"default": info}})
    monkeypatch.setattr(registry, "_SPECS", {"simple": changed})
    row = pages.results_table().splitlines()[-1]
    assert row == (
        "| `simple` | 54 | 55.00 ± 7.07 | 75.00 ± 0.00 | 2 | 45,000 |  | 80.09 k | 723.2 k | 5 min "
        "| bfloat16, float32 |"
    )


def test_every_pretrained_network_has_its_curves_and_confusion_matrix(pages: ModuleType) -> None:
    trained, results = (importlib.import_module(name) for name in ("trained", "results"))
    for name, tag in results.shown_weights():
        details = json.loads((trained.DETAILS / f"{name}-{tag}.json").read_text(encoding="utf-8"))
        facts = cifarzoo.get_model_info(name).weights[tag].facts
        recipe = cifarzoo.get_model_info(name).get_recipe(facts["recipe"])
        assert len(details["train_loss"]) == recipe.epochs
        hits = sum(row[label] for label, row in enumerate(details["confusion"]))
        # in float32, on whatever machine: as near as `verify` wants it
        shares = [seed["test_accuracy"]["none"] for seed in facts["seeds"]]
        assert min(abs(hits / 10_000 - share) for share in shares) <= 0.001
    drawn = trained.pictures(cifarzoo.get_model_info("simple"))
    assert {name.rpartition("-")[2] for name in drawn} == {"curves.svg", "confusion.svg"}
    page = pages.model_page("simple")
    assert all(f"({name})" in page for name in drawn)
    assert "cifarzoo train simple --val-size 0 --seed 0" in page


def test_the_ten_best_are_those_of_the_frontier_then_by_accuracy(results: ModuleType) -> None:
    shown, best = results.shown_weights(), results.ten_best()
    assert len(best) == min(10, len(shown)) or len(best) > 10
    specs = [(cifarzoo.get_model_info(name), tag) for name, tag in shown]
    points = {
        (spec.name, tag): (spec.macs, results.mean_accuracy(spec.weights[tag]))
        for spec, tag in specs
    }
    for key, (macs, accuracy) in points.items():
        beaten = any(m <= macs and a > accuracy for m, a in points.values())
        assert key in best or beaten
    accuracies = [points[key][1] for key in best]
    assert accuracies == sorted(accuracies, reverse=True)


def test_times_to_94_are_compared_on_one_machine(pages: ModuleType, tmp_path: Path) -> None:
    def run(name: str, seed: int, seconds: float, *, bfloat16: bool) -> dict[str, object]:
        return {
            "name": name,
            "seed": seed,
            "seconds": seconds,
            "accuracy": 0.5 + seed / 10,
            "accuracy_with_tta": 0.75,
            "training_flops": 2e14,
            "recipe": {"epochs": 8},
            "machine": {"processor": "P", "threads": 2, "device": "cpu", "bfloat16": bfloat16},
        }

    runs = [
        run("plain", 0, 800, bfloat16=True),
        run("reference", 0, 400, bfloat16=True),
        run("fast94", 0, 200, bfloat16=True),
        run("fast94", 1, 300, bfloat16=True),  # its reference is still missing
        run("fast94", 0, 1200, bfloat16=False),
    ]
    measured = tmp_path / "to_94.json"
    measured.write_text(json.dumps(runs))
    rows = [line.split(" | ", 3) for line in pages.to_94_table(measured).splitlines()[2:]]
    assert {row[0] for row in rows} == {"| P, 2 threads"}
    assert [row[1:] for row in rows] == [
        ["bfloat16", "`plain`", "8 | 1 | 50.00 | 75.00 | 13 min | 0.20 | 1.00 | 2.00 |"],
        ["bfloat16", "`reference`", "8 | 1 | 50.00 | 75.00 | 7 min | 0.20 | 0.50 | 1.00 |"],
        [
            "bfloat16",
            "`fast94`",
            "8 | 2 | 55.00 ± 7.07 | 75.00 ± 0.00 | 4 min | 0.20 | 0.25 | 0.50 |",
        ],
        ["float32", "`fast94`", "8 | 1 | 50.00 | 75.00 | 20 min | 0.20 |  |  |"],
    ]


def test_trials_are_drawn_without_the_programs_that_ran_them(results: ModuleType) -> None:
    trials = importlib.import_module("trials_94")  # beside it
    measured = Path(results.__file__).parents[1] / "research/results"
    networks = json.loads((measured / "fewer_94.json").read_text(encoding="utf-8"))
    own = {run["recipe"]["optimizer"] for run in networks} - {*cifarzoo.list_optimizers()}
    assert own == {"cubic_muon"}
    picture = trials.plot_trials(measured / "tune_94.json", measured / "fewer_94.json")
    assert picture.lstrip().startswith("<")
    assert "another network" in html.unescape(picture)


def test_a_machine_is_described_in_words(results: ModuleType) -> None:
    machine = {"processor": "P", "threads": 1, "device": "cpu", "bfloat16": False, "python": "3.12"}
    said = "Measured on: P, 1 thread, no GPU, without bfloat16 in hardware; Python 3.12."
    assert results.machine_line(machine) == said
    more = {**machine, "threads": 2, "device": "an H100", "bfloat16": True, "date": "2026-11-28"}
    assert ": P, 2 threads, an H100, with bfloat16" in results.machine_line(more)
    assert results.machine_line(more).endswith("; 2026-11-28.")


def test_the_readme_shows_what_was_measured(
    pages: ModuleType, request: pytest.FixtureRequest
) -> None:
    readme = ROOT / "README.md"
    current = readme.read_text(encoding="utf-8")
    measured = ROOT / "research/results/to_94.json"
    tables = {
        "results": pages.results_table(pages.ten_best()),
        "to 94": pages.to_94_table(measured),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n\n", f"\n<!-- end of {name} -->"
        before, rest = current.split(begin)
        _, after = rest.split(end)
        current = f"{before}{begin}{table}{end}{after}"
    if request.config.getoption("--update-golden"):
        readme.write_text(current, encoding="utf-8")
    assert current == readme.read_text(encoding="utf-8")


def test_every_schedule_is_in_the_table(pages: ModuleType) -> None:
    table = pages.scheduler_table()
    own = [name for name in cifarzoo.list_schedulers() if not name.startswith("timm.")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == own


@pytest.mark.parametrize("name", ["accuracy.svg", "training-time.svg"])
def test_the_picture_of_the_results_is_up_to_date(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        picture = importlib.import_module("picture")
    shown = re.search(r"<dc:description>(.*?)</dc:description>", (DOCS / name).read_text("utf-8"))
    assert shown is not None
    expected = picture.describe(*picture.PICTURES[name]())
    assert html.unescape(shown[1]) == expected, "run python docs/picture.py"


def test_the_frontier_is_what_nothing_beats_at_its_cost() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        picture = importlib.import_module("picture")
    points = [picture.Point(*each) for each in (("a", 2, 90), ("b", 1, 80), ("c", 3, 85))]
    points.append(picture.Point("d", 2, 89))
    assert [p.label for p in picture.frontier(points)] == ["b", "a"]


def test_the_picture_of_the_house_is_up_to_date() -> None:
    pytest.importorskip("grimp")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        house = importlib.import_module("house")
    assert house.PICTURE.read_text(encoding="utf-8") == house.draw(), "run python docs/house.py"
