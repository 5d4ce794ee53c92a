"""Train the weights that come with the package: a queue of runs, and the move into the package.

Usage: python benchmarks/zoo.py --queue | --state | --stop | --ship ENTRY

Needs the official CIFAR-10 files ($CIFARZOO_DATA). ``--queue`` works off ``zoo.toml``, one run at a
time, with the code of the last commit: it copies that commit, so that files may be edited
meanwhile. Ctrl-C, ``--stop`` and a kill cost an epoch at most; the next ``--queue`` goes on.
Finished weights lie in ``results/zoo``, beside ``log.jsonl`` with a line for each finished run.
``--ship`` moves those of an entry into the package: seed 0, with the figures of all its seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from finished_weights import ship
from training_queue import Queue

from cifarzoo import CifarZooError
from cifarzoo.files.writing import cache_directory

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Do the one thing that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--queue", action="store_true", help="train what is left")
    what.add_argument("--state", action="store_true", help="show what is left, with hours")
    what.add_argument("--stop", action="store_true", help="have the queue save its run and end")
    what.add_argument("--ship", metavar="ENTRY", help="move finished weights into the package")
    parser.add_argument("--list", type=Path, default=HERE / "zoo.toml")
    parser.add_argument("--results", type=Path, default=HERE / "results/zoo")
    parser.add_argument("--home", type=Path, default=cache_directory() / "queue")
    parser.add_argument("--commit", default="", help="what the code is of; set by the queue itself")
    arguments = parser.parse_args()
    listing, results, home = (
        path.resolve() for path in (arguments.list, arguments.results, arguments.home)
    )
    if arguments.queue and not arguments.commit:
        if not os.environ.get("CIFARZOO_DATA"):
            sys.exit("CIFARZOO_DATA must name the folder with the official CIFAR-10 files")
        start_from_copy(home, ["--list", str(listing), "--results", str(results)])
    queue = Queue(listing, home, results, commit=arguments.commit)
    try:
        if arguments.queue:
            sys.exit(min(queue.work(), 1))
        elif arguments.stop:
            print("it saves its run and ends" if queue.stop() else "no queue is at work")
        elif arguments.ship:
            lines = [x for x in queue.finished().values() if x["entry"] == arguments.ship]
            print(ship(lines, results))
        else:
            print(queue.describe())
    except CifarZooError as error:
        sys.exit(str(error))


def start_from_copy(home: Path, options: list[str]) -> None:
    """Go on as the same command of a copy of the last commit; files here may then be edited."""
    git = ["git", "-C", str(HERE)]
    newest = ["rev-list", "-1", "--abbrev-commit", "--abbrev=12", "HEAD"]
    head, commit = (
        subprocess.check_output([*git, *newest, *paths], text=True).strip()
        for paths in ((), ("--", ":/src"))  # what trains is below src
    )
    copy = home / f"code-{head}"
    if not copy.exists():
        subprocess.run([*git, "worktree", "prune"], check=True)  # of homes that are gone
        subprocess.run(
            [*git, "worktree", "add", "--quiet", "--detach", str(copy), head], check=True
        )
    print(f"the code is of commit {commit}, in {copy}", flush=True)
    program = [sys.executable, str(copy / "benchmarks/zoo.py"), "--queue", "--commit", commit]
    # threads that wait for each other sleep: where others use the cores too, spinning took 10 times
    # as long
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(copy / "src")}
    os.execve(sys.executable, [*program, "--home", str(home), *options], environment)


if __name__ == "__main__":
    main()
