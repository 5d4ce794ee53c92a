"""Trainings of two processes, of which one is killed or stopped: the other says so and ends.

Then both are started again, and must end with the history of a run that nothing happened to.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from found import Found
from kills import EPOCHS, Run, train

from cifarzoo.errors import PeerError

__all__ = ["soak"]

_TIMEOUT = 10.0  # seconds for which a process waits for the other
_ENDS = ("processes killed", "processes stopped")
_LIMIT = 90.0  # seconds after which it hangs


def train_rank(folder: str, rank: int, port: int, pipe: Connection) -> None:
    """In a child: one of the two processes."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CIFARZOO_RANK_TIMEOUT": str(_TIMEOUT),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # gloo writes there too
    try:
        train(folder, pipe)
    except PeerError:
        pipe.send("peer")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


class Pair:
    """The two processes of a run in ``folder``."""

    def __init__(self, folder: Path, context: ForkServerContext) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.children, self.pipes = [], []
        self.told: list[list[Any]] = [[], []]
        for rank in (0, 1):
            here, there = context.Pipe()
            child = context.Process(target=train_rank, args=(str(folder), rank, port, there))
            child.start()
            there.close()
            self.children.append(child)
            self.pipes.append(here)

    def listen(self, rank: int, seconds: float) -> bool:
        """Take what a process tells for some time; whether it has told its end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if not self.pipes[rank].poll(max(0.0, deadline - time.monotonic())):
                    break
                self.told[rank].append(self.pipes[rank].recv())
            except EOFError:
                return True
        return False

    def end(self) -> None:
        """Kill what is left."""
        for child in self.children:
            child.kill()
            child.join()

    def epochs(self, rank: int) -> int:
        """The last epoch that a process has told."""
        return max((each for each in self.told[rank] if isinstance(each, int)), default=0)


def soak(count: int, seed: int, context: ForkServerContext) -> Found:
    """Kill or stop ``count`` processes.

    Args:
        count: How many; a third of them is stopped, so that they hang.
        seed: Of the moments.
        context: Starts the children.
    """
    found, draw = Found(), random.Random(f"ranks {seed}")
    with tempfile.TemporaryDirectory() as base:
        whole = Pair(Path(base, "whole"), context)
        began = time.monotonic()
        expected = _finish(whole)
        seconds = time.monotonic() - began
        for number in itertools.count():
            if sum(found.counts[kind] for kind in _ENDS) >= count or found.is_enough:
                break
            run = Run(Path(base, str(number)), context)
            is_stopped, victim = number % 3 == 2, draw.randint(0, 1)
            pair = Pair(run.folder, context)
            for rank in (0, 1):
                pair.pipes[rank].poll(_LIMIT)  # it has come to its training
            time.sleep(draw.uniform(0, seconds))
            if pair.children[victim].is_alive():
                os.kill(pair.children[victim].pid, signal.SIGSTOP if is_stopped else signal.SIGKILL)
                found.counts[_ENDS[is_stopped]] += 1
            _check_other(pair, 1 - victim, f"run {number}", found)
            pair.listen(victim, 0.1)
            pair.end()
            run.told = pair.epochs(0)
            run.check(found)
            again = Pair(run.folder, context)
            if _finish(again) != expected:
                found.problem("wrong results", f"run {number}: it ended otherwise")
            run.check(found, is_over=True)
    return found


def _check_other(pair: Pair, other: int, where: str, found: Found) -> None:
    """The other process ends by itself, with our error or because it had done all."""
    if not pair.listen(other, _LIMIT):
        found.problem("hangs", f"{where}: the other process waits for more than {_LIMIT:g} s")
        return
    last = pair.told[other][-1] if pair.told[other] else "nothing"
    if last == "peer":
        found.counts["of them reported by the other process"] += 1
    elif isinstance(last, str):
        found.problem("foreign errors", f"{where}: {last}")
    elif not isinstance(last, tuple):
        found.problem("crashes", f"{where}: the other process told {last} of {EPOCHS} epochs")


def _finish(pair: Pair) -> Any:
    """Let both train to the end; the weights' checksum and the history of the first."""
    for rank in (0, 1):
        pair.listen(rank, 4 * _LIMIT)
    pair.end()
    return pair.told[0][-1] if pair.told[0] else None
