"""The names of torch that the library uses, beside the versions that brought them.

python tools/torch_names.py            what the source uses and tools/torch_names.toml does not list
python tools/torch_names.py --list     every name, with its version

Nobody can run every old version of torch. The newest is tested; the older ones are read: no name
may be younger than the oldest torch that pyproject.toml allows.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tools" / "torch_names.toml"


def names_in(source: str) -> set[str]:
    """Dotted names of torch in a program, by its imports and attributes."""
    tree = ast.parse(source)
    known, found = dict(_imports(tree)), set()
    inner: set[int] = set()
    for node in ast.walk(tree):  # from the outside, so that only whole names count
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            parts: list[str] = []
            part: ast.expr = node
            while isinstance(part, ast.Attribute):
                parts.append(part.attr)
                part = part.value
                inner.add(id(part))
            if isinstance(part, ast.Name) and part.id in known:
                found.add(".".join([known[part.id], *reversed(parts)]))
    found |= {name for name in known.values() if not any(n.startswith(f"{name}.") for n in found)}
    return found - {"torch"}


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What names of a program stand for, as far as that is torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "torch":
                    yield (alias.asname, alias.name) if alias.asname else ("torch", "torch")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def used_names(folder: Path = ROOT / "src") -> set[str]:
    """Of all programs in a folder."""
    return {
        name for path in folder.rglob("*.py") for name in names_in(path.read_text(encoding="utf-8"))
    }


def read_table() -> dict[str, str]:
    """By name: the version that brought it."""
    tables = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {name: version for version, names in tables.items() for name in names}


def oldest_torch() -> str:
    """The oldest version that pyproject.toml allows."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'^    "torch>=([\d.]+)"', text, re.MULTILINE)[0]


def number(version: str) -> tuple[int, ...]:
    """To compare versions."""
    return tuple(map(int, version.split(".")))


def main() -> int:
    """List, or return 1 with what is missing, left over or too young."""
    known, used = read_table(), used_names()
    if "--list" in sys.argv:
        for name in sorted(used):
            print(f"{known.get(name, '?'):8}{name}")
        return 0
    young = {name for name in used & known.keys() if number(known[name]) > number(oldest_torch())}
    problems = {"not listed": used - known.keys(), "not used": known.keys() - used, "young": young}
    for what, names in problems.items():
        for name in sorted(names):
            print(f"{what}: {name}")
    return any(problems.values())


if __name__ == "__main__":
    sys.exit(main())
