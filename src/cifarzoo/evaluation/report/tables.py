"""What pages and data frames show of a report, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifarzoo.evaluation.report.report import EvaluationReport

__all__ = ["confusion_rows"]


def confusion_rows(report: EvaluationReport) -> list[dict[str, Any]]:
    """The confusion matrix as templates show it: a name and cells for each true class."""
    names = [score.name for score in report.classes]
    rows = []
    for true, counts in enumerate(report.confusion):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "share": count / max(total, 1),
                "title": f"{names[true]} taken for {names[predicted]}: {count:,} of {total:,}",
                "is_hit": predicted == true,
            }
            for predicted, count in enumerate(counts)
        ]
        rows.append({"name": names[true], "cells": cells})
    return rows
