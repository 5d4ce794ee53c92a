"""Evaluation: metrics, reports, predictions and plots."""

from cifarzoo.evaluation.plots import plot_confusion_matrix, plot_history
from cifarzoo.evaluation.predict import Prediction, predict
from cifarzoo.evaluation.report import ClassScore, EvaluationReport, evaluate

__all__ = [
    "ClassScore",
    "EvaluationReport",
    "Prediction",
    "evaluate",
    "plot_confusion_matrix",
    "plot_history",
    "predict",
]
