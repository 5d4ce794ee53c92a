"""Draws the rooms of the library and what imports what, from the imports themselves.

Usage: python docs/house.py, which writes docs/explanation/house.svg
"""

from __future__ import annotations

import ast
import html
import sys
from pathlib import Path

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/explanation/house.svg"

WIDTH, ROW, GAP, HEIGHT, MARGIN = 860, 78, 24, 50, 16
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #222 }
  .room { font-weight: 600; font-size: 15px }
  .count { fill: #666; font-size: 12px }
  rect { fill: #f4f6fa; stroke: #7a8aa6; rx: 6 }
  path { stroke: #9aa7bd; fill: none; stroke-width: 1.2; marker-end: url(#head) }
  marker path { fill: #9aa7bd; stroke: none }
"""


def rows() -> list[list[str]]:
    """The layers of pyproject.toml, top to bottom, each the rooms in it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    house = next(each for each in contracts if each.get("containers") == ["cifarzoo"])
    return [[room.strip() for room in layer.split("|")] for layer in house["layers"]]


def arrows(rooms: list[str]) -> set[tuple[str, str]]:
    """Who imports whom directly, without what follows from two other arrows."""
    graph = grimp.build_graph("cifarzoo", cache_dir=None)
    files = {
        room: {f"cifarzoo.{room}"} | graph.find_descendants(f"cifarzoo.{room}") for room in rooms
    }
    owner = {file: room for room, members in files.items() for file in members}
    direct = {
        (owner[file], owner[other])
        for file in owner
        for other in graph.find_modules_directly_imported_by(file)
        if other in owner and owner[file] != owner[other]
    }
    reach = set(direct)
    for middle in rooms:
        reach |= {(a, b) for a in rooms for b in rooms if {(a, middle), (middle, b)} <= reach}
    return {
        (a, b)
        for a, b in direct
        if not any((a, middle) in direct and (middle, b) in reach for middle in rooms)
    }


def describe(room: str) -> tuple[str, int]:
    """The first line of a room's docstring, and how many files it has."""
    folder = ROOT / "src/cifarzoo" / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    files = [each for each in folder.rglob("*.py") if each.name != "__init__.py"]
    return text.splitlines()[0].rstrip("."), max(len(files), 1)


def draw() -> str:
    """The picture as SVG."""
    layers = rows()
    place: dict[str, tuple[float, float, float]] = {}  # left, top, width
    for number, layer in enumerate(layers):
        width = (WIDTH - 2 * MARGIN - (len(layer) - 1) * GAP) / len(layer)
        for column, room in enumerate(layer):
            place[room] = (MARGIN + column * (width + GAP), MARGIN + number * ROW, width)
    parts = []
    for start, end in sorted(arrows([*place])):
        (x, y, width), (to_x, to_y, to_width) = place[start], place[end]
        middle, to_middle = x + width / 2, to_x + to_width / 2
        # no arrow hides behind another: each ends on its own spot of the room below
        share = (sorted(place).index(start) + 1) / (len(place) + 1) - 0.5
        goal = to_middle + share * to_width * 0.7
        bottom, top = y + HEIGHT, to_y
        parts.append(
            f'<path d="M{middle:.0f},{bottom} C{middle:.0f},{(bottom + top) / 2:.0f} '
            f'{goal:.0f},{(bottom + top) / 2:.0f} {goal:.0f},{top - 2}"/>'
        )
    for room, (x, y, width) in place.items():
        text, count = describe(room)
        files = f"{count} file{'s' if count > 1 else ''}"
        most = int((width - 24) / 6.6)
        shown = text if len(text) <= most else text[: most - 1].rstrip(" ,:") + "…"
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}"/>'
            f'<text class="room" x="{x + 12:.0f}" y="{y + 20}">{room}</text>'
            f'<text class="count" x="{x + width - 12:.0f}" y="{y + 20}" text-anchor="end">{files}'
            f'</text><text x="{x + 12:.0f}" y="{y + 39}">{html.escape(shown)}</text>'
        )
    height = MARGIN * 2 + (len(layers) - 1) * ROW + HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="The rooms of the library">'
        f"<style>{STYLE}</style><defs><marker id='head' viewBox='0 0 8 8' refX='6' refY='4' "
        "markerWidth='7' markerHeight='7' orient='auto'><path d='M0,0 L8,4 L0,8 z'/></marker></defs>"
        f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"written: {PICTURE}")
