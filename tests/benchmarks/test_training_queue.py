"""The queue that trains the zoo: order, locks, and runs that were killed."""

from __future__ import annotations

import fcntl
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

import cifarzoo
from cifarzoo import Augmentation, Recipe, read_metadata
from cifarzoo.cli import app
from cifarzoo.zoo import registry

ROOT = Path(__file__).parents[2]

TINY = Recipe(
    epochs=2, batch_size=500, scheduler="constant", augmentation=Augmentation(flip="random")
)

# `cifarzoo`, with the network that the runs train; it dies in the moment in which its
# second checkpoint is whole, as if somebody had said kill -9
PROGRAM = f"""
import os, pathlib, signal, sys
sys.modules["matplotlib"] = None  # pictures take longer than the run
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_training_queue
from cifarzoo.cli import main
from cifarzoo.training import loop
test_training_queue.register()
write, killed = loop.write_checkpoint, pathlib.Path("killed")
def write_and_die(path, state):
    write(path, state)
    if len(state["records"]) == 2 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
loop.write_checkpoint = write_and_die
main()
"""


def tiny_net(*, num_classes: int = 10) -> nn.Module:
    """A few seen pixels."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, num_classes))


def register() -> None:
    recipes = {"default": TINY, "longer": TINY.replace(epochs=3)}
    cifarzoo.register_model(
        name="tiny_net", description="A test.", source="here", parameters=1, macs=1, recipes=recipes
    )(tiny_net)


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The network, and the modules below benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_SPECS", dict(registry._SPECS))
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        register()
        yield


def queue_of(folder: Path, *entries: dict[str, Any], program: Sequence[str] = ()) -> Any:
    """A queue in ``folder`` of ``entries``, which are of the tiny network unless they say more."""
    lines = []
    for entry in entries:
        plain = {"name": "a", "model": "tiny_net", "minutes": 1, "why": "test", "data": "sample"}
        lines.append("[[entry]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in (plain | entry).items()]
    listing = folder / "list.toml"
    listing.write_text("\n".join(lines))
    queue: ModuleType = importlib.import_module("training_queue")
    options = {"program": program} if program else {}
    return queue.Queue(listing, folder / "home", folder / "results", commit="abc", **options)


def names(queue: Any) -> list[str]:
    return [run.name for run in queue.left()]


def begin(queue: Any, run: str, epochs_done: int) -> None:
    """Let ``run`` look as if it had been stopped."""
    folder = queue.home / "runs" / run
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()
    (folder / "history.csv").write_text("\n".join(["epoch", *"1" * epochs_done]))
    TINY.save(folder / "recipe.toml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A queue whose one run came to its end."""
    folder = tmp_path_factory.mktemp("queue")
    entry = {"name": "final", "recipe": "longer"}
    assert queue_of(folder, entry, program=["false"]).work() == 1
    queue = queue_of(folder, entry, program=["true"])
    command = ["train", "tiny_net", "--recipe", "longer", "--data", "sample"]
    with pytest.MonkeyPatch.context() as patch:
        for module in ("matplotlib", "matplotlib.figure"):  # pictures take longer than the run
            patch.setitem(sys.modules, module, None)
        patch.chdir(queue.home / "runs")
        result = CliRunner().invoke(app, [*command, "--output", "final-0"])
    assert result.exit_code == 0, result.output
    assert queue.work() == 0
    return queue


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    entry, program = {"name": "final", "recipe": "longer"}, [sys.executable, "-c", PROGRAM]
    first = queue_of(tmp_path, entry, program=program)
    assert first.work() == 1
    assert "failed with exit status -9" in first.describe()
    second = queue_of(tmp_path, entry, program=program)
    assert "1 of 3 epochs" in second.describe()
    assert second.work() == 0
    recipe = cifarzoo.get_model_info("tiny_net").get_recipe("longer")
    whole = cifarzoo.create_model("tiny_net", seed=recipe.seed)
    cifarzoo.Trainer(whole, recipe).fit(cifarzoo.load_sample("train"))
    ended = load_file(second.home / "runs" / "final-0" / "weights.safetensors")
    assert all(ended[name].equal(value) for name, value in whole.state_dict().items())
    (line,) = second.finished().values()
    metadata = read_metadata(second.log.parent / line["file"])["metadata"]
    assert str(tmp_path) not in metadata["command"]  # a path of one machine


def test_a_finished_run_leaves_weights_with_their_metadata_and_a_line(finished: Any) -> None:
    (line,) = finished.finished().values()
    kept = finished.log.parent / line["file"]
    metadata = read_metadata(kept)["metadata"]
    assert metadata["commits"] == line["commits"] == ["abc"]
    assert metadata["test_accuracy"] == line["test_accuracy"]
    assert set(metadata["test_accuracy"]) == {"none", "flip", "flip_shift"}
    assert metadata["val_size"] == line["val_size"] == 0
    assert (line["epochs"], line["seed"], line["model"]) == (3, 0, "tiny_net")
    assert {"date", "minutes", "processor", "precision"} <= set(line)
    found = cifarzoo.evaluate(cifarzoo.load_model(kept), cifarzoo.load_sample("test"))
    assert found.accuracy == pytest.approx(line["test_accuracy"]["none"], abs=0.002)
    assert finished.left() == []
    assert "1 runs finished, 0 left" in finished.describe()


@pytest.fixture
def shipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that ships weights, with a package and packs of the test's own."""
    module = importlib.import_module("finished_weights")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "PACKS", tmp_path / "packs")
    (tmp_path / "index.json").write_text("{}")
    return module


def test_shipped_weights_are_those_of_seed_0_with_all_seeds_in_the_index(
    finished: Any, tmp_path: Path, shipping: Any
) -> None:
    module = shipping
    lines, results = list(finished.finished().values()), finished.log.parent
    with pytest.raises(cifarzoo.CifarZooError, match="no finished final run of seed 0"):
        module.ship([], results)
    kept = results / "final-0.safetensors"
    content = kept.read_bytes()
    module.ship(lines, results)
    assert (tmp_path / "tiny_net-longer.safetensors").read_bytes() == content
    index = json.loads((tmp_path / "index.json").read_text())
    entry = index["tiny_net"]["longer"]
    assert [seed["seed"] for seed in entry["seeds"]] == [0]
    assert not kept.exists()
    assert "pack" not in entry


def test_large_weights_and_those_of_other_seeds_go_into_packs(
    finished: Any, tmp_path: Path, shipping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = shipping
    monkeypatch.setattr(module, "LARGE_SIZE", 0)
    (line,) = finished.finished().values()
    weights = cifarzoo.create_model("tiny_net", seed=0)
    metadata = {
        "data": "sample",
        "val_size": 0,
        "recipe": cifarzoo.get_model_info("tiny_net").get_recipe("longer").to_dict(),
        "seeds": [{"seed": 1}],
        "history": [],
    }
    lines = []
    for seed in (0, 1):
        path = cifarzoo.save_weights(weights, tmp_path / f"{seed}.safetensors", metadata=metadata)
        lines.append({**line, "seed": seed, "file": path.name})
    module.ship(lines, tmp_path)
    tags = json.loads((tmp_path / "index.json").read_text())["tiny_net"]
    assert [tags[tag]["pack"] for tag in ("longer", "longer-seed1")] == [module.LARGE, module.SEEDS]
    assert tags["longer-seed1"]["seed_of"] == "longer"
    for pack, tag in ((module.LARGE, "longer"), (module.SEEDS, "longer-seed1")):
        folder = module.pack_folder(pack)
        own = json.loads((folder / "index.json").read_text())["tiny_net"]
        assert own.keys() == {tag}
        assert (folder / own[tag]["file"]).is_file()
        assert own[tag] == {key: x for key, x in tags[tag].items() if key != "pack"}
    module.ship(lines, tmp_path)  # a further seed may follow: what was moved stays where it is
    assert json.loads((tmp_path / "index.json").read_text())["tiny_net"] == tags


def test_short_runs_come_first_and_the_others_as_they_are_listed(tmp_path: Path) -> None:
    minutes = {"far": 90, "near": 30, "short": 15, "shortest": 5}
    queue = queue_of(
        tmp_path, *({"name": name, "minutes": value} for name, value in minutes.items())
    )
    assert names(queue) == ["shortest-0", "short-0", "far-0", "near-0"]
    begin(queue, "near-0", epochs_done=1)
    assert names(queue)[0] == "near-0"


def test_what_cannot_be_trained_is_passed_over_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_of(
        tmp_path,
        {"name": "later", "model": "not_written_yet", "minutes": 2},
        {"name": "half", "needs_bfloat16": True, "minutes": 3},
        {"name": "fails"},
        program=["false"],
    )
    module = importlib.import_module("training_queue")
    monkeypatch.setattr(module, "describe_machine", lambda device: {"bfloat16": False})
    assert queue.work() == 1
    state = queue.describe()
    assert "not_written_yet is not registered yet" in state
    assert "this processor has no bfloat16" in state
    assert "failed with exit status 1" in state
    assert not (queue.home / "runs" / "half-0").exists()


def test_final_runs_come_after_the_trials_of_their_network(tmp_path: Path) -> None:
    queue = queue_of(
        tmp_path,
        {"name": "final", "best_of": ["short", "long"]},
        {"name": "short", "val_size": 100, "minutes": 2},
        {"name": "long", "val_size": 100, "minutes": 3, "recipe": "longer"},
        program=["false"],
    )
    assert "comes after long-0, short-0" in queue.describe()
    queue.log.parent.mkdir()
    for name, recipe, accuracy in (("short", "default", 0.2), ("long", "longer", 0.3)):
        line = {"run": f"{name}-0", "entry": name, "recipe": recipe, "changes": {}}
        with queue.log.open("a") as log:
            log.write(json.dumps(line | {"validation_accuracy": {"none": accuracy}}) + "\n")
    queue.work()
    note = queue.home / "runs" / "final-0" / "queue.json"
    assert json.loads(note.read_text())["spec"]["recipe"] == "longer"


def test_a_begun_run_goes_on_unless_its_entry_means_another(tmp_path: Path) -> None:
    def failure(**entry: Any) -> str:
        queue = queue_of(tmp_path, entry, program=["false"])
        assert queue.work() == 1
        return str(queue.describe())

    failure()
    (tmp_path / "home" / "runs" / "a-0" / "checkpoint.pt").touch()
    assert "output.txt" in failure(minutes=5, why="another")
    assert "rename" in failure(recipe="longer")


def test_the_state_tells_the_hours_that_are_left(tmp_path: Path) -> None:
    queue = queue_of(
        tmp_path,
        {"name": "long", "minutes": 120, "seeds": [0, 1]},
        {"name": "later", "model": "not_written_yet", "minutes": 30},
    )
    begin(queue, "long-0", epochs_done=1)  # of 2
    assert "2 left" not in queue.describe()
    assert "0 runs finished, 3 left: 3.0 hours to train, 0.5 hours wait" in queue.describe()


def test_a_second_queue_is_refused(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, {}, program=["false"])
    assert not queue.stop()  # there is none
    with (tmp_path / "home" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(cifarzoo.CifarZooError, match="another queue"):
            queue.work()
    assert queue.work() == 1


def test_a_run_that_outlives_its_queue_keeps_the_lock(tmp_path: Path) -> None:
    left_behind = "while [ -e running ]; do sleep 0.01; done"
    program = ["sh", "-c", f"touch running; ({left_behind}) & exit 1"]
    queue = queue_of(tmp_path, {}, program=program)
    assert queue.work() == 1
    running = tmp_path / "home" / "runs" / "running"
    with pytest.raises(cifarzoo.CifarZooError, match="a run that it left behind"):
        queue.work()
    running.unlink()


def test_a_request_to_stop_reaches_the_run_and_ends_the_queue(tmp_path: Path) -> None:
    program = ["sh", "-c", "echo begun; kill -TERM $PPID; exec sleep 60"]
    queue = queue_of(tmp_path, {"seeds": [0, 1]}, program=program)
    assert queue.work() == 0  # a run that was stopped has not failed
    outputs = list((tmp_path / "home" / "runs").glob("*/output.txt"))
    assert [path.read_text() for path in outputs] == ["begun\n"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_queue_goes_on_in_a_copy_of_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = importlib.import_module("zoo")
    scripts, home = tmp_path / "checkout" / "benchmarks", tmp_path / "home"
    scripts.mkdir(parents=True)
    (scripts.parent / "src").mkdir()
    (scripts / "zoo.py").write_text("committed")
    (scripts.parent / "src" / "code.py").write_text("committed")
    git = ["git", "-C", str(scripts.parent), "-c", "user.name=a", "-c", "user.email=b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    trains = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)
    (scripts / "zoo.py").write_text("also committed")  # which trains nothing else
    subprocess.run([*git, "commit", "-qam", "second"], check=True)
    (scripts / "zoo.py").write_text("being edited")
    monkeypatch.setattr(zoo, "HERE", scripts)
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(zoo.os, "execve", lambda *arguments: calls.append(arguments))
    for _ in range(2):  # the second finds the copy
        zoo.start_from_copy(home, ["--list", "its list"])
    (_, arguments, environment) = calls[1]
    assert Path(arguments[1]).read_text() == "also committed"
    assert Path(arguments[1]).is_relative_to(home)
    assert trains.startswith(arguments[arguments.index("--commit") + 1])
    assert arguments[-2:] == ["--list", "its list"]
    assert (Path(environment["PYTHONPATH"]) / "code.py").read_text() == "committed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[entry]]\nname = 3", "missing"),
        ("[[entry", "is no list of entries"),
        ("[[entry]]\nname='a'\nmodel='m'\nminutes=1\nwhy=''\nseed=1", "seed"),
        ("[[entry]]\nname='a'\nmodel='m'\nminutes=1\nwhy=''\nbest_of=['b']", r"unknown \['b'\]"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    queue = queue_of(tmp_path)
    queue.listing.write_text(text)
    with pytest.raises(cifarzoo.CifarZooError, match=message):
        queue.left()


def test_the_list_of_the_zoo_can_be_read() -> None:
    module = importlib.import_module("training_queue")
    entries = module.read_list(ROOT / "benchmarks" / "zoo.toml")
    for entry in entries:
        if entry.model in cifarzoo.list_models():
            recipe = cifarzoo.get_model_info(entry.model).get_recipe(entry.recipe)
            for field, value in entry.changes.items():
                recipe = recipe.override(field, value)
