"""Evaluation: metrics, reports, predictions and plots."""

from cifarzoo.evaluation.calibration import Calibration, calibrate
from cifarzoo.evaluation.comparison import Comparison, compare
from cifarzoo.evaluation.plots import plot_confusion_matrix, plot_history
from cifarzoo.evaluation.predict import Prediction, predict
from cifarzoo.evaluation.report import (
    ClassScore,
    ConfidentError,
    EvaluationReport,
    ReliabilityBin,
    evaluate,
)

__all__ = [
    "Calibration",
    "ClassScore",
    "Comparison",
    "ConfidentError",
    "EvaluationReport",
    "Prediction",
    "ReliabilityBin",
    "calibrate",
    "compare",
    "evaluate",
    "plot_confusion_matrix",
    "plot_history",
    "predict",
]
