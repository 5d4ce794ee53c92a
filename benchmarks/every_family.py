"""Training speed of a network of each family, against the plain way and the well-tuned one.

Usage: python benchmarks/every_family.py [--models NAME ...] [--rounds 3] [--precision float32]

Needs the official CIFAR-10 files ($CIFARZOO_DATA). The contenders are those of throughput.py. They
train in turn, in one process. Each precision with each kind of vectors (AVX2, AVX512) has a column
of its own, of one machine; "plain" is float32 in all of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import throughput
import torch
from machine import build_layers, check_others, describe_machine
from throughput import few, interleave, our_training, plain_training, show, tuned_training

import cifarzoo
from cifarzoo.files.writing import write_text

RESULTS = Path(__file__).parent / "results" / "every_family.json"
MODELS = (
    *("simple", "deep_bn", "resnet20", "resnet18_cifar", "preresnet20", "wrn16_2", "seresnet20"),
    *("vgg11_bn", "densenet_bc40_k12", "resnext29_32x4d", "pyramidnet110_a48"),
    *("shakeshake26_2x32d", "mobilenetv2", "shufflenetv2_x1_0", "repvgg_a0", "resnet9"),
    *("airbench94", "convmixer256_8", "cct_7_3x1", "vit_tiny_patch4", "tiniest"),
)
WORK = 3e8  # multiply-accumulates of a forward pass, of the batches of one turn, per image of one
MOST = 300  # batches of a turn; the set has 390
WARMUP = 2  # batches before the clock starts


def main() -> None:
    """Measure, print a table, write JSON after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    infos = {name: cifarzoo.get_model_info(name) for name in arguments.models}
    precision = arguments.precision or ("bfloat16" if throughput.MIXED else "float32")
    throughput.MIXED = precision == "bfloat16"
    throughput.FAST = getattr(torch, precision)
    throughput.WARMUP = WARMUP
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    title = f"{precision}, {torch.backends.cpu.get_cpu_capability()}"
    column = results.setdefault(title, {})
    others = [name for name in column.get("networks", {}) if name not in infos]
    before = column.get("machine", {})
    check_others(parser, arguments.output, others, before, rounds=arguments.rounds)
    column["machine"] = describe_machine() | {"rounds": arguments.rounds}
    build_layers()
    for name, info in infos.items():
        steps = min(MOST, max(1, round(WORK / info.macs)))
        column.setdefault("networks", {})[name] = measure(name, steps, arguments.rounds, precision)
        show(f"{name}, {title}", {name: column["networks"][name]})
        write_text(arguments.output, json.dumps(results, indent=1) + "\n")


def measure(name: str, steps: int, rounds: int, precision: str) -> dict[str, Any]:
    """Images a second of the three contenders, in turn."""
    train = few(cifarzoo.load_cifar10("train", download=False), steps)
    contenders = {
        "plain": plain_training(name, steps),
        "tuned": tuned_training(name, steps),
        "ours": our_training(name, train, steps, precision=precision),
    }
    return interleave(contenders, rounds, against="plain")


if __name__ == "__main__":
    main()
