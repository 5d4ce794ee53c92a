"""What only a GPU can tell: tests, throughput, 94 % over many seeds, weights of large networks.

Usage: python benchmarks/gpu.py [--minutes 9] [--folder build/gpu] [--only KIND ...] [--show]

It works off a list, cheapest first, from where the folder stands: each step is noted as soon as it
is done, a training goes on from its last epoch, and it ends by itself when the minutes are over. A
step that fails is noted too, and tried again the next time. ``results.json`` holds what was
measured. Finished weights lie in ``weights``, as those of the training queue, cut into pieces of
15 MiB where they are larger, with their sha256 in ``results.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from finished_weights import keep
from machine import check_names, describe_machine, synchronize

import cifarzoo
from cifarzoo import ImageSet, Recipe, Trainer
from cifarzoo.compute.place import Place
from cifarzoo.files.writing import write_bytes, write_text

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("tests", "throughput", "94", "weights")
SEEDS = 20
PIECE = 15 << 20  # bytes
STEPS = 60  # of a measurement of throughput
MODELS = ("simple", "deep_bn", "resnet20", "resnet18_cifar", "airbench94", "airbench96")

# largest first: what takes longest on a processor
WEIGHTS: dict[str, dict[str, Any]] = {
    "resnet110": {"epochs": 160},
    "airbench96": {},
    "resnet18_cifar": {"epochs": 40},
    "resnet56": {"epochs": 160},
    "resnet44": {"epochs": 160},
    "resnet32": {"epochs": 160},
    "resnet20": {"epochs": 160},
    "airbench95": {},
}


class OutOfTimeError(Exception):
    """The minutes are over."""


class Bench:
    """The folder with all that was found, and the time that is left."""

    def __init__(self, folder: Path, minutes: float, device: str) -> None:
        self.folder, self.device = folder, device
        self.end = time.monotonic() + 60 * minutes
        self.file = folder / "results.json"
        self.found: dict[str, Any] = (
            json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        )

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def note(self, step: str, result: Any) -> None:
        """Keep what a step has found."""
        self.found[step] = result
        write_text(self.file, json.dumps(self.found, indent=1) + "\n")
        print(f"{step}: {json.dumps(result)[:150]}", flush=True)

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Stop a training, as Ctrl-C would, when the time is over."""
        over = threading.Event()

        def stop() -> None:
            over.set()
            os.kill(os.getpid(), 2)

        timer = threading.Timer(max(self.left(), 0.1), stop)
        timer.start()
        try:
            yield
        except KeyboardInterrupt:
            if over.is_set():
                raise OutOfTimeError from None
            raise
        finally:
            timer.cancel()


def run_tests(bench: Bench) -> dict[str, Any]:
    """The tests that are for a GPU."""
    if any(importlib.util.find_spec(name) is None for name in ("pytest", "hypothesis")):
        raise RuntimeError("pytest and hypothesis are not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/gpu")],
        capture_output=True,
        text=True,
        timeout=max(bench.left(), 1),
        check=False,
    )
    return {"exit": done.returncode, "last": done.stdout.strip().splitlines()[-12:]}


def measure_throughput(name: str, bench: Bench, images: ImageSet) -> dict[str, float]:
    """Images a second of the Trainer, compiled, and of a step written by hand."""
    recipe = Recipe(epochs=1, batch_size=512, learning_rate=0.01, scheduler="constant")
    few = images.subset(range(min(len(images), recipe.batch_size * STEPS)))
    ours = []
    trainer = Trainer(
        cifarzoo.create_model(name, seed=0),
        recipe.replace(epochs=4),
        device=bench.device,
        compile=bench.device == "cuda",
    )
    for record in trainer.fit(few).records[1:]:  # the first compiles
        ours.append(record.images_per_second)
    by_hand = step_by_hand(name, bench, len(few) // recipe.batch_size, recipe.batch_size)
    rate = statistics.median(ours)
    return {"ours": rate, "by hand": by_hand, "ratio": rate / by_hand}


def step_by_hand(name: str, bench: Bench, steps: int, batch: int) -> float:
    """A compiled channels_last step in mixed precision on one batch that never leaves the GPU."""
    place = Place.find(bench.device)
    model = (
        cifarzoo.create_model(name, seed=0).to(place.device).to(memory_format=torch.channels_last)
    )
    network = torch.compile(model, mode="max-autotune") if bench.device == "cuda" else model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True
    )
    images = torch.randn(batch, 3, 32, 32, device=place.device, dtype=place.precision)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=place.device)
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with place.autocast():
                loss = F.cross_entropy(network(images).float(), labels)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the GPU
        rates.append(steps * batch / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def run_94(seed: int, bench: Bench, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """One training of fast94: what `run_plain_94` says too, measured as there."""
    recipe = cifarzoo.get_model_info("airbench94").get_recipe("fast94").replace(seed=seed)
    model = cifarzoo.create_model("airbench94", seed=seed)
    compiled = bench.device == "cuda"
    start = time.perf_counter()
    history = Trainer(model, recipe, device=bench.device, compile=compiled).fit(train)
    with_views = cifarzoo.evaluate(model, test, tta="flip_shift_unsure", device=bench.device)
    synchronize()
    seconds = time.perf_counter() - start
    return {
        "accuracy": cifarzoo.evaluate(model, test, device=bench.device).accuracy,
        "accuracy_with_tta": with_views.accuracy,
        "seconds": seconds,
        "training": history.seconds,
    }


def run_plain_94(seed: int, bench: Bench) -> dict[str, float]:
    """The published training, in a process of its own."""
    script = ROOT / "research/plain_94.py"
    command = [sys.executable, str(script), "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--dtype", Place.find(bench.device).precision_name],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=max(bench.left(), 1),
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def train_weights(name: str, bench: Bench, train: ImageSet) -> dict[str, Any]:
    """Train on all images, or go on; then keep the weights as those of the training queue."""
    recipe = cifarzoo.get_model_info(name).recipe.replace(**WEIGHTS[name])
    run = bench.folder / "runs" / name
    model = cifarzoo.create_model(name, seed=recipe.seed, **recipe.model_options)
    trainer = Trainer(
        model,
        recipe,
        device=bench.device,
        compile="auto",
        output=run,
        metadata={
            "val_size": 0,
            "data": "cifar10",
            "command": " ".join(sys.argv),
            "validation_accuracy": {},
        },
    )
    history = trainer.fit(train, resume=(run / "checkpoint.pt").exists())
    file = bench.folder / "weights" / f"{name}-{recipe.seed}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = keep(run, file, commits())
    return {**kept["test_accuracy"], "seconds": history.seconds, "files": cut(file)}


def commits() -> list[str]:
    """What the code is of, where that is known."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return [subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()]
    return []


def cut(file: Path) -> dict[str, str]:
    """Cut a file into pieces where it is large; the sha256 of each, and of the whole."""
    content = file.read_bytes()
    sums = {file.name: hashlib.sha256(content).hexdigest()}
    if len(content) <= PIECE:
        return sums
    for number, start in enumerate(range(0, len(content), PIECE)):
        piece = content[start : start + PIECE]
        path = write_bytes(file.with_name(f"{file.name}.{number}"), piece)
        sums[path.name] = hashlib.sha256(piece).hexdigest()
    file.unlink()
    return sums


def steps(bench: Bench) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All of the list: a name for each step, its kind first, and what does it."""
    train, test = (cifarzoo.load_cifar10(part, download=False) for part in ("train", "test"))
    yield "tests", lambda: run_tests(bench)
    for name in MODELS:
        yield f"throughput {name}", lambda name=name: measure_throughput(name, bench, train)
    for seed in range(SEEDS):
        yield f"94 fast94 {seed}", lambda seed=seed: run_94(seed, bench, train, test)
        yield f"94 plain {seed}", lambda seed=seed: run_plain_94(seed, bench)
    for name in WEIGHTS:
        yield f"weights {name}", lambda name=name: train_weights(name, bench, train)


def show(found: dict[str, Any]) -> None:
    """A short table."""
    for step, result in found.items():
        if step.startswith(("throughput", "weights")) and ended(result):
            shown = {k: round(v, 4) for k, v in result.items() if isinstance(v, float)}
            print(f"{step:28} {shown}")
    for contender in ("fast94", "plain"):
        runs = [r for step, r in found.items() if step.startswith(f"94 {contender}") and ended(r)]
        if runs:
            keys = ("accuracy", "accuracy_with_tta", "training", "seconds")
            medians = {key: statistics.median(r[key] for r in runs) for key in keys}
            print(f"94 {contender}, {len(runs)} seeds, medians: {medians}")


def ended(result: Any) -> bool:
    """Whether a step came to its end."""
    return not (isinstance(result, dict) and "error" in result)


def main() -> None:
    """Work until the list or the time is at its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"))
    parser.add_argument("--only", nargs="*", default=[], help=f"of {', '.join(KINDS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--show", action="store_true", help="only show what was found")
    arguments = parser.parse_args()
    check_names(parser, "--only", arguments.only, KINDS)
    bench = Bench(arguments.folder, arguments.minutes, arguments.device)
    if not arguments.show:
        bench.note("machine", describe_machine())
        for step, do in steps(bench):
            wanted = not arguments.only or step.split()[0] in arguments.only
            if (step in bench.found and ended(bench.found[step])) or not wanted:
                continue
            if bench.left() <= 0:
                break
            try:
                with bench.limited():
                    found = do()
            except (OutOfTimeError, subprocess.TimeoutExpired):
                print(f"{step}: goes on the next time")
                break
            except Exception as error:  # the others are worth their time
                found = {"error": f"{type(error).__name__}: {error}"[:2000]}
            bench.note(step, found)
    show(bench.found)


if __name__ == "__main__":
    main()
