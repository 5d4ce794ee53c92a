"""Other people's trainers train the zoo's networks, and their trackers keep what ours does."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import howto
import mlflow
import pytest
import wandb

import cifarzoo

# each of these packages still uses something that another one has deprecated
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@pytest.fixture
def run_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None) -> Any:
    """Runs the page's first block and those that name something."""
    monkeypatch.chdir(tmp_path)

    def run(*needs: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for each in ("def batches", *needs):
            names = howto.run("other-trainers", **{**names, "only": each})
        return names

    return run


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent anywhere, and nothing is asked."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning_trains(run_page: Any) -> None:
    page = run_page("import lightning")
    untrained = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), page["test"])
    trained = cifarzoo.evaluate(page["classifier"].model, page["test"])
    assert trained.accuracy > max(0.2, untrained.accuracy)


def test_skorch_trains_and_scores_as_evaluate_does(run_page: Any) -> None:
    page = run_page("NeuralNetClassifier")
    assert page["score"] > 0.2
    report = cifarzoo.evaluate(page["net"].module_, page["test"], precision="float32")
    assert page["score"] == pytest.approx(report.accuracy, abs=0.002)


def test_optuna_finds_a_rate_by_held_out_images(run_page: Any) -> None:
    page = run_page("optuna")
    values = [trial.value for trial in page["study"].trials]
    assert len(set(values)) > 1
    model = cifarzoo.create_model("simple", seed=0)
    recipe = cifarzoo.Recipe(epochs=2, batch_size=100, learning_rate=page["best"])
    history = cifarzoo.Trainer(model, recipe).fit(page["part"], page["held_out"])
    assert history[-1].val_accuracy == max(values)


def test_hydra_makes_a_run_for_each_setting(tmp_path: Path) -> None:
    (program,) = (block for block in howto.blocks("other-trainers") if "import hydra" in block)
    (tmp_path / "sweep.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "sweep.py", "--multirun", "recipe.learning_rate=0.01,0.1"]
    subprocess.run([*command, "recipe.epochs=1"], cwd=tmp_path, check=True, timeout=300)
    folders = sorted(path.parent for path in tmp_path.glob("multirun/*/*/*/weights.safetensors"))
    recipes = [cifarzoo.Recipe.load(folder / "recipe.toml") for folder in folders]
    assert [recipe.learning_rate for recipe in recipes] == [0.01, 0.1]
    assert {(recipe.epochs, recipe.batch_size) for recipe in recipes} == {(1, 100)}


@pytest.mark.parametrize("block", howto.blocks("other-trainers"))
def test_an_example_has_at_most_twenty_lines(block: str) -> None:
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 20


def test_wandb_keeps_every_epoch_and_the_recipe(run_page: Any, tmp_path: Path) -> None:
    page = run_page("WandbLogger")
    wandb.teardown()  # writes what it still holds
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records = wandb_records(path)
    steps = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in r.item}
        for r in (record.history for record in records if record.HasField("history"))
    ]
    assert [row["_step"] for row in steps] == [1, 2]
    expected = trained_alone(page)
    for row, record in zip(steps, expected, strict=True):
        assert row["loss/train"] == pytest.approx(record.train_loss, rel=1e-3)
        assert row["accuracy/val"] == record.val_accuracy
    (opened,) = (record.run for record in records if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in opened.config.update}
    assert config["recipe"] == page["recipe"].to_dict()
    assert (opened.project, opened.display_name) == ("cifar", "first")
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_mlflow_keeps_every_epoch_and_the_recipe(run_page: Any) -> None:
    page = run_page("WandbLogger", "MLflowLogger")
    client = mlflow.MlflowClient(tracking_uri="sqlite:///mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("cifar").experiment_id])
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["recipe.learning_rate"] == "0.05"
    assert found.data.params["model"] == "simple"
    losses = client.get_metric_history(found.info.run_id, "loss/train")
    expected = trained_alone(page)
    assert [each.step for each in losses] == [1, 2]
    for each, record in zip(losses, expected, strict=True):
        assert each.value == pytest.approx(record.train_loss, rel=1e-3)
    assert mlflow.active_run() is None


def test_a_run_that_goes_on_is_written_from_its_first_epoch(
    own_state: None, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    images = cifarzoo.load_sample("train").split(200)[1]
    recipe = cifarzoo.Recipe(epochs=2, batch_size=100, learning_rate=0.05)

    class Fails(cifarzoo.Logger):
        def on_epoch(self, record: cifarzoo.EpochRecord) -> None:
            raise OSError("the disk of this logger is full")

    def fit(*others: cifarzoo.Logger, resume: bool) -> None:
        logger = cifarzoo.MLflowLogger("two", tracking_uri=store)
        model = cifarzoo.create_model("simple", seed=0)
        output, loggers = tmp_path / "run", [logger, *others]
        trainer = cifarzoo.Trainer(model, recipe, loggers=loggers, output=output)
        trainer.fit(images, resume=resume)

    with pytest.raises(OSError, match="full"):
        fit(Fails(), resume=False)
    fit(resume=True)
    client = mlflow.MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("two").experiment_id])
    steps = {
        each.info.status: [
            point.step for point in client.get_metric_history(each.info.run_id, "loss/train")
        ]
        for each in runs
    }
    assert steps == {"FAILED": [1], "FINISHED": [1, 2]}


def trained_alone(page: dict[str, Any]) -> cifarzoo.History:
    """The history of the page's run, without a tracker."""
    model = cifarzoo.create_model("simple", seed=0)
    return cifarzoo.Trainer(model, page["recipe"]).fit(page["part"], page["held_out"])


def wandb_records(path: Path) -> list[Any]:
    """What an offline run has written: LevelDB's log, of wandb's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # no head fits into the rest of a block
            position += 32768 - position % 32768
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7
        parts += content[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records
