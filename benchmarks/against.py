"""Training speed against an earlier commit: the same networks, one after the other, in turn.

Usage: python benchmarks/against.py COMMIT [--only NAME ...] [--pairs 15] [--precision float32]

Two processes train, one with the code of the commit (in a git worktree), one with today's. They
take turns, so that both meet the same machine. Shown is the median of the ratios of their speeds,
with the quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# in a turn: enough that the memory, whose pages the system clears once in each, costs little
IMAGES = {
    "simple": 12_800,
    "deep_bn": 3_840,
    "resnet20": 3_840,
    "resnet56": 1_280,
    "airbench94": 2_560,
    "MobileNetV2": 2_560,
    "ConvMixer-256/8": 2_560,
    "DenseNet-BC-100-12": 2_560,
    "cct_7_3x1": 256,
}
MODELS = ("simple", "deep_bn", "resnet20", "resnet56", "resnet18_cifar", "airbench94")
BATCH = 128


def work(precision: str) -> None:
    """Train what is asked for, line by line: a name and a number of images; answer seconds."""
    import families
    import torch

    import cifarzoo
    from cifarzoo import Augmentation, ImageSet, Recipe, Trainer

    with contextlib.suppress(ImportError):  # earlier commits have no layers in C
        from cifarzoo.compute.cpu import library

        library.build()  # runs as short as a turn would not
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        learning_rate=1e-4,
        scheduler="constant",
        augmentation=Augmentation(flip="random", crop_padding=4),
    )
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (12_800, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(pixels)) % 10
    classes = tuple(map(str, range(10)))
    models: dict[str, Any] = {}
    for line in sys.stdin:
        name, count = json.loads(line)
        if name not in models:
            torch.manual_seed(0)
            build = families.FAMILIES.get(name)
            models[name] = build() if build else cifarzoo.create_model(name, seed=0)
        images = ImageSet(pixels[:count], labels[:count], classes)
        trainer = Trainer(models[name], recipe, device="cpu", precision=precision)  # type: ignore[arg-type]
        (record,) = trainer.fit(images).records
        print(json.dumps(record.seconds), flush=True)


class DeadWorkerError(Exception):
    """A process has ended before its work."""


@contextlib.contextmanager
def worker(source: Path, precision: str) -> Iterator[Any]:
    """A process with the code of ``source``; yields a function of a name and a number of images."""
    command = [sys.executable, __file__, "--work", "--precision", precision]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def train(name: str, count: int) -> float:
            process.stdin.write(json.dumps([name, count]) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = process.stdout.readline()  # type: ignore[union-attr]
            if not answer:
                raise DeadWorkerError(f"the code in {source} could not train {name}; see above")
            return float(json.loads(answer))

        yield train
        process.stdin.close()


def compare(name: str, commit: Path, pairs: int, precision: str) -> dict[str, Any]:
    """Medians of one network, by two processes of its own."""
    count = IMAGES.get(name, 1_280)
    ratios, rates = [], []
    with worker(commit / "src", precision) as old, worker(ROOT / "src", precision) as new:
        for train in (old, new):
            train(name, min(count, 4 * BATCH))  # chooses kernels
        for pair in range(pairs):
            order = (old, new) if pair % 2 else (new, old)
            times = {train: train(name, count) for train in order}
            ratios.append(times[old] / times[new])
            rates.append(count / times[new])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "images/s": round(statistics.median(rates), 1),
        "pairs": pairs,
    }


def main() -> None:
    """Compare, or be one of the two that are compared."""
    import families

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--only", nargs="*", default=[*MODELS, *families.FAMILIES])
    parser.add_argument("--pairs", type=int, default=15)
    choices = ("auto", "float32", "bfloat16")
    parser.add_argument("--precision", default="auto", choices=choices)
    parser.add_argument("--output", type=Path, help="a JSON file, written after each network")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.precision)
        return
    from machine import check_names, describe_machine

    import cifarzoo
    from cifarzoo.files.writing import write_text

    if arguments.commit is None:
        parser.error("name the commit to measure against")
    if arguments.pairs < 2:
        parser.error("--pairs: quartiles need at least 2")
    check_names(parser, "--only", arguments.only, [*cifarzoo.list_models(), *families.FAMILIES])
    results: dict[str, Any] = {
        "machine": describe_machine(),
        "commit": arguments.commit,
        "precision": arguments.precision,
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "-q", str(tree), arguments.commit], check=True)
        try:
            for name in arguments.only:
                try:
                    found = compare(name, tree, arguments.pairs, arguments.precision)
                except DeadWorkerError as error:
                    print(f"{name:22} {error}", flush=True)
                    continue
                print(f"{name:22} {json.dumps(found)}", flush=True)
                results[name] = found
                if arguments.output:
                    write_text(arguments.output, json.dumps(results, indent=1) + "\n")
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


if __name__ == "__main__":
    main()
