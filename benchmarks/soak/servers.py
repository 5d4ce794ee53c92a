"""Downloads from broken servers: in time either the right file or an error of ours."""

from __future__ import annotations

import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from found import Found

from broken_servers import Answer, answering, broken_answers, send_file  # isort: skip  (of tests)
from cifarzoo.errors import DownloadError
from cifarzoo.files.downloads import Pace, download
from cifarzoo.files.writing import digest

__all__ = ["soak"]

_LIMIT = 60.0  # seconds; five addresses in two rounds, each given up after half of one
_PACE = Pace(silence=0.5, slow=3000, crawl=500, patience=0.3, waits=(0.05,))
_TOGETHER = 8


def soak(count: int, seed: int) -> Found:
    """Download ``count`` files, from one to five servers each; half of the times one is good.

    Args:
        count: How many.
        seed: Of the servers and the file.
    """
    found, draw = Found(), random.Random(f"servers {seed}")
    content = draw.randbytes(50_000)
    broken = broken_answers(content, stall=2.0)
    chosen = []
    for _ in range(count):
        names = draw.choices([*broken], k=draw.randint(1, 4))
        if draw.random() < 0.5:
            names.insert(draw.randint(0, len(names)), "good")
        chosen.append(names)
    answers = {**broken, "good": send_file(content)}
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(_TOGETHER) as pool:
        folders = [Path(base, str(number)) for number in range(count)]
        ends = pool.map(lambda a, b: _fetch(a, answers, content, b), chosen, folders)
        for names, (end, seconds, asked) in zip(chosen, ends, strict=True):
            found.counts["downloads"] += 1
            found.counts["broken servers"] += asked
            where = f"{', '.join(names)}: {end} after {seconds:.1f} s"
            if seconds > _LIMIT:
                found.problem("hangs", where)
            if end in ("whole", "refused"):
                found.counts[f"of them {end}"] += 1
            if end == "wrong" or (end == "refused" and "good" in names):
                found.problem("wrong results", where)
            elif end not in ("whole", "refused"):
                found.problem("foreign errors", where)
    return found


def _fetch(
    names: list[str], answers: dict[str, Answer], content: bytes, folder: Path
) -> tuple[str, float, int]:
    """How a download from these servers ends, its seconds, and how many broken servers it met."""
    target, began, asked = folder / "file.bin", time.monotonic(), set()

    def noted(name: str) -> Answer:
        def answer(peer, own):  # type: ignore[no-untyped-def]
            asked.add(own)
            answers[name](peer, own)

        return answer if name != "good" else answers[name]

    with ExitStack() as stack:
        urls = [stack.enter_context(answering(noted(name))) for name in names]
        try:
            path = download(urls, target, checksum=digest(content, "md5"), pace=_PACE)
            end = "whole" if path.read_bytes() == content else "wrong"
        except DownloadError:
            end = "wrong" if target.exists() else "refused"
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
    return end, seconds, len(asked)
