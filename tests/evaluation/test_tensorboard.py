"""An evaluation in TensorBoard, read back by TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cifarzoo
from cifarzoo import EvaluationReport, ImageSet, Recipe
from cifarzoo.errors import InputError, MissingExtraError
from cifarzoo.evaluation import log_report


@pytest.fixture(scope="module")
def report(sample_test: ImageSet) -> EvaluationReport:
    return cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), sample_test)


def read(folder: Path) -> object:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_log_holds_pictures_report_and_results(
    report: EvaluationReport, sample_test: ImageSet, tmp_path: Path
) -> None:
    log_report(tmp_path, report, images=sample_test, recipe=Recipe(epochs=3))
    tags = read(tmp_path).Tags()  # type: ignore[attr-defined]  # tensorboard has no types
    pictures = {"confusion", "reliability", "samples", "confident_errors"}
    assert set(tags["images"]) == {f"test/{name}" for name in pictures}
    accuracy = read(tmp_path).Scalars("test/accuracy")[0].value  # type: ignore[attr-defined]
    assert accuracy == pytest.approx(report.accuracy)
    assert {"test/loss", "test/accuracy"} <= set(tags["scalars"])
    assert not any(path.is_dir() for path in tmp_path.iterdir())  # one run, not two


def test_recipe_becomes_hyperparameters(report: EvaluationReport, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    recipe = Recipe(epochs=3, image_sizes=[[0, 16], [0.5, 32]])
    log_report(tmp_path, report, recipe=recipe)
    data = read(tmp_path).summary_metadata["_hparams_/session_start_info"]  # type: ignore[attr-defined]
    start = plugin_data_pb2.HParamsPluginData.FromString(data.plugin_data.content)
    found = start.session_start_info.hparams
    assert found["epochs"].number_value == 3
    assert found["augmentation.flip"].string_value == "random"
    assert found["image_sizes"].string_value == "[[0.0, 16], [0.5, 32]]"


def test_without_images_and_recipe_there_are_the_numbers(
    report: EvaluationReport, tmp_path: Path
) -> None:
    log_report(tmp_path, report)
    tags = read(tmp_path).Tags()  # type: ignore[attr-defined]
    assert set(tags["images"]) == {"test/confusion", "test/reliability"}
    assert set(tags["scalars"]) == {"test/accuracy", "test/loss"}


def test_other_images_are_refused_before_anything_is_written(
    report: EvaluationReport, few: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not those of the report"):
        log_report(tmp_path / "log", report, images=few)
    assert not (tmp_path / "log").exists()


def test_without_tensorboard_the_error_names_the_command(
    report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cifarzoo\[tensorboard\]'"):
        log_report(tmp_path, report)
