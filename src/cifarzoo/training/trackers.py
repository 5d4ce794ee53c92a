"""Loggers for services that keep runs of many people: Weights & Biases, and MLflow."""

from __future__ import annotations

import sys
from typing import Any

from cifarzoo.errors import MissingExtraError
from cifarzoo.plain import flatten
from cifarzoo.training.history import EpochRecord, History
from cifarzoo.training.loggers import Logger, RunStart, scalars

__all__ = ["MLflowLogger", "WandbLogger"]


class _Tracker(Logger):
    """What both have in common: a run that continues is written from its first epoch."""

    def on_start(self, run: RunStart) -> None:
        """Open a run with the recipe, and the epochs that are done."""
        self._before = sys.exc_info()[1]  # fit() may be called while an error is handled
        self._open(run)
        for record in run.history.records:
            self.on_epoch(record)

    def on_end(self, history: History) -> None:
        """Close the run, and say whether an error ended it."""
        error = sys.exc_info()[1]
        self._close(None if error is self._before else error)

    def _open(self, run: RunStart) -> None:
        raise NotImplementedError

    def _close(self, error: BaseException | None) -> None:
        raise NotImplementedError


class WandbLogger(_Tracker):
    """Writes each epoch to a run of Weights & Biases, with the recipe as its settings.

    Args:
        project: The project of the run.
        options: Other arguments of ``wandb.init``, such as ``name="first"``, ``mode="offline"``, or
            ``id="abc", resume="must"`` for a run that continues.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, project: str = "cifarzoo", **options: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError(
                "WandbLogger needs wandb: pip install 'cifarzoo[wandb]'"
            ) from error
        self._wandb, self._options = wandb, {"project": project, **options}

    def on_epoch(self, record: EpochRecord) -> None:
        """Add the epoch's numbers."""
        self._run.log(scalars(record), step=record.epoch)

    def _open(self, run: RunStart) -> None:
        own = self._options.get("config", {})
        options = {"name": run.name, **self._options, "config": {**_facts(run), **own}}
        self._run = self._wandb.init(**options)

    def _close(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)


class MLflowLogger(_Tracker):
    """Writes each epoch to a run of MLflow, with the recipe as its parameters.

    MLflow's own state, such as its current run, stays as it is.

    Args:
        experiment: Name of the experiment, which is created if it is new.
        tracking_uri: Address of the server or store, such as ``"http://127.0.0.1:5000"`` or
            ``"sqlite:///mlflow.db"``; the one that MLflow is set to unless given.
        run_name: Name of the run; the network's unless given.

    Raises:
        MissingExtraError: MLflow is not installed.
    """

    def __init__(
        self,
        experiment: str = "cifarzoo",
        *,
        tracking_uri: str | None = None,
        run_name: str | None = None,
    ) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError(
                "MLflowLogger needs mlflow: pip install 'cifarzoo[mlflow]'"
            ) from error
        self._mlflow = mlflow
        self._experiment, self._uri, self._name = experiment, tracking_uri, run_name

    def on_epoch(self, record: EpochRecord) -> None:
        """Add the epoch's numbers."""
        for name, value in scalars(record).items():
            self._client.log_metric(self._id, name, value, step=record.epoch)

    def _open(self, run: RunStart) -> None:
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        number = found.experiment_id if found else self._client.create_experiment(self._experiment)
        self._id = self._client.create_run(number, run_name=self._name or run.name).info.run_id
        for name, value in flatten(_facts(run)).items():
            self._client.log_param(self._id, name, value)

    def _close(self, error: BaseException | None) -> None:
        ended = "FINISHED" if error is None else "FAILED" if isinstance(error, Exception) else ""
        self._client.set_terminated(self._id, ended or "KILLED")  # by Ctrl-C or a signal


def _facts(run: RunStart) -> dict[str, Any]:
    precision = str(run.precision).removeprefix("torch.")
    about = {"model": run.name, "device": str(run.device), "precision": precision}
    return {**about, "recipe": run.recipe.to_dict()}
