"""The soak: what must not be lost is attacked, and counted.

python benchmarks/soak --kills 300 --lines 500 --seed 1
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
import time
from multiprocessing.context import ForkServerContext

import commands
import kills


def start_server() -> ForkServerContext:
    """A server that has imported all there is: its children start within milliseconds."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server: threads do not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *(
                "cifarzoo.training.trainer",
                "cifarzoo.models",
                "cifarzoo.evaluation",
                "cifarzoo.cli",
            ),
            "torch._dynamo",  # which an optimizer imports with its first step
        ]
    )
    return context


def main() -> int:
    """Run the parts; the exit code is 1 when one found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="processes to kill")
    parser.add_argument("--lines", type=int, default=500, help="command lines to run")
    parser.add_argument("--seed", type=int, help="of all draws; a new one unless given")
    given = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    context = start_server()
    problems = []
    began = time.monotonic()
    if given.kills:
        killed = kills.soak(given.kills, seed, context)
        problems += killed.problems
        print(
            f"{killed.kills} processes killed in {killed.runs} runs, {killed.in_writes} of them "
            f"during a write: {len(killed.problems)} problems, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    began = time.monotonic()
    if given.lines:
        ran = commands.soak(given.lines, seed, context)
        problems += ran.problems
        codes = ", ".join(f"{count} x {code}" for code, count in sorted(ran.codes.items()))
        print(
            f"{ran.lines} command lines, exit codes {codes}: {len(ran.problems)} problems, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
