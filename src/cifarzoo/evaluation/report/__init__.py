"""The report about a network: a value, and its text, page and pictures."""

from cifarzoo.evaluation.report.report import (
    ClassScore,
    ConfidentError,
    EvaluationReport,
    ReliabilityBin,
)

__all__ = ["ClassScore", "ConfidentError", "EvaluationReport", "ReliabilityBin"]
