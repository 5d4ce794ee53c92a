"""Evaluation: metrics, reports, predictions and plots."""

from cifarzoo.evaluation.calibration import Calibration, calibrate
from cifarzoo.evaluation.comparison import Comparison, compare
from cifarzoo.evaluation.corruptions import corrupt
from cifarzoo.evaluation.cost import Cost, measure_cost
from cifarzoo.evaluation.page import PageEntry, make_entry, write_page
from cifarzoo.evaluation.plots import plot_confusion_matrix, plot_history
from cifarzoo.evaluation.predict import Prediction, predict
from cifarzoo.evaluation.report import (
    ClassScore,
    ConfidentError,
    EvaluationReport,
    ReliabilityBin,
    evaluate,
)
from cifarzoo.evaluation.robustness import RobustnessReport, evaluate_robustness

__all__ = [
    "Calibration",
    "ClassScore",
    "Comparison",
    "ConfidentError",
    "Cost",
    "EvaluationReport",
    "PageEntry",
    "Prediction",
    "ReliabilityBin",
    "RobustnessReport",
    "calibrate",
    "compare",
    "corrupt",
    "evaluate",
    "evaluate_robustness",
    "make_entry",
    "measure_cost",
    "plot_confusion_matrix",
    "plot_history",
    "predict",
    "write_page",
]
