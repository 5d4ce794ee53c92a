"""Coverage-guided fuzzing of what reads weights and checkpoints: no crash, no error but ours.

    python benchmarks/fuzz.py --seconds 600 --output benchmarks/results/reliability.json

atheris (libFuzzer) changes files, and keeps those that reach new lines of cifarzoo and of torch's
reader. Real files are the beginning. Half of the changes are made inside: in the pickle of an
archive, or in the header of a safetensors file, with checksums that agree again. A child reads, so
that a crash, or a file that takes too long, ends it alone; the next one goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks" / "soak")]

CHILD = ROOT / "benchmarks" / "soak" / "fuzz_child.py"
WORK = ROOT / "build" / "fuzz"
SECONDS = 25  # for a file
MEGABYTES = 6000


def run_child(seconds: int, seed: int) -> str:
    """Fuzz for some time; what libFuzzer and the child print."""
    corpus, artifacts = WORK / "corpus", WORK / "found"
    for folder in (corpus, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(CHILD), f"-max_total_time={seconds}", f"-seed={seed}"]
    command += [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-print_final_stats=1"]
    command += ["-max_len=40000", "-len_control=0", f"-artifact_prefix={artifacts}/", str(corpus)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = result.stdout.decode(errors="replace")
    (WORK / "log.txt").write_text(text)
    return text


def main() -> int:
    """Fuzz, count, and return 1 if something was found."""
    from found import Found, record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, help="of libFuzzer; a new one unless given")
    parser.add_argument("--output", type=Path, help="a JSON file that receives the counts")
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("it needs the package atheris: pip install atheris")
    seed = given.seed or secrets.randbelow(1 << 31)
    print(f"seed {seed}", flush=True)
    found, began = Found(), time.monotonic()
    while (left := round(given.seconds - (time.monotonic() - began))) > 0 and not found.is_enough:
        text = run_child(left, seed + found.counts["processes"])
        found.counts["processes"] += 1
        executed = re.findall(r"^stat::number_of_executed_units:\s*(\d+)", text, re.MULTILINE)
        executed = executed or re.findall(r"^#(\d+)\s", text, re.MULTILINE) or ["0"]
        if executed == ["0"] and "ERROR: libFuzzer" not in text:
            print(f"no file was read, and nothing is recorded:\n{text[-2000:]}")
            return 1
        found.counts["executions"] += int(executed[-1])
        covered = re.findall(r"cov: (\d+)", text)
        found.counts["places covered"] = max(
            found.counts["places covered"], int(covered[-1]) if covered else 0
        )
        for kind, what in sorted(set(re.findall(r"^(foreign|wrong): (.*)$", text, re.MULTILINE))):
            found.problem("foreign errors" if kind == "foreign" else "wrong results", what)
        if "ERROR: libFuzzer: timeout" in text:
            found.problem("hangs", f"a file takes more than {SECONDS} s: {_artifact(text)}")
        elif "stat::number_of_executed_units" not in text or "ERROR: libFuzzer" in text:
            found.problem("crashes", f"{text[-2000:]}\n{_artifact(text)}")
    seconds = round(time.monotonic() - began)
    print(*(f"{count:,} {what}" for what, count in found.counts.items()), sep=", ")
    for kind, text in found.problems:
        print(f"  {kind}: {text}")
    if given.output:
        record(given.output, "fuzz", found, seed=seed, seconds=seconds)
    return bool(found.problems)


def _artifact(text: str) -> str:
    return " ".join(re.findall(r"Test unit written to (\S+)", text))


if __name__ == "__main__":
    sys.exit(main())
