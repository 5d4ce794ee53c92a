"""The report as text, Markdown, HTML and rows of a data frame."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from cifarzoo.display.charts import reliability_chart
from cifarzoo.display.html import render
from cifarzoo.errors import ArgumentError
from cifarzoo.names import one_line

if TYPE_CHECKING:
    from cifarzoo.evaluation.report.report import ClassScore, EvaluationReport

__all__ = ["Rows", "as_html", "as_markdown", "as_rows", "as_text", "confusion_rows"]

Rows = Literal["classes", "images", "confusion"]
"""What a row of a report's data frame stands for."""

_MANY, _WORST = 20, 10  # of more classes than many, the worst are shown


def as_text(report: EvaluationReport, *, whole: bool = False) -> str:
    """Headline, classes and confusion matrix.

    Args:
        report: It.
        whole: All classes and the matrix, however many classes there are.
    """
    headline = _headline(report)
    width = max(len(name) for name, _ in headline)
    scores, left = (report.classes, 0) if whole else _shown(report)
    names = [one_line(score.name) for score in scores]
    name_width = max(len("class"), *(len(name) for name in names))
    lines = [one_line(f"{report.model} on {report.data}, test-time augmentation: {report.tta}"), ""]
    lines += [one_line(f"note: {report.note}"), ""] if report.note else []
    lines += [f"{name:<{width}}  {value}" for name, value in headline]
    lines += ["", f"{'class':<{name_width}}  precision  recall      F1  images"]
    lines += [
        f"{name:<{name_width}}  {precision:>9}  {recall:>6}  {f1:>6}  {count:>6}"
        for name, precision, recall, f1, count in _class_rows(scores)
    ]
    lines += [f"and {left} more classes; these are the least recognized"] if left else []
    pairs = [one_line(f"{a} as {b} ({n})") for a, b, n in report.most_confused(5)]
    confused = f"most confused: {', '.join(pairs) or 'none'}"
    lines += ["", *textwrap.wrap(confused, 100, subsequent_indent="  ", break_on_hyphens=False)]
    if left:
        return "\n".join(lines)
    lines += ["", "confusion matrix (rows true, columns predicted)"]
    cell = max(6, *(len(str(count)) + 1 for row in report.confusion for count in row))
    short = [name[: cell - 1] for name in names]
    lines.append(" " * name_width + "".join(f"{name:>{cell}}" for name in short))
    lines += [
        f"{name:<{name_width}}" + "".join(f"{count:>{cell}}" for count in row)
        for name, row in zip(names, report.confusion, strict=True)
    ]
    return "\n".join(lines)


def as_markdown(report: EvaluationReport) -> str:
    """Headline, per-class table and confusion matrix as Markdown."""
    model, data, note = map(_in_markdown, (report.model, report.data, report.note))
    matrix = [
        [score.name, *map(str, row)]
        for score, row in zip(report.classes, report.confusion, strict=True)
    ]
    header = ("class", "precision", "recall", "F1", "images")
    lines = [
        f"### {model} on {data} (test-time augmentation: {report.tta})",
        "",
        *([f"Note: {note}.", ""] if note else []),
        *_markdown_table(("metric", "value"), _headline(report)),
        "",
        *_markdown_table(header, _class_rows(report.classes)),
        "",
        "Confusion matrix, rows true, columns predicted:",
        "",
        *_markdown_table(("", *(s.name for s in report.classes)), matrix),
    ]
    return "\n".join(lines) + "\n"


def as_html(report: EvaluationReport) -> str:
    """What a notebook shows."""
    scores, left = _shown(report)
    bins = [(b.count, b.confidence, b.accuracy) for b in report.reliability]
    return render(
        "report.html",
        report=report,
        headline=_headline(report)[1:],
        scores=scores,
        left=left,
        rows=[] if left else confusion_rows(report),
        reliability=reliability_chart(bins, title=f"Reliability of {report.model}"),
    )


def as_rows(report: EvaluationReport, rows: Rows) -> list[dict[str, Any]]:
    """What a data frame is made of; see ``EvaluationReport.to_dataframe``."""
    names = [score.name for score in report.classes]
    if rows == "classes":
        return [
            {
                "class": score.name,
                "precision": score.precision,
                "recall": score.recall,
                "f1": score.f1,
                "recall_low": score.recall_interval and score.recall_interval[0],
                "recall_high": score.recall_interval and score.recall_interval[1],
                "images": score.count,
            }
            for score in report.classes
        ]
    if rows == "images":
        columns = zip(report.labels, report.predicted, report.confidence, strict=True)
        return [
            {
                "label": names[label],
                "predicted": names[predicted],
                "confidence": confidence,
                "correct": label == predicted,
            }
            for label, predicted, confidence in columns
        ]
    if rows == "confusion":
        return [
            {"label": names[label], "predicted": names[predicted], "images": count}
            for label, row in enumerate(report.confusion)
            for predicted, count in enumerate(row)
        ]
    raise ArgumentError(f"rows must be 'classes', 'images' or 'confusion'; got {rows!r}")


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
            }
            for predicted, count in enumerate(counts)
        ]
        rows.append({"name": names[true], "cells": cells})
    return rows


def _shown(report: EvaluationReport) -> tuple[Sequence[ClassScore], int]:
    """The classes that fit on a screen, and how many do not: of many, the least recognized."""
    if len(report.classes) <= _MANY:
        return report.classes, 0
    tested = [score for score in report.classes if score.count]
    worst = sorted(tested, key=lambda score: score.recall)[:_WORST]
    return worst, len(report.classes) - len(worst)


def _headline(report: EvaluationReport) -> list[tuple[str, str]]:
    low, high = report.accuracy_interval
    return [
        ("accuracy", f"{report.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})"),
        ("top-5 accuracy", f"{report.top5_accuracy:.2%}"),
        ("loss", f"{report.loss:.4f}"),
        (
            "calibration error",
            f"{report.expected_calibration_error:.4f} "
            f"(bins of equal count: {report.adaptive_calibration_error:.4f})",
        ),
        ("Brier score", f"{report.brier_score:.4f}"),
        *((name, f"{value:.4g}") for name, value in report.metrics.items()),
        ("images", f"{report.num_images:,}"),
    ]


def _class_rows(scores: Sequence[ClassScore]) -> list[tuple[str, ...]]:
    return [
        (
            one_line(score.name),
            *(
                f"{share:.1%}" if score.count else "-"  # a share of no images is none
                for share in (score.precision, score.recall, score.f1)
            ),
            str(score.count),
        )
        for score in scores
    ]


def _markdown_table(header: tuple[str, ...], rows: list[Any]) -> list[str]:
    first, *others = (f"| {' | '.join(map(_in_markdown, row))} |" for row in (header, *rows))
    return [first, "|" + " --- |" * len(header), *others]


def _in_markdown(text: str) -> str:
    """``text`` so that it stands in Markdown, in a table too, and is no HTML and no link there."""
    return re.sub(r"[\\`*\[\]<>&|]", r"\\\g<0>", one_line(text))
