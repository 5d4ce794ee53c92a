"""The soak: what must not be lost is attacked, and counted.

    python benchmarks/soak                      all parts, as often as the documentation says
    python benchmarks/soak kills=20 servers=50  these parts, so often
    python benchmarks/soak --seed 1 --output benchmarks/results/reliability.json

The seed is printed; a part draws the same again from the same one. Two parts run at a time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads do not survive a fork

import commands
import disk
import kills
import ranks
from found import LIMIT, Found, record, run_inside

HANGS = 300  # seconds beyond the limit
OUTSIDE: dict[str, Callable[[int, int, ForkServerContext], Found]] = {
    "kills": kills.soak,
    "commands": commands.soak,
    "ranks": ranks.soak,
    "disk": disk.soak,
}
"""Parts that start children; each of the others is a child."""
COUNTS = {
    "records": 20_000,
    "kills": 300,
    "recipes": 1_000,
    "commands": 500,
    "ranks": 16,
    "servers": 300,
    "threads": 500,
    "disk": 100,
    "growth": 200,
}
"""The parts, those that take longest first, and how often each does what it does."""


def start_server() -> ForkServerContext:
    """A server that has imported all there is: its children start within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # by which the server finds it
    return context


def run(
    part: str, count: int, seed: int, limit: float, context: ForkServerContext
) -> tuple[Found, float]:
    """Run a part; what it has found, and its seconds."""
    began = time.monotonic()
    if part in OUTSIDE:
        return OUTSIDE[part](count, seed, context), time.monotonic() - began
    here, there = context.Pipe()
    child = context.Process(target=run_inside, args=(part, count, seed, there))
    child.start()
    there.close()
    found = Found()
    try:
        if here.poll(limit + HANGS):
            found = here.recv()
        else:
            found.problem("hangs", f"{part} took more than {limit + HANGS} s")
    except EOFError:
        child.join()
        found.problem("crashes", f"{part} ended with the exit code {child.exitcode}")
    child.kill()
    child.join()
    return found, time.monotonic() - began


def parse(text: str) -> tuple[str, int]:
    """A part and its count, of "part" or "part=count"."""
    part, _, count = text.partition("=")
    if part not in COUNTS or not (count or "1").isdigit():
        raise argparse.ArgumentTypeError(f"name one of {', '.join(COUNTS)}, as in kills=20")
    return part, int(count or COUNTS[part])


def main() -> int:
    """Run the parts; the exit code is 1 when one found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", type=parse, help=f"of {', '.join(COUNTS)}; all unless")
    parser.add_argument("--seed", type=int, help="of all draws; a new one unless given")
    parser.add_argument("--output", type=Path, help="a JSON file that receives the counts")
    parser.add_argument("--limit", type=float, default=1000, help="seconds for each part")
    given = parser.parse_args()
    os.environ[LIMIT] = str(given.limit)
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    context = start_server()
    problems: list[tuple[str, str]] = []

    def one(chosen: tuple[str, int]) -> None:
        found, seconds = run(*chosen, seed, given.limit, context)
        done = ", ".join(f"{count:,} {what}" for what, count in found.counts.items())
        lines = [f"{chosen[0]}: {done}; {len(found.problems)} problems, {seconds:.0f} s"]
        lines += [f"  {kind}: {text}" for kind, text in found.problems]
        print(*lines, sep="\n", flush=True)
        problems.extend(found.problems)
        if given.output:
            record(given.output, chosen[0], found, seed=seed, seconds=round(seconds))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, given.parts or COUNTS.items()))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
