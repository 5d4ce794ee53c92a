"""A notebook that is run from its first cell to its last, by Jupyter's own client and kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pandas
import pytest
from file_server import FileServer, Served
from nbclient import NotebookClient

import cifarzoo
from cifarzoo.evaluation import RobustnessReport

TRAIN = """
trainer = Trainer(
    create_model("resnet20", seed=0), Recipe(epochs=3, batch_size=200), loggers=[ConsoleLogger()]
)
history = trainer.fit(train, test)
"""
CELLS = {
    "start": """
from cifarzoo import *
from cifarzoo.evaluation import plot_comparison
train, test = load_sample("train"), load_sample("test")
report = evaluate(create_model("simple", seed=0), test)
comparison = compare(report, evaluate(create_model("simple", seed=1), test))
""",
    "train": TRAIN,
    "images": "test",
    "report": "report",
    "comparison": "comparison",
    "history": "history",
    "spec": "get_model_info('simple')",
    "prediction": "predict(create_model('simple', seed=0), test.images[0])",
    "trainer": "trainer",
    "matrix": "plot_confusion_matrix(report)",
    "curves": "plot_history(history)",
    "difference": "plot_comparison(comparison)",
    "frame": "history.to_dataframe()",
    "download": "from cifarzoo.zoo.addresses import fetch_address\n_ = fetch_address({address!r})",
    "count": """
from cifarzoo.files.progress import count_bar
with count_bar("pictures", 3) as advance:
    advance(1); advance(2)
""",
    "pyplot": "import matplotlib.pyplot\nplot_confusion_matrix(report)",
}


class Client(NotebookClient):
    """Keeps what the kernel sends, for an output that replaces another is not seen at the end."""

    updates: list[dict[str, Any]]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "update_display_data":
            self.updates.append(msg["content"])
        return super().process_message(msg, cell, cell_index)


class Run:
    """A notebook after its run."""

    def __init__(self, sources: dict[str, str], folder: Path) -> None:
        cells = [nbformat.v4.new_code_cell(source) for source in sources.values()]
        self.notebook = nbformat.v4.new_notebook(cells=cells)
        resources = {"metadata": {"path": str(folder)}}
        client = Client(self.notebook, timeout=300, kernel_name="python3", resources=resources)
        client.updates = []
        client.execute()
        self.updates = client.updates
        self.cells = dict(zip(sources, cells, strict=True))

    def outputs(self, name: str) -> list[Any]:
        return list(self.cells[name].outputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("notebook")
    source = str(Path(cifarzoo.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch, FileServer().running() as server:
        patch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        content = (2).to_bytes(8, "little") + b"{}" + bytes(300_000)  # looks like weights
        address = server.add("w.safetensors", Served(content))
        return Run({k: v.replace("{address!r}", repr(address)) for k, v in CELLS.items()}, folder)


@pytest.mark.parametrize(
    "name", ["images", "report", "comparison", "history", "spec", "prediction"]
)
def test_a_value_at_the_end_of_a_cell_is_shown(run: Run, name: str) -> None:
    (output,) = run.outputs(name)
    assert output.data["text/html"].lstrip().startswith('<div class="cifarzoo">')
    assert "\n" not in output.data["text/plain"]
    assert len(output.data["text/plain"]) < 200


def test_a_trainer_is_told_in_a_line(run: Run) -> None:
    (output,) = run.outputs("trainer")
    assert output.data["text/plain"].startswith("Trainer('resnet20': 3 epochs, ")


@pytest.mark.parametrize("name", ["matrix", "curves", "difference", "pyplot"])
def test_a_figure_is_shown_once_with_pyplot_and_without(run: Run, name: str) -> None:
    (output,) = run.outputs(name)
    assert len(output.data["image/png"]) > 5_000


def test_a_bar_moves_and_is_gone_when_the_run_has_ended(run: Run) -> None:
    """The lines of the epochs stay, and nothing is written to the standard streams."""
    outputs = run.outputs("train")
    assert {each.output_type for each in outputs} == {"display_data"}
    bar, *lines = outputs
    assert bar.data == {"text/plain": "", "text/html": ""}
    assert [line.data["text/plain"][:10] for line in lines] == [f"epoch {n}/3 " for n in (1, 2, 3)]
    mine = [u["data"] for u in run.updates if "epoch " in u["data"].get("text/plain", "")]
    assert any("left" in each["text/plain"] and "images/s" in each["text/plain"] for each in mine)


def test_downloads_and_counts_have_a_bar_too(run: Run) -> None:
    download, count = run.outputs("download"), run.outputs("count")
    assert "w.safetensors" in download[0].data["text/plain"]
    assert "300.0/300.0 kB" in download[0].data["text/plain"]
    assert count[0].data == {"text/plain": "", "text/html": ""}
    drawn = [update["data"].get("text/plain", "") for update in run.updates]
    assert any("pictures" in text and "/3" in text for text in drawn)


def test_frames_show_as_tables(run: Run) -> None:
    (output,) = run.outputs("frame")
    assert "val_accuracy" in output.data["text/html"]


def test_every_value_has_its_rows_in_a_data_frame(few: cifarzoo.ImageSet) -> None:
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), few)
    classes, images = report.to_dataframe(), report.to_dataframe("images")
    assert classes["images"].sum() == len(images) == 200
    assert classes.loc[3, "class"] == "cat"
    assert classes.loc[3, "recall"] == report.classes[3].recall
    assert images["correct"].mean() == pytest.approx(report.accuracy)
    matrix = report.to_dataframe("confusion").pivot(index="label", columns="predicted")
    assert matrix.loc["cat", ("images", "dog")] == report.confusion[3][5]
    with pytest.raises(cifarzoo.CifarZooError, match="rows must be"):
        report.to_dataframe("rows")  # type: ignore[arg-type]  # the point

    result = cifarzoo.compare(report, report).to_dataframe()
    assert list(result["model"]) == ["simple (1)", "simple (2)"]
    assert result.loc[0, "difference"] == 0
    assert pandas.isna(result.loc[1, "difference"])

    labels = few.to_dataframe()
    assert labels["label"].tolist() == few.labels.tolist()
    assert labels["class"][0] == few.classes[int(few.labels[0])]

    top = cifarzoo.predict(cifarzoo.create_model("simple", seed=0), few.images[0]).to_dataframe()
    assert len(top) == 5
    assert top["probability"].is_monotonic_decreasing

    robust = RobustnessReport("m", "d", 0.9, {"fog": (0.5, 0.3)}, (1, 2)).to_dataframe()
    assert robust.values.tolist() == [["fog", 1, 0.5], ["fog", 2, 0.3]]
    assert list(cifarzoo.History().to_dataframe().columns)[:2] == ["epoch", "train_loss"]
