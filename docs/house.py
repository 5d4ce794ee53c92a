"""Draws the rooms of the library and what imports what, from the imports themselves.

Usage: python docs/house.py, which writes docs/explanation/house.svg
"""

from __future__ import annotations

import ast
import html
import sys
import textwrap
from itertools import accumulate
from pathlib import Path

import grimp

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/explanation/house.svg"

WIDTH, TEXT, MARGIN = 600, 150, 14  # TEXT: where the names begin; arcs lie left of it
LINE, LETTERS = 16, 58  # height of a line of text, and how many letters fit in
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #222 }
  .room { font-weight: 600; font-size: 15px }
  .count { fill: #6b7280; font: 14px system-ui, sans-serif }
  .floor { fill: #eef2f9 }
  .arc { stroke: #6d83ad; fill: none; stroke-width: 1.4 }
  .head { fill: #6d83ad }
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


def describe(room: str) -> tuple[list[str], int]:
    """The first line of a room's docstring, as lines of the picture, and how many files it has."""
    folder = ROOT / "src/cifarzoo" / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    files = [each for each in folder.rglob("*.py") if each.name != "__init__.py"]
    line = text.splitlines()[0].partition(";")[0].replace("`", "")
    return textwrap.wrap(line.rstrip("."), LETTERS), max(len(files), 1)


def draw() -> str:
    """The picture as SVG: floors, and an arc from each room to those it stands on."""
    layers = rows()
    rooms = [room for layer in layers for room in layer]
    texts = {room: describe(room) for room in rooms}
    heights = {room: LINE * (1 + len(lines)) + 8 for room, (lines, _) in texts.items()}
    tops = dict(zip(rooms, accumulate(heights.values(), initial=MARGIN), strict=False))
    middle = {room: tops[room] + 20 for room in rooms}
    parts = [
        f'<rect class="floor" x="0" y="{tops[layer[0]]}" width="{WIDTH}" '
        f'height="{sum(heights[room] for room in layer)}"/>'
        for layer in layers[::2]
    ]
    for start, end in sorted(arrows(rooms)):
        # arcs that leave or reach one room do so side by side
        leave, reach = middle[start] + 4, middle[end] - 4
        left = TEXT - 20 - 11 * (rooms.index(end) - rooms.index(start))
        parts.append(
            f'<path class="arc" d="M{TEXT - 10},{leave:.0f} C{left},{leave:.0f} '
            f'{left},{reach:.0f} {TEXT - 16},{reach:.0f}"/>'
            f'<path class="head" d="M{TEXT - 10},{reach:.0f} l-8,-4 v8 z"/>'
        )
    for room, (lines, count) in texts.items():
        files = f"{count} file{'s' if count > 1 else ''}"
        spans = "".join(
            f'<tspan x="{TEXT}" dy="{LINE}">{html.escape(line)}</tspan>' for line in lines
        )
        parts.append(
            f'<text class="room" x="{TEXT}" y="{middle[room] - 2:.0f}">{room}'
            f'<tspan class="count" dx="8">{files}</tspan>'
            f'</text><text x="{TEXT}" y="{middle[room] - 2:.0f}">{spans}</text>'
        )
    height = 2 * MARGIN + sum(heights.values())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="The rooms of the library">'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"written: {PICTURE}")
