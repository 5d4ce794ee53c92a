"""Charts in HTML as inline SVG: no library, sharp at any size, in the page's colours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

__all__ = ["Series", "learning_curves", "line_chart", "reliability_chart"]

_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 17, 10, 36
_COLOURS = 6  # of the page; further lines take them again


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: For the legend; empty for none.
        points: Pairs (x, y).
        colour: Number of the page's colour; they repeat.
        is_dashed: Drawn in dashes.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    is_dashed: bool = False

    @property
    def hue(self) -> str:
        """The page's class for its colour."""
        return f"c{self.colour % _COLOURS}"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    in_percent: bool = False,
    x_in_percent: bool = False,
) -> Markup:
    """Lines over a common pair of axes; every point says its value on hovering.

    Args:
        series: At least one line with at least one point.
        title: What a screen reader says.
        x_label: Below the axis.
        y_label: Beside the axis.
        in_percent: Write y, a fraction, in percent.
        x_in_percent: The same for x.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    are_whole = all(float(x).is_integer() for x in xs)  # there is no epoch 1.2
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, least_step=1 if are_whole else 0)
    y_axis = _Axis.rounded(ys)
    show = ("{:.2%}" if in_percent else "{:.3g}").format
    show_tick = (y_axis.percent_format() if in_percent else "{:g}").format
    show_x = ("{:.0%}" if x_in_percent else "{:g}").format
    parts = [_grid(x_axis, y_axis, x_label, y_label, show_tick, show_x)]
    for line in series:
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = "line dashed" if line.is_dashed else "line"
        parts.append(f'<polyline class="{style} {line.hue}" points="{path}"/>')
        radius = 3 if len(places) == 1 else 2
        parts += [
            f'<circle class="dot {line.hue}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
            f"<title>{escape(f'{line.name} {x_label} {show_x(a)}: {show(b)}'.strip())}</title>"
            "</circle>"
            for (x, y), (a, b) in zip(places, line.points, strict=True)
        ]
    named = [line for line in series if line.name]
    legend = "".join(
        f'<span class="key {line.hue}{" dashed" if line.is_dashed else ""}">'
        f"{escape(line.name)}</span>"
        for line in named
    )
    return _figure("".join(parts), title) + Markup(f'<p class="legend">{legend}</p>')


def reliability_chart(bins: Sequence[tuple[int, float, float]], *, title: str) -> Markup:
    """Accuracy of each bin of confidence as a bar, and its mean confidence as a mark.

    How many images a bar stands for is written above it.

    Args:
        bins: (images, confidence, accuracy), bins of equal width over 0..1.
        title: What a screen reader says.
    """
    x_axis = _Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(0, 1, _HEIGHT - _BOTTOM, _TOP + 12)
    parts = [f'<text class="count" x="{_LEFT - 5}" y="{_TOP}" text-anchor="end">images</text>']
    parts += [_grid(x_axis, y_axis, "confidence", "accuracy", "{:.0%}".format, "{:.0%}".format)]
    width = 1 / len(bins)
    for number, (count, confidence, accuracy) in enumerate(bins):
        if not count:
            continue
        left, right = (x_axis.place((number + side) * width) for side in (0, 1))
        top, bottom = y_axis.place(accuracy), y_axis.place(0)
        text = f"{count:,} images, confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" '
            f'height="{bottom - top:.1f}"><title>{text}</title></rect>'
            f'<line class="mark" x1="{left + 1:.1f}" x2="{right - 1:.1f}" '
            f'y1="{y_axis.place(confidence):.1f}" y2="{y_axis.place(confidence):.1f}"/>'
            f'<text class="count" x="{(left + right) / 2:.1f}" y="{_TOP}" text-anchor="middle">'
            f"{_short(count)}</text>"
        )
    parts.append(
        f'<line class="diagonal" x1="{x_axis.place(0)}" y1="{y_axis.place(0)}" '
        f'x2="{x_axis.place(1)}" y2="{y_axis.place(1)}"/>'
    )
    return _figure("".join(parts), title)


def learning_curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Loss and accuracy against epochs, each with its title; nothing without a history.

    Args:
        history: A mapping for each epoch, as ``History.to_list()`` has it.
    """
    charts = []
    for kind in ("loss", "accuracy"):
        series = [
            Series(
                "training" if part == "train" else "validation",
                points,
                colour=0 if part == "train" else 1,
                is_dashed=part == "train",
            )
            for part in ("train", "val")
            if (points := _points(history, f"{part}_{kind}"))
        ]
        if series:
            title = f"{kind.capitalize()} while training"
            picture = line_chart(
                series, title=title, x_label="epoch", y_label=kind, in_percent=kind == "accuracy"
            )
            charts.append({"title": title, "picture": picture})
    return charts


@dataclasses.dataclass(frozen=True)
class _Axis:
    """From values to places in the picture."""

    low: float
    high: float
    start: float
    end: float
    least_step: float = 0

    @classmethod
    def rounded(cls, values: Sequence[float]) -> _Axis:
        """A vertical axis that ends at round numbers around ``values``."""
        low, high = min(values), max(values)
        step = _step(high - low or abs(high) or 1.0)
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
        return cls(low, high if high > low else low + step, _HEIGHT - _BOTTOM, _TOP)

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

    def step(self) -> float:
        return max(_step(self.high - self.low or 1.0), self.least_step)

    def percent_format(self) -> str:
        """With as many digits as tell the ticks apart."""
        return f"{{:.{max(0, -math.floor(math.log10(self.step())) - 2)}%}}"

    def ticks(self) -> list[float]:
        step = self.step()
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _points(history: Sequence[Mapping[str, Any]], column: str) -> list[tuple[float, float]]:
    """Against epochs; those that were not validated, or whose loss is no number, have none."""
    pairs = ((record["epoch"], record.get(column)) for record in history)
    return [(epoch, value) for epoch, value in pairs if value is not None and math.isfinite(value)]


def _short(count: int) -> str:
    """A count that fits above a bar."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 9950 else f"{count / 1000:.0f}k"


def _step(span: float) -> float:
    """A round step that divides ``span`` into about five."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 6)


def _grid(
    x_axis: _Axis,
    y_axis: _Axis,
    x_label: str,
    y_label: str,
    show_y: Callable[[float], str],
    show_x: Callable[[float], str] = "{:g}".format,
) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">'
            f"{show_y(value)}</text>"
        )
    for value in x_axis.ticks():
        x = x_axis.place(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">'
            f"{show_x(value)}</text>"
        )
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="label" x="11" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 11 {middle})">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _figure(content: str, title: str) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )
