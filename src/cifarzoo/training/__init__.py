"""Training: the loop, its history, checkpoints and loggers."""

from cifarzoo.training.history import EpochRecord, History
from cifarzoo.training.loggers import (
    ConsoleLogger,
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    Logger,
    TensorBoardLogger,
)
from cifarzoo.training.trackers import MLflowLogger, WandbLogger
from cifarzoo.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "ConsoleLogger",
    "EarlyStopping",
    "EpochRecord",
    "History",
    "JSONLinesLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "Trainer",
    "WandbLogger",
]
