"""The folder that a run leaves: a program's and the command line's are of one kind."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run
from torch import nn
from torch.utils.data import DataLoader

import cifarzoo
from cifarzoo import History, ImageSet, Logger, Recipe, Trainer, runs
from cifarzoo.errors import ArgumentError, CheckpointError, InputError, OutputError
from cifarzoo.runs import RunFolder
from cifarzoo.zoo import registry

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(epochs=2, batch_size=500, learning_rate=0.02, scheduler="constant")
PLACE: dict[str, Any] = {"device": "cpu", "precision": "float32"}
LEFT = {"run.json", "recipe.toml", "checkpoint.pt", "weights.safetensors", "history.json"}


class Stop(Logger):
    """Stops the run after its first epoch, which is saved by then."""

    def on_epoch(self, record: cifarzoo.EpochRecord) -> None:
        raise KeyboardInterrupt


def start(
    folder: Path, *, model: nn.Module | None = None, recipe: Recipe = RECIPE, **options: Any
) -> Trainer:
    """A Trainer that is stopped after an epoch."""
    network = cifarzoo.create_model("simple", seed=0) if model is None else model
    return Trainer(network, recipe, output=folder, loggers=[Stop()], **{**PLACE, **options})


def stop(trainer: Trainer, *data: Any, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*data, **options)


@pytest.fixture(scope="module")
def finished(sample_train: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program's run on the sample."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    model = cifarzoo.create_model("simple", seed=0)
    recipe = RECIPE.replace(epochs=1)
    Trainer(model, recipe, output=folder, metadata={"note": "mine"}, **PLACE).fit(sample_train)
    return folder


def test_a_program_leaves_what_the_command_line_leaves(
    finished: Path, sample_train: ImageSet
) -> None:
    assert {path.name for path in finished.iterdir()} == LEFT
    facts = cifarzoo.read_metadata(finished)["metadata"]
    assert facts["model"] == "simple"
    assert facts["data_name"] == "cifar10 sample train"
    assert facts["data_sha256"] == sample_train.sha256()
    assert facts["note"] == "mine"
    assert Recipe.from_dict(facts["recipe"]) == Recipe.load(finished / "recipe.toml")
    assert History.from_list(facts["history"]) == History.load(finished / "history.json")
    assert facts["precision"] == "float32"
    assert {"cifarzoo", "torch", "python"} <= facts["versions"].keys()
    assert facts["parameters"] == 80_090
    assert "resuming" not in facts
    assert json.loads((finished / "run.json").read_text())["note"] == "mine"


def test_the_command_line_reads_what_a_program_leaves(finished: Path, tmp_path: Path) -> None:
    evaluated = json.loads(run("evaluate", finished, "--json").stdout)
    expected = cifarzoo.evaluate(
        cifarzoo.load_model(finished), cifarzoo.load_sample("test"), device="cpu"
    )
    assert evaluated["data"] == "cifar10 sample test"
    assert evaluated["accuracy"] == expected.accuracy
    page = tmp_path / "page.html"
    run("report", finished, "-o", page)
    assert "cifar10 sample test" in page.read_text()
    assert "--val-size 5000" in run("calibrate", finished, code=1).stderr


@pytest.mark.usefixtures("without_pictures")
def test_a_programs_run_goes_on_at_the_command_line_as_if_it_had_not_stopped(
    sample_train: ImageSet, tmp_path: Path
) -> None:
    train, val = sample_train.split(500)
    whole = cifarzoo.create_model("simple", seed=0)
    Trainer(whole, RECIPE, **PLACE).fit(train, val)
    folder = tmp_path / "run"
    stop(start(folder), train, val)
    assert {path.name for path in folder.iterdir()} == LEFT - {
        "weights.safetensors",
        "history.json",
    }
    assert "cifarzoo train --resume" in run("evaluate", folder, code=1).stderr
    run("train", "--resume", folder, "--device", "cpu")
    resumed = cifarzoo.load_model(folder)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    facts = cifarzoo.read_metadata(folder)["metadata"]
    assert set(facts["test_accuracy"]) == set(facts["validation_accuracy"]) == {"none", "flip"}
    assert "temperature" in run("calibrate", folder, "--json").stdout
    assert (folder / "report.json").exists()


@pytest.mark.usefixtures("without_pictures")
def test_options_and_normalization_of_a_programs_network_are_found_again(
    sample_train: ImageSet, tmp_path: Path
) -> None:
    model = cifarzoo.create_model("airbench94", widths=(24, 24, 24), seed=0)
    card = cifarzoo.get_card(model)
    own = cifarzoo.Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    cifarzoo.attach_card(model, cifarzoo.ModelCard(card.name, 10, card.options, own, card.classes))
    recipe = RECIPE.replace(image_sizes=[[0, 16]])
    stop(start(tmp_path / "run", model=model, recipe=recipe), sample_train)
    run("train", "--resume", tmp_path / "run", "--device", "cpu")
    again = cifarzoo.get_card(cifarzoo.load_model(tmp_path / "run"))
    assert again.options == {"widths": [24, 24, 24]}
    assert again.preprocessing == own


def frozen() -> nn.Module:
    model = cifarzoo.create_model("simple", seed=0)
    next(model.parameters()).requires_grad_(False)
    return model


def changed() -> nn.Module:
    model = cifarzoo.create_model("simple", seed=0)
    model.register_module("extra", nn.GELU())
    return model


def own() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def batches(images: ImageSet) -> list[Any]:
    return [(images.images[:100], images.labels[:100])]


def constant(optimizer: Any, epochs: int, steps: int) -> Any:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


ONLY_IN_PYTHON: dict[str, tuple[Callable[[ImageSet], tuple[dict[str, Any], Any, Any]], str]] = {
    "batches": (lambda s: ({}, batches(s), {}), "training data that is a list"),
    "a DataLoader": (
        lambda s: ({}, DataLoader(s.subset(range(200)), 100), {}),
        "training data that is a DataLoader",
    ),
    "own images": (
        lambda s: ({}, ImageSet(s.images, s.labels, s.classes, "pets"), {}),
        "it trains on 'pets', which --data does not know",
    ),
    "a part of the images": (lambda s: ({}, s.subset(range(500)), {}), "nor a split(size) of it"),
    "another split": (lambda s: ({}, s.split(500, seed=3)[0], {}), "nor a split(size) of it"),
    "own validation": (
        lambda s: ({}, s, {"val": ImageSet(s.images, s.labels, s.classes, "pets")}),
        "it measures 'pets' every epoch",
    ),
    "stated steps": (lambda s: ({}, s, {"steps_per_epoch": 2}), "steps_per_epoch"),
    "own schedule": (lambda s: ({"scheduler": constant}, s, {}), "a scheduler of its own"),
    "own optimizer": (
        lambda s: ({"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.01)}, s, {}),
        "an optimizer of its own",
    ),
    "a teacher": (
        lambda s: (
            {
                "teacher": cifarzoo.create_model("simple"),
                "recipe": RECIPE.replace(teacher="simple"),
            },
            s,
            {},
        ),
        "a teacher",
    ),
    "frozen layers": (lambda s: ({"model": frozen()}, s, {}), "after the zoo had built it"),
    "another layer": (lambda s: ({"model": changed()}, s, {}), "after the zoo had built it"),
    "own network": (lambda s: ({"model": own()}, s, {}), "'Sequential' does not belong to the zoo"),
}


@pytest.mark.parametrize("case", ONLY_IN_PYTHON)
def test_what_only_a_program_can_continue_is_told_how(
    case: str, few: ImageSet, sample_train: ImageSet, tmp_path: Path
) -> None:
    make, reason = ONLY_IN_PYTHON[case]
    options, data, more = make(sample_train)
    folder = tmp_path / "run"
    stop(start(folder, **options), data, **more)
    refused = run("train", "--resume", folder, code=1).stderr.replace("\n", " ")
    assert reason in refused
    assert f"output='{folder}').fit(train, ..., resume=True)" in refused


def test_a_checkpoint_alone_says_how_to_go_on(sample_train: ImageSet, tmp_path: Path) -> None:
    stop(start(tmp_path), sample_train)
    for name in ("run.json", "recipe.toml"):
        (tmp_path / name).unlink()
    refused = run("train", "--resume", tmp_path, code=1).stderr
    assert "no run.json" in refused
    assert "resume=True" in refused
    model = cifarzoo.create_model("simple", seed=0)
    assert len(Trainer(model, RECIPE, output=tmp_path, **PLACE).fit(sample_train, resume=True)) == 2
    assert {path.name for path in tmp_path.iterdir()} == LEFT


@pytest.mark.parametrize("was_there", [True, False])
def test_a_fit_that_never_began_leaves_nothing_behind(
    few: ImageSet, was_there: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if was_there:
        folder.mkdir()
    trainer = Trainer(
        cifarzoo.create_model("simple"), RECIPE.replace(batch_size=50), output=folder, **PLACE
    )
    with pytest.raises(InputError):
        trainer.fit(ImageSet(few.images[:, :, :5, :5], few.labels, few.classes))
    assert folder.exists() == was_there
    assert not list(tmp_path.rglob("*.*"))
    assert len(trainer.fit(few)) == 2
    assert {path.name for path in folder.iterdir()} == LEFT


def test_a_finished_run_is_refused_before_any_work(
    finished: Path, few: ImageSet, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Untouched(ImageSet):
        def sha256(self) -> str:
            raise AssertionError

    train = Untouched(few.images, few.labels, few.classes)
    for gone in ("", "checkpoint.pt"):
        (folder / (gone or "nothing")).unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match="choose another output folder"):
            start(folder).fit(train)
    del before["checkpoint.pt"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_finished_run_that_is_resumed_keeps_its_weights_file(
    finished: Path, sample_train: ImageSet, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (folder / "weights.safetensors").read_bytes()
    model = cifarzoo.create_model("simple", seed=1)
    trainer = Trainer(model, RECIPE.replace(epochs=1), output=folder, **PLACE)
    assert len(trainer.fit(sample_train, resume=True)) == 1
    assert (folder / "weights.safetensors").read_bytes() == before


def test_a_recipe_of_ones_own_is_not_replaced(few: ImageSet, tmp_path: Path) -> None:
    recipe = RECIPE.replace(batch_size=50, epochs=1)
    mine = tmp_path / "recipe.toml"
    mine.write_text("# mine\nepochs = 3\n")
    with pytest.raises(CheckpointError, match=r"recipe\.toml holds another recipe"):
        Trainer(cifarzoo.create_model("simple"), recipe, output=tmp_path, **PLACE).fit(few)
    assert mine.read_text() == "# mine\nepochs = 3\n"
    recipe.save(mine)
    mine.write_text("# mine\n" + mine.read_text())
    Trainer(cifarzoo.create_model("simple"), recipe, output=tmp_path, **PLACE).fit(few)
    assert mine.read_text().startswith("# mine")


def test_a_run_that_came_to_nothing_is_begun_again(few: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")  # it was killed
    RECIPE.save(tmp_path / "recipe.toml")
    recipe = RECIPE.replace(batch_size=50, epochs=1)
    Trainer(cifarzoo.create_model("simple"), recipe, output=tmp_path, **PLACE).fit(few)
    assert Recipe.load(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("name", "value"), [("model", "baseline"), ("data_name", "my split"), ("data_images", 3)]
)
def test_metadata_does_not_replace_what_a_run_knows(
    name: str, value: Any, few: ImageSet, tmp_path: Path
) -> None:
    trainer = start(tmp_path / "run", metadata={name: value})
    with pytest.raises(ArgumentError, match=f"metadata says that {name} is {value!r}, and it is"):
        trainer.fit(few)
    assert not (tmp_path / "run").exists()


def test_metadata_is_plain_data(few: ImageSet, tmp_path: Path) -> None:
    trainer = start(tmp_path / "run", metadata={"x": object()})
    with pytest.raises(ArgumentError, match="plain data"):
        trainer.fit(few)
    assert not (tmp_path / "run").exists()


def test_a_report_leaves_out_what_is_no_finished_run(
    finished: Path, sample_train: ImageSet, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "done")
    stop(start(tmp_path / "stopped"), sample_train)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    everything = sorted(tmp_path.iterdir())
    page = tmp_path / "page.html"
    result = run("report", *everything, "-o", page)
    for name, reason in {
        "stopped": "is not finished",
        "begun": "has no checkpoint yet",
        "pictures": "is not the folder of a run",
        "notes.txt": "is not a weights file",
    }.items():
        assert f"left out: {tmp_path / name} {reason}" in result.stderr
    assert result.stdout.count("simple: ") == 1
    assert page.exists()
    nothing = run("report", tmp_path / "stopped", tmp_path / "notes.txt", code=1).stderr
    assert "there is nothing to report on" in nothing
    assert f"cifarzoo train --resume {tmp_path / 'stopped'}" in nothing.replace("\n", " ")


def test_runs_of_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime.datetime.now()

    class Clock:
        @staticmethod
        def now() -> datetime.datetime:
            return now

    monkeypatch.setattr(runs.folder.datetime, "datetime", Clock)
    folders = [RunFolder.new(name).path for name in ("x", "x", "x", "timm:x", "mine/x")]
    assert len(set(folders)) == 5
    assert all(each.parent == Path("runs") and ":" not in each.name for each in folders)
    assert all(each.is_dir() for each in folders)


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "recipe.toml").write_text("epochs = 1")
    with pytest.raises(CheckpointError, match="is damaged"):
        RunFolder(tmp_path).read()


@pytest.mark.slow
def test_the_readme_runs_from_its_python_to_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # the sample in place of CIFAR-10, and one epoch of it
    monkeypatch.setattr(cifarzoo, "load_cifar10", cifarzoo.load_sample)
    spec = cifarzoo.get_model_info("simple")
    short = {"recipes": {"default": spec.recipe.replace(epochs=1)}}
    monkeypatch.setitem(registry._SPECS, "simple", registry.ModelSpec(**{**vars(spec), **short}))
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    commands = re.findall(r"^\.venv/bin/cifarzoo (.*runs/mine[^#\n]*)", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["report", "evaluate", "train"]
    for command in commands:
        run(*command.split())
    assert "cifar10 sample test" in (tmp_path / "report.html").read_text()


def test_images_of_ones_own_are_not_taken_for_cifar10(few: ImageSet, tmp_path: Path) -> None:
    pets = ImageSet(few.images, few.labels, few.classes, "pets train")
    recipe = RECIPE.replace(batch_size=100, epochs=1)
    model = cifarzoo.create_model("simple", seed=0)
    Trainer(model, recipe, output=tmp_path, **PLACE).fit(pets)
    for command in ("evaluate", "report"):
        refused = run(command, tmp_path, "--root", tmp_path, "--no-download", code=1).stderr
        assert "trained on 'pets train', which --data does not know" in refused.replace("\n", " ")
    assert "cifar10 sample test" in run("evaluate", tmp_path, "--data", "sample").stdout
    Trainer(model, recipe, output=tmp_path / "part", **PLACE).fit(few)  # what a split held out
    assert "cifar10 sample test" in run("evaluate", tmp_path / "part").stdout


def test_two_runs_at_once_in_one_folder_are_refused(few: ImageSet, tmp_path: Path) -> None:
    recipe = RECIPE.replace(batch_size=50)
    other = Trainer(cifarzoo.create_model("simple", seed=1), recipe, output=tmp_path, **PLACE)
    refusals: list[str] = []

    class Intruder(Logger):
        """Tries to begin a run and to resume this one, in the middle of it."""

        def on_epoch(self, record: cifarzoo.EpochRecord) -> None:
            for resume in (False, True):
                with pytest.raises(CheckpointError) as refusal:
                    other.fit(few, resume=resume)
                refusals.append(str(refusal.value))

    model = cifarzoo.create_model("simple", seed=0)
    log = cifarzoo.CSVLogger(tmp_path / "history.csv")
    trainer = Trainer(model, recipe, output=tmp_path, loggers=[log, Intruder()], **PLACE)
    assert len(trainer.fit(few)) == 2
    assert len(refusals) == 4
    assert all(f"a run is at work in {tmp_path}" in each for each in refusals)
    assert {path.name for path in tmp_path.iterdir()} == LEFT | {"history.csv"}
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    assert len(other.fit(few, resume=True)) == 2  # the lock went with the run


@pytest.mark.slow
def test_a_folder_of_a_run_that_was_killed_is_free(few: ImageSet, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cifarzoo.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    recipe = RECIPE.replace(batch_size=100, epochs=1)
    Trainer(cifarzoo.create_model("simple"), recipe, output=tmp_path, **PLACE).fit(few)
    assert {path.name for path in tmp_path.iterdir()} == LEFT


class Then(Logger):
    """Does something after the first epoch."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def on_epoch(self, record: cifarzoo.EpochRecord) -> None:
        if record.epoch == 1:
            self.act()


@pytest.mark.parametrize("fate", ["deleted", "replaced", "emptied", "moved"])
def test_a_folder_that_is_gone_ends_the_run_and_is_not_made_again(
    few: ImageSet, fate: str, tmp_path: Path
) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"

    def act() -> None:
        if fate == "moved":
            folder.rename(other)
            return
        shutil.rmtree(folder)
        if fate != "deleted":
            folder.mkdir()
        if fate == "replaced":
            (folder / "run.json").write_text("{}")

    recipe = RECIPE.replace(batch_size=50, epochs=3)
    network = cifarzoo.create_model("simple", seed=0)
    trainer = Trainer(network, recipe, output=folder, loggers=[Then(act)], **PLACE)
    with pytest.raises(OutputError, match="deleted, moved or replaced while it trained"):
        trainer.fit(few)
    left = {path.name for path in folder.iterdir()} if folder.exists() else None
    assert left == ({"run.json"} if fate == "replaced" else None)
    if fate == "moved":  # the advice works
        trainer = Trainer(network, recipe, output=other, **PLACE)
        assert len(trainer.fit(few, resume=True)) == 3


ODD = {
    "a list": [],
    "no model": {"model": None},
    "no data": {"data": None},
    "a number for the model": {"model": 3},
    "a number for the data": {"data": 3},
    "text for a number": {"val_size": "many"},
    "a fraction": {"val_size": 0.5},
    "true for a number": {"val_size": True},
    "a number for true": {"watch_test": 1},
    "a list for the precision": {"precision": ["float32"]},
    "an unknown precision": {"precision": "float31"},
    "unknown data": {"data": "mars"},
    "an unknown model": {"model": "mars"},
    "odd resuming": {"resuming": "yes"},
    "empty resuming": {"resuming": {}},
    "resuming without a card": {"resuming": {"only_in_python": [], "network_sha256": ""}},
    "resuming with an odd card": {
        "resuming": {"only_in_python": [], "network_sha256": "", "card": {"name": 3}}
    },
    "odd reasons": {"resuming": {"only_in_python": 3, "network_sha256": "", "card": {}}},
    "odd name of the data": {"data": None, "data_name": 3},
}


@pytest.mark.parametrize("case", ODD)
def test_a_note_with_fields_that_are_odd_is_refused(
    case: str, finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    odd = ODD[case]
    facts = {"model": "simple", "data": "sample", "val_size": 0, "watch_test": False}
    note = odd if isinstance(odd, list) else {**facts, **odd}
    (folder / "run.json").write_text(json.dumps(note))
    refused = run("train", "--resume", folder, code=1)
    assert refused.stderr.startswith("error: ")


def test_metadata_with_an_odd_or_unknown_name_of_the_data_is_refused(tmp_path: Path) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata={"data": "mars"})
    for command in ("evaluate", "report"):
        said = run(command, path, code=1).stderr.replace("\n", " ")
        assert "unknown image set 'mars'" in said
    with pytest.raises(cifarzoo.errors.ArgumentError, match="data should be a valid string; got 3"):
        cifarzoo.save_weights(model, path, metadata={"data": 3})
