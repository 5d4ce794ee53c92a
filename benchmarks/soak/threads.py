"""Many threads that load, ask and read at once: the answers of one thread, every time."""

from __future__ import annotations

import logging
import random
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from found import Found

import cifarzoo
from cifarzoo.zoo.weights import tensors_sha256

__all__ = ["soak"]

_THREADS = 16
_CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def calls(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is called, each a function that always gives the same."""
    images = cifarzoo.load_sample("test")
    shared = cifarzoo.create_model("resnet20", pretrained=True)
    stored = cifarzoo.save_weights(
        cifarzoo.create_model("simple", seed=3), folder / "w.safetensors"
    )
    torch.save({"net": cifarzoo.create_model("simple", seed=4).state_dict()}, folder / "w.pt")

    def digest(model: torch.nn.Module) -> str:
        return tensors_sha256(model.state_dict())

    found: dict[str, Callable[[], Any]] = {
        "weights": lambda: digest(cifarzoo.load_model(stored)),
        "facts": lambda: cifarzoo.read_metadata(stored),
        "torch file": lambda: digest(cifarzoo.create_model("simple", pretrained=folder / "w.pt")),
        "new": lambda: digest(cifarzoo.create_model("simple", seed=5)),
        "pretrained": lambda: digest(cifarzoo.create_model("resnet20", pretrained=True)),
        "data": lambda: digest_of_images(cifarzoo.load_sample("train")),
        "evaluate": lambda: cifarzoo.evaluate(shared, images.subset(range(8)), **_CPU).to_dict(),
    }
    for start in range(0, 16, 4):
        few = images.subset(range(start, start + 4))
        found[f"predict {start}"] = lambda few=few: cifarzoo.predict(shared, few, **_CPU)
    return found


def digest_of_images(images: cifarzoo.ImageSet) -> str:
    """Of every pixel and label."""
    return tensors_sha256({"images": images.images, "labels": images.labels})


def soak(count: int, seed: int) -> Found:
    """Make ``count`` calls from 16 threads, which take turns far more often than usual.

    Args:
        count: How many.
        seed: Of the order.
    """
    found, draw = Found(), random.Random(f"threads {seed}")
    logging.disable()
    sys.setswitchinterval(1e-5)
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(_THREADS) as pool:
        chosen = calls(Path(base))
        expected = {name: call() for name, call in chosen.items()}
        for name, end in pool.map(
            lambda name: (name, _end(chosen[name], expected[name])),
            draw.choices([*chosen], k=count),
        ):
            found.counts["calls"] += 1
            if end == "another answer":
                found.problem("wrong results", f"{name}: {end}")
            elif end:
                found.problem("foreign errors", f"{name}: {end}")
    found.counts["threads"] = _THREADS
    return found


def _end(call: Callable[[], Any], expected: Any) -> str:
    try:
        return "" if call() == expected else "another answer"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
