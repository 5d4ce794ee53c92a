"""Draws accuracy against arithmetic, and against the time of training, for README and docs.

Usage: python docs/picture.py, which writes docs/accuracy.svg and docs/training-time.svg.

What they show is read from the index of the weights that come with the package and from
docs/published.toml. It also stands in each picture's metadata, by which a test knows that the
picture is up to date.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.ticker
from matplotlib import pyplot as plt
from matplotlib.transforms import Bbox

import cifarzoo
from cifarzoo.cli.zoo import short_count
from cifarzoo.zoo.about import known_facts, mean_accuracy

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).resolve().parent
OURS, GREY, FRONTIER = "#1f5fbf", "#9aa1ab", "#c8d8f0"
TICKS = (70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99)


@dataclasses.dataclass(frozen=True)
class Point:
    """A network: what it costs, in MACs or minutes, and its accuracy in percent."""

    label: str
    cost: float
    accuracy: float
    by: str = ""


def published() -> list[dict[str, object]]:
    """What others state, from published.toml."""
    text = (DOCS / "published.toml").read_text(encoding="utf-8")
    figures: list[dict[str, object]] = tomllib.loads(text)["figure"]
    return figures


def our_points(*, minutes: bool = False) -> list[Point]:
    """The default weights of each network: mean over the seeds, one view."""
    points = []
    for name in cifarzoo.list_models(pretrained=True):
        spec = cifarzoo.get_model_info(name)
        info = spec.weights.get("default")
        accuracy = mean_accuracy(info) if info else None
        if info is None or accuracy is None:
            continue
        time = statistics.mean(seed["train_seconds"] for seed in known_facts(info)["seeds"]) / 60
        points.append(Point(name, time if minutes else spec.macs, round(100 * accuracy, 2)))
    return points


def their_points() -> list[Point]:
    """What others state for networks of the zoo, in one view."""
    return [
        Point(
            str(each["model"]),
            cifarzoo.get_model_info(str(each["model"])).macs,
            float(str(each["accuracy"])),
            str(each["by"]),
        )
        for each in published()
        if "views" not in str(each.get("note", ""))
    ]


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both accuracy and cost, by rising cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def describe(ours: Sequence[Point], theirs: Sequence[Point]) -> str:
    """All that a picture shows, as JSON."""
    return json.dumps([dataclasses.astuple(point) for point in (*ours, *theirs)])


def draw(path: Path, ours: Sequence[Point], theirs: Sequence[Point], *, cost: str) -> None:
    """Write the picture of ``ours``, and of ``theirs`` in grey, as SVG."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cifarzoo"})
    figure, axes = plt.subplots(figsize=(4.9, 6.0), layout="constrained")
    best = frontier(ours)
    axes.step(
        [p.cost for p in best],
        [_height(p) for p in best],
        where="post",
        color=FRONTIER,
        linewidth=5,
        zorder=1,
        label="best of ours at this cost",
    )
    if theirs:
        axes.scatter(
            [p.cost for p in theirs],
            [_height(p) for p in theirs],
            color=GREY,
            s=16,
            zorder=2,
            label="as others state it for the same network",
        )
    axes.scatter(
        [p.cost for p in ours],
        [_height(p) for p in ours],
        color=OURS,
        s=40,
        zorder=3,
        label="weights of this package",
    )
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.08)
    counts = matplotlib.ticker.FuncFormatter(lambda x, _: short_count(round(x)))
    axes.xaxis.set_major_formatter(counts)
    axes.set_xlabel(cost)
    axes.set_ylabel("test accuracy in %, one view")
    low, high = (f(p.accuracy for p in (*ours, *theirs)) for f in (min, max))
    shown = [tick for tick in TICKS if low - 3 < tick < high + 1]
    axes.set_yticks([_height(Point("", 1, tick)) for tick in shown], [str(t) for t in shown])
    axes.grid(color="#eceff3")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # times are few, and the best lie high
    corner = "upper left" if theirs else "lower right"
    axes.legend(loc=corner, frameon=False, fontsize=9)
    _label(axes, ours, theirs)
    content = describe(ours, theirs)
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": content})
    plt.close(figure)


def _height(point: Point) -> float:
    """Errors on a logarithmic scale: half as many are as far, wherever they are."""
    return -math.log(100 - point.accuracy)


# where a label may stand, from its point, and which of its ends is there; the first one of
# those that cover least
_ABOVE = (((0, 6), "center"),)
_AROUND = (
    *(((8, -10), "left"), ((8, 4), "left"), ((-8, 4), "right"), ((-8, -10), "right")),
    *(((8, -3), "left"), ((-8, -3), "right")),
    *(((-2, 9), "right"), ((2, 9), "left"), ((-2, -16), "right"), ((2, -16), "left")),
)


def _label(axes: plt.Axes, ours: Sequence[Point], theirs: Sequence[Point]) -> None:
    """Name our points, and of the others the best for their cost, where there is room."""
    places = [axes.transData.transform((p.cost, _height(p))) for p in ours]
    labels = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    for points, color, size in ((ours, OURS, 8.5), (frontier(theirs), GREY, 8)):
        for point in points:
            text = point.label if point.by else f"{point.label}  {point.accuracy:.1f}"
            spots = _ABOVE if point.by else _AROUND
            tried = [_write(axes, point, text, spot, color, size) for spot in spots]
            extents = [label.get_window_extent() for label in tried]
            covered = [_covered(extent, labels) for extent in extents]
            best = covered.index(min(covered))
            if point.by and covered[best]:  # only ours are all named
                best = -1
            for number, (label, extent) in enumerate(zip(tried, extents, strict=True)):
                if number == best:
                    labels.append(extent)
                else:
                    label.remove()


def _write(
    axes: plt.Axes,
    point: Point,
    text: str,
    spot: tuple[tuple[int, int], str],
    color: str,
    size: float,
) -> plt.Annotation:
    """Write a label at one of the places around its point."""
    offset, side = spot
    return axes.annotate(
        text,
        (point.cost, _height(point)),
        xytext=offset,
        textcoords="offset points",
        ha=side,
        color=color,
        fontsize=size,
        zorder=4,
    )


def _covered(label: Bbox, others: Sequence[Bbox]) -> float:
    """How much of other labels and points a label would cover."""
    total = 0.0
    for other in others:
        width = min(label.x1, other.x1) - max(label.x0, other.x0)
        height = min(label.y1, other.y1) - max(label.y0, other.y0)
        total += max(width, 0.0) * max(height, 0.0)
    return total


PICTURES = {
    "accuracy.svg": lambda: (our_points(), their_points()),
    "training-time.svg": lambda: (our_points(minutes=True), []),
}
COSTS = {
    "accuracy.svg": "multiply-accumulates for an image",
    "training-time.svg": "minutes of training on one or two cores, no GPU",
}


def main() -> None:
    """Draw both."""
    for name, points in PICTURES.items():
        draw(DOCS / name, *points(), cost=COSTS[name])
        print(f"written: {DOCS / name}")


if __name__ == "__main__":
    main()
