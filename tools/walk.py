"""Walk from the home page to a fine-tuned network, by copy and paste, with a clock.

Usage: python tools/walk.py [--fresh] [--photos FOLDER] [--output FILE]

It runs the code blocks of docs/index.md and docs/howto/fine-tune.md, as they stand there, in an
empty folder. ``--fresh`` first makes an environment and installs this checkout into it, which
fetches torch. ``--photos`` walks with photos of your own, a folder for each class, in place of
those that the page makes. docs/howto/fine-tune.md shows what ``--output`` holds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))
from code_blocks import code_blocks

HOME, FINE_TUNE = "index.md", "howto/fine-tune.md"
RESULTS = ROOT / "benchmarks/results/walk.json"
_PRACTICE = "2."  # the step whose code makes photos to practise with
_LIMIT = 15 * 60  # seconds that the walk may take


def walk(folder: Path, photos: Path | None = None) -> dict[str, Any]:
    """Run the blocks of both pages in ``folder``.

    Args:
        folder: An empty folder.
        photos: A folder for each class, in place of those that the page makes.

    Returns:
        The seconds of each step, and of all of them up to the network that is kept; the accuracy
        before and after; the number of photos in each class; what the blocks printed; and the names
        that they left.
    """
    if photos is not None:
        shutil.copytree(photos, folder / "photos")
    names: dict[str, Any] = {}
    steps: dict[str, float] = {}
    printed = io.StringIO()
    with _within(folder), contextlib.redirect_stdout(printed):
        for page in (HOME, FINE_TUNE):
            names = {"__name__": page}
            for heading, code in code_blocks(ROOT / "docs" / page, "{testcode}"):
                if heading.startswith(_PRACTICE) and photos is not None:
                    continue
                began = time.perf_counter()
                exec(compile(code, f"docs/{page}", "exec"), names)
                step = "The home page" if page == HOME else heading
                steps[step] = steps.get(step, 0) + time.perf_counter() - began
    numbered = [step for step in steps if re.match(r"\d+\.", step)]
    counts = names["photos"].labels.bincount().tolist()
    return {
        "steps": {step: round(seconds, 1) for step, seconds in steps.items()},
        "seconds": round(sum(steps[step] for step in ("The home page", *numbered)), 1),
        "before": names["before"].accuracy,
        "after": names["after"].accuracy,
        "interval": names["after"].accuracy_interval,
        "tested": names["after"].num_images,
        "photos": dict(zip(names["photos"].classes, counts, strict=True)),
        "printed": printed.getvalue(),
        "names": names,
    }


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    """The working directory for the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def fresh_walk(arguments: list[str]) -> int:
    """Install this checkout into a new environment, and walk there."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        venv.create(folder, with_pip=True)
        python = Path(folder, "Scripts" if os.name == "nt" else "bin", "python")
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([*pip, f"{ROOT}[plots]"], check=True, env=environment)
        seconds = time.perf_counter() - began
        command = [str(python), __file__, *arguments, "--installed-in", f"{seconds:.1f}"]
        return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """Walk, and print and keep what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="install into a new environment first")
    parser.add_argument("--photos", type=Path, help="photos of your own, a folder for each class")
    parser.add_argument("--output", type=Path, help="a .json file for the result")
    parser.add_argument("--installed-in", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fresh:
        return fresh_walk([each for each in sys.argv[1:] if each != "--fresh"])
    with tempfile.TemporaryDirectory() as folder:
        found = walk(Path(folder), given.photos and given.photos.resolve())
        del found["names"]  # a file of the network may be open
    print(found.pop("printed"))
    found["install_seconds"] = given.installed_in
    found["seconds_in_all"] = total = round(found.pop("seconds") + (given.installed_in or 0), 1)
    for step, seconds in found["steps"].items():
        print(f"{seconds:7.1f} s  {step}")
    print(f"{total:7.1f} s  in all, to a network that is kept")
    print(f"{found['before']:.1%} before, {found['after']:.1%} after, of {found['tested']} photos")
    if given.output:
        import torch

        from cifarzoo.compute.machine import describe_machine

        found["machine"] = {**describe_machine(torch.device("cpu")), "date": time.strftime("%F")}
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(total > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
