"""Random command lines: none may show a traceback, crash, hang, or meet an error nobody foresaw."""

from __future__ import annotations

import os
import random
import shlex
import sys
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch
from found import Found

__all__ = ["soak"]

_LIMIT = 120  # seconds for a command
_LONG = "x" * 300
_WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        ".",
        "..",
        "/",
        "~",
        "~nosuchuser/x",
        "0",
        "1",
        "-1",
        "nan",
        "inf",
        "1e999",
    ),
    *(
        "9" * 30,
        "true",
        "null",
        "[]",
        "{}",
        "a=b",
        "=",
        "[/b]",
        "$x$",
        "<script>",
        "\x1b[2J",
        "größe",
    ),
    *(_LONG, f"{_LONG}.safetensors", f"{_LONG}/x.png", "\udcff\udcfe", "a\nb", "%s", "{x}", "*"),
    *("simple", "resnet20", "resnet18.original", "simple.nosuch", "nosuch", "cifar10", "sample"),
    *(
        "folder:",
        "folder:empty",
        "folder:nowhere",
        f"folder:{_LONG}",
        "cifar10.1",
        "meta",
        "cuda:99",
    ),
    *("/dev/null", "/dev/full", "/proc/self/mem", "/dev/null/x", "empty", "empty/x", "run", "note"),
    *(
        "broken.safetensors",
        "broken.pt",
        "broken.png",
        "broken.toml",
        "broken.json",
        "run/run.json",
    ),
)
_FIELDS = (
    "epochs",
    "batch_size",
    "optimizer",
    "scheduler",
    "learning_rate",
    "image_sizes",
    "groups",
)
_ARGUMENTS = {
    "models": (1, ("--pretrained", "--json")),
    "info": (1, ("--json",)),
    "summary": (1, ("--num-classes=",)),
    "data": (1, ("--root=", "--no-download", "--json")),
    "train": (
        1,
        (
            *(
                "--recipe=",
                "--set",
                "--seed=",
                "--val-size=",
                "--watch-test",
                "--output=",
                "--root=",
            ),
            *("--resume=", "--device=", "--precision=", "--tensorboard"),
        ),
    ),
    "evaluate": (
        1,
        ("--tta=", "--temperature=", "--save=", "--device=", "--precision=", "--json", "--root="),
    ),
    "calibrate": (1, ("--tta=", "--device=", "--json", "--root=")),
    "report": (2, ("--output=", "--views=", "--cifar10-c=", "--device=", "--root=")),
    "predict": (3, ("--temperature=", "--device=", "--json")),
    "verify": (1, ("--json", "--device=", "--root=")),
}


def run(arguments: list[str], folder: str, output: str) -> None:
    """In a child: a command line, its output in a file."""
    from cifarzoo.cli import main

    torch.set_num_threads(1)
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    empty = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, empty), (1, file), (2, file)):
        os.dup2(target, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (multiprocessing has closed it)
    main(arguments)


def draw_line(draw: random.Random) -> list[str]:
    """A command line: mostly the right options, with any words."""
    name = draw.choice(list(_ARGUMENTS))
    most, options = _ARGUMENTS[name]
    words = [draw.choice(_WORDS) for _ in range(draw.randint(0, most))]
    line = [draw.choice(("--import", draw.choice(_WORDS)))] if draw.random() < 0.02 else []
    line += [name, *words]
    for option in draw.sample(options, draw.randint(0, min(3, len(options)))):
        if option == "--set":
            line += [option, f"{draw.choice(_FIELDS)}={draw.choice(_WORDS)}"]
        else:
            line.append(option + draw.choice(_WORDS) if option.endswith("=") else option)
    if name in ("train", "evaluate", "calibrate", "report", "verify") and draw.random() < 0.8:
        line += ["--data", draw.choice(("sample", draw.choice(_WORDS)))]
    if name == "train":  # few steps, should it be one that trains
        line += ["--set", "epochs=1", "--set", "batch_size=1000", "--set", "scheduler=constant"]
    if name in ("train", "evaluate", "data", "calibrate", "report", "verify"):
        line.append("--no-download")
    return line


def soak(count: int, seed: int, context: ForkServerContext) -> Found:
    """Run ``count`` command lines.

    Args:
        count: How many.
        seed: Of the lines.
        context: Starts the children.
    """
    found, draw = Found(), random.Random(f"commands {seed}")
    with tempfile.TemporaryDirectory() as base:
        folder, output = Path(base, "work"), Path(base, "output")
        for number in range(count):
            if number % 50 == 0:
                _lay_out(folder)
            if found.is_enough:
                break
            line = draw_line(draw)
            child = context.Process(target=run, args=(line, str(folder), str(output)))
            child.start()
            child.join(_LIMIT)
            is_hanging = child.is_alive()
            child.kill()
            child.join()
            code = child.exitcode or 0
            found.counts["command lines"] += 1
            found.counts[f"with the exit code {code}"] += 1
            text = output.read_text(errors="replace") if output.exists() else ""
            shown = shlex.join(["cifarzoo", *line]).encode(errors="backslashreplace").decode()
            where = f"line {number}: {shown}\n{text[-600:]}"
            if is_hanging:
                found.problem("hangs", where)
            elif code not in (0, 1, 2):
                found.problem("crashes", f"exit code {code}, {where}")
            elif "Traceback" in text or "--debug ...` shows" in text:
                found.problem("foreign errors", where)
    return found


def _lay_out(folder: Path) -> None:
    """Odd files that the words may name."""
    for name in ("empty", "run", "note", "cifar-10-batches-py/data_batch_1"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("safetensors", "pt", "png", "toml", "json"):
        (folder / f"broken.{name}").write_bytes(b"\x80\x02}\xff" * 50)
    (folder / "run" / "run.json").write_text('{"model": 3}')
    (folder / "run" / "checkpoint.pt").write_bytes(b"x")
    (folder / "run" / "recipe.toml").write_text("epochs = 1")
    (folder / "note" / "run.json").write_text("[" * 100_000)
    (folder / "note" / "checkpoint.pt").write_bytes(b"x")
    (folder / "note" / "recipe.toml").write_text("epochs = 1")
