"""Evaluation: metrics, reports, predictions and plots."""

from cifarzoo.evaluation.calibration import Calibration, calibrate
from cifarzoo.evaluation.comparison import Comparison, compare
from cifarzoo.evaluation.corruptions import corrupt
from cifarzoo.evaluation.cost import Cost, measure_cost
from cifarzoo.evaluation.evaluate import evaluate, evaluate_views
from cifarzoo.evaluation.humans import HumanComparison, compare_with_humans
from cifarzoo.evaluation.inference import embeddings, probabilities
from cifarzoo.evaluation.metrics import list_metrics, register_metric
from cifarzoo.evaluation.page import PageEntry, make_entry, write_page
from cifarzoo.evaluation.predict import Prediction, predict
from cifarzoo.evaluation.report import (
    ClassScore,
    ConfidentError,
    EvaluationReport,
    ReliabilityBin,
)
from cifarzoo.evaluation.report.plots import (
    plot_comparison,
    plot_confusion_matrix,
    plot_history,
    plot_predictions,
    plot_reliability,
    plot_robustness,
)
from cifarzoo.evaluation.report.tensorboard import log_report
from cifarzoo.evaluation.robustness import RobustnessReport, evaluate_robustness

__all__ = [
    "Calibration",
    "ClassScore",
    "Comparison",
    "ConfidentError",
    "Cost",
    "EvaluationReport",
    "HumanComparison",
    "PageEntry",
    "Prediction",
    "ReliabilityBin",
    "RobustnessReport",
    "calibrate",
    "compare",
    "compare_with_humans",
    "corrupt",
    "embeddings",
    "evaluate",
    "evaluate_robustness",
    "evaluate_views",
    "list_metrics",
    "log_report",
    "make_entry",
    "measure_cost",
    "plot_comparison",
    "plot_confusion_matrix",
    "plot_history",
    "plot_predictions",
    "plot_reliability",
    "plot_robustness",
    "predict",
    "probabilities",
    "register_metric",
    "write_page",
]
