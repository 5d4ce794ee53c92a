"""How fast, against the plain way: training, loader, evaluation, start-up, memory.

Usage: python benchmarks/throughput.py [--rounds 5] [--only train,loader] [--output FILE]

benchmarks/every_family.py measures training in the same way, for a network of each family.

Needs the official CIFAR-10 files ($CIFARZOO_DATA). Every comparison runs in this one process, the
contenders in turn, and is reported as the median over rounds with its spread; ratios are medians of
the ratios within a round. The contenders:

plain   torchvision's dataset and transforms, DataLoader with 2 workers, float32, contiguous
tuned   the same dataset read as uint8 tensors with torchvision's v2 transforms, DataLoader with 2
        persistent workers, bfloat16 autocast, channels_last, fused optimizer
hand    a bare loop over our Loader with the same step as the Trainer: what the Trainer adds
ours    ``Trainer.fit``
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.utils
import torch.nn.functional as F
import torchvision
from machine import (
    DEVICE,
    build_layers,
    check_names,
    check_others,
    describe_machine,
    synchronize,
)
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import cifarzoo
from cifarzoo import CIFAR10_PREPROCESSING, Augmentation, ImageSet, Loader, Recipe
from cifarzoo.compute.machine import computes_bfloat16
from cifarzoo.compute.place import Precision
from cifarzoo.data.sets.cifar import data_root
from cifarzoo.files.writing import write_text

BATCH = 128
WARMUP = 8  # batches before the clock starts: workers come up, kernels are chosen
STEPS = {"simple": 200, "deep_bn": 60, "resnet18_cifar": 10}
RESULTS = Path(__file__).parent / "results" / "throughput.json"
MIXED = computes_bfloat16(DEVICE)
FAST = torch.bfloat16 if MIXED else torch.float32
AUGMENTATION = Augmentation(flip="random", crop_padding=4)
# the same SGD for all contenders, whatever the default recipes do
PLAIN = Recipe(
    epochs=2, batch_size=BATCH, learning_rate=0.01, weight_decay=0.0, augmentation=AUGMENTATION
)
MEAN, STD = CIFAR10_PREPROCESSING.mean, CIFAR10_PREPROCESSING.std

Contender = Callable[[], float]


def main() -> None:
    """Measure, print tables, write JSON."""
    sections = {
        "train": measure_training,
        "compile": measure_compile,
        "loader": measure_loader,
        "evaluation": measure_evaluation,
        "precision": measure_precision,
        "start": measure_start,
        "memory": measure_memory,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(sections), help="comma-separated sections")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    check_names(parser, "--only", names, sections)
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    others = [name for name in sections if name in results and name not in names]
    check_others(parser, arguments.output, others, results.get("machine", {}))
    results["machine"] = describe_machine()
    build_layers()
    for name in names:
        results[name] = sections[name](arguments.rounds)
        show(name, results[name])
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.output, json.dumps(results, indent=1) + "\n")
    Console().print(f"written: {arguments.output}")


def interleave(contenders: dict[str, Contender], rounds: int, *, against: str) -> dict[str, Any]:
    """Run all contenders in turn, ``rounds`` times; rates and ratios to ``against``."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            rates[name].append(run())
    return {
        name: {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "ratio": statistics.median(v / b for v, b in zip(values, rates[against], strict=True)),
        }
        for name, values in rates.items()
    }


# --- training ------------------------------------------------------------------------------------


def measure_training(rounds: int) -> dict[str, Any]:
    """Images a second of a training epoch with augmentation, batch 128."""
    train = cifarzoo.load_cifar10("train", download=False)
    found = {}
    for name, steps in STEPS.items():
        contenders = {
            "plain": plain_training(name, steps),
            "tuned": tuned_training(name, steps),
            "hand": hand_written_training(name, train, steps),
            "ours": our_training(name, train, steps),
        }
        found[name] = interleave(contenders, rounds, against="plain")
    return found


def plain_training(name: str, steps: int) -> Contender:
    """What most scripts do."""
    model = cifarzoo.create_model(name, seed=0).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        images, labels = images.to(DEVICE), labels.to(DEVICE)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return lambda: rate_of_steps(plain_batches(), step, steps)


def tuned_training(name: str, steps: int) -> Contender:
    """A DataLoader used as well as it can be."""
    step = fast_step(name)
    return lambda: rate_of_steps(tuned_batches(), step, steps)


def hand_written_training(name: str, train: ImageSet, steps: int) -> Contender:
    """The Trainer's step in a bare loop over our Loader: no progress, no meter, no checks."""
    step = fast_step(name)
    loader = our_loader(few(train, steps + WARMUP))
    return lambda: rate_of_steps(loader, step, steps)


def fast_step(name: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Mixed precision, channels_last, fused optimizer."""
    model = cifarzoo.create_model(name, seed=0).to(DEVICE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True
    )

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        images = images.to(DEVICE, FAST, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(DEVICE, non_blocking=True)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=MIXED):
            logits = model(images)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def our_training(
    name: str, train: ImageSet, steps: int, *, precision: Precision = "auto"
) -> Contender:
    """The Trainer: the second epoch's rate, as its own record states it."""
    images = few(train, steps)

    def run() -> float:
        model = cifarzoo.create_model(name, seed=0)
        trainer = cifarzoo.Trainer(model, PLAIN, device=DEVICE, precision=precision)
        history = trainer.fit(images)
        return history[1].images_per_second

    return run


def measure_compile(rounds: int) -> dict[str, Any]:
    """Images a second over 10 epochs of the full set, the time of compiling included.

    Each run compiles anew: what another has compiled lies in a cache on disk.
    """
    train = cifarzoo.load_cifar10("train", download=False)
    recipe = PLAIN.replace(epochs=3)
    found = {}
    for name, steps in STEPS.items():
        images = few(train, steps)

        def run(compiled: bool, name: str = name, images: Any = images) -> float:
            torch.compiler.reset()
            model = cifarzoo.create_model(name, seed=0)
            trainer = cifarzoo.Trainer(model, recipe, device=DEVICE, compile=compiled)
            with torch._inductor.utils.fresh_cache():
                history = trainer.fit(images)
            once = max(0.0, history[0].seconds - history[2].seconds)
            ten_epochs = 10 * len(train)
            return ten_epochs / (once + ten_epochs / history[2].images_per_second)

        contenders: dict[str, Contender] = {
            "plain": functools.partial(run, False),
            "compiled": functools.partial(run, True),
        }
        found[name] = interleave(contenders, min(rounds, 3), against="plain")
    return found


# --- loader --------------------------------------------------------------------------------------


def measure_loader(rounds: int) -> dict[str, Any]:
    """Images a second of the batches alone: flip, 4-pixel reflect crop, normalization."""
    train = cifarzoo.load_cifar10("train", download=False)
    loader = our_loader(train)

    def ours() -> float:
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in loader)
        synchronize()
        return count / (time.perf_counter() - start)

    def nothing(images: torch.Tensor, labels: torch.Tensor) -> None:
        pass

    contenders = {
        "plain": lambda: rate_of_steps(plain_batches(), nothing, 150),
        "tuned": lambda: rate_of_steps(tuned_batches(), nothing, 150),
        "ours": ours,
    }
    return {"batches": interleave(contenders, rounds, against="plain")}


def our_loader(images: ImageSet) -> Loader:
    """The batches the Trainer makes."""
    return Loader(
        images,
        batch_size=BATCH,
        augmentation=AUGMENTATION,
        shuffle=True,
        drop_last=True,
        device=DEVICE,
        dtype=FAST,
    )


def plain_batches() -> DataLoader[Any]:
    """The dataset and transforms of torchvision, two workers."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            torchvision.transforms.RandomHorizontalFlip(),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = torchvision.datasets.CIFAR10(str(data_root()), transform=transform)
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True)


def tuned_batches() -> DataLoader[Any]:
    """uint8 tensors, v2 transforms, persistent workers, pinned memory where there is a GPU."""
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4, padding_mode="reflect"),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    images = cifarzoo.load_cifar10("train", download=False)

    class Transformed(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            image, label = images[index]
            return transform(image), label

    return DataLoader(
        Transformed(),
        batch_size=BATCH,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        persistent_workers=True,
        prefetch_factor=4,
        pin_memory=DEVICE.type == "cuda",
    )


def rate_of_steps(batches: Iterable[Any], step: Callable[..., None], steps: int) -> float:
    """Images a second over ``steps`` batches, after the warm-up."""
    iterator = iter(batches)
    for images, labels in itertools.islice(iterator, WARMUP):
        step(images, labels)
    synchronize()
    start = time.perf_counter()
    count = 0
    for images, labels in itertools.islice(iterator, steps):
        step(images, labels)
        count += len(labels)
    synchronize()
    return count / (time.perf_counter() - start)


def measure_precision(rounds: int) -> dict[str, Any]:
    """What speed costs: test accuracy of ``simple`` by its default recipe, in both precisions."""
    train, test = (cifarzoo.load_cifar10(s, download=False) for s in ("train", "test"))
    recipe = cifarzoo.get_model_info("simple").recipe
    accuracy: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for seed in range(min(rounds, 2)):
        for precision, values in accuracy.items():
            model = cifarzoo.create_model("simple", seed=seed)
            trainer = cifarzoo.Trainer(model, recipe.replace(seed=seed), precision=precision)
            trainer.fit(train)
            report = cifarzoo.evaluate(model, test, precision=precision)
            values.append(100 * report.accuracy)
    found = {
        name: {"median": statistics.mean(values), "low": min(values), "high": max(values)}
        for name, values in accuracy.items()
    }
    difference = abs(found["float32"]["median"] - found["bfloat16"]["median"])
    if difference > 1:
        raise SystemExit(f"bfloat16 and float32 differ by {difference:.2f} points")
    return {"simple, test accuracy in %": found}


# --- evaluation ----------------------------------------------------------------------------------


def measure_evaluation(rounds: int) -> dict[str, Any]:
    """Images a second over the 10,000 test images, report included."""
    test = cifarzoo.load_cifar10("test", download=False)
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(MEAN, STD)]
    )
    dataset = torchvision.datasets.CIFAR10(str(data_root()), train=False, transform=transform)
    found = {}
    for name in ("simple", "deep_bn"):
        model = cifarzoo.create_model(name, seed=0).to(DEVICE)

        @torch.no_grad()
        def plain(model: nn.Module = model) -> float:
            start, correct = time.perf_counter(), 0
            model.eval()
            for images, labels in DataLoader(dataset, batch_size=BATCH, num_workers=2):
                correct += int((model(images.to(DEVICE)).argmax(1).cpu() == labels).sum())
            return len(dataset) / (time.perf_counter() - start)

        def ours(model: nn.Module = model) -> float:
            start = time.perf_counter()
            cifarzoo.evaluate(model, test)
            return len(test) / (time.perf_counter() - start)

        ours()
        found[name] = interleave({"plain": plain, "ours": ours}, rounds, against="plain")
    return found


# --- start-up and memory -------------------------------------------------------------------------


def measure_start(rounds: int) -> dict[str, Any]:
    """Seconds until the library is there, in processes of their own.

    Its bytecode is there already, as it is after a user's first import.
    """
    calls = [f"create_model({name!r})" for name in ("simple", "resnet20", "vgg16_bn")]
    calls += [f"create_model({name!r}, pretrained=True)" for name in ("resnet20", "airbench94")]
    programs = {
        "import torch": "import torch",
        "import cifarzoo": "import torch, cifarzoo",
        **{call: f"import torch, cifarzoo; CLOCK(); cifarzoo.{call}" for call in calls},
    }
    found = {}
    for program in programs.values():
        seconds_of(program)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(seconds_of(program))
    for name, values in times.items():
        base = times["import torch"]
        found[name] = {
            "median": statistics.median(values),
            "low": min(values),
            "high": max(values),
            "ratio": statistics.median(v / b for v, b in zip(values, base, strict=True)),
        }
    return {"seconds": found}


def seconds_of(program: str) -> float:
    """Seconds ``program`` takes in a new process, from its ``CLOCK()`` on if it has one."""
    script = (
        "import time\nstart = time.perf_counter()\n"
        "def CLOCK():\n    global start\n    start = time.perf_counter()\n"
        f"{program}\nprint(time.perf_counter() - start)"
    )
    # with this variable, each process would compile the library anew
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.check_output([sys.executable, "-c", script], text=True, env=env))


def measure_memory(rounds: int) -> dict[str, Any]:
    """Peak memory in MB of training ``simple`` on the full set, above ``import torch``."""
    # the high-water mark of the process: getrusage's starts at the parent's
    script = """
import pathlib, re, torch
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
before = peak()
import cifarzoo
train = cifarzoo.load_cifar10("train", download=False)
recipe = cifarzoo.get_model_info("simple").recipe.replace(epochs=1)
cifarzoo.Trainer(cifarzoo.create_model("simple"), recipe, device="cpu").fit(train)
print(peak() - before)
"""
    values = [
        float(subprocess.check_output([sys.executable, "-c", script], text=True))
        for _ in range(min(rounds, 3))
    ]
    found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {"simple, MB above import torch": {"ours": found}}


# --- what surrounds the numbers ------------------------------------------------------------------


def few(images: ImageSet, steps: int) -> ImageSet:
    """Enough images for ``steps`` batches."""
    return images.subset(range(steps * BATCH))


def show(section: str, found: dict[str, Any]) -> None:
    """Print one section as a table."""
    table = Table(title=section)
    for column in ("what", "contender", "median", "spread", "ratio"):
        table.add_column(column, justify="left" if column in ("what", "contender") else "right")
    for what, contenders in found.items():
        for name, value in contenders.items():
            ratio = f"{value['ratio']:.2f}x" if "ratio" in value else ""
            low, high, median = (number(value[key]) for key in ("low", "high", "median"))
            table.add_row(what, name, median, f"{low} to {high}", ratio)
    Console().print(table)


def number(value: float) -> str:
    """Readable at any size."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
