"""Networks in int8, by torchao and by ONNX Runtime: accuracy on all test images, and speed.

Usage: python benchmarks/int8.py [--models resnet20,deep_bn,airbench94] [--rounds 9]

Needs the official CIFAR-10 files ($CIFARZOO_DATA), the packages torchao, onnxscript and
onnxruntime, and a C++ compiler. Calibrated on training images. One thread. The contenders take
turns in this one process; a ratio is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from machine import build_layers, check_others, describe_machine, is_this_machine
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.files.writing import write_text

RESULTS = Path(__file__).parent / "results" / "int8.json"
CALIBRATION = 1000  # training images
BATCH = 100
TIMED = 500  # images, for each contender in each round

Network = Callable[[Tensor], Tensor]  # uint8 (B, 3, 32, 32) to logits (B, classes)


def quantize_with_torch(model: nn.Module, images: Tensor, folder: Path) -> nn.Module:
    """An int8 program of torch, by torchao; ``images`` are training images, uint8 (N, 3, H, W)."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    path = cifarzoo.export_program(with_scales(model), folder / "float.pt2")
    quantizer = X86InductorQuantizer()
    # without VNNI, sums of 8-bit products do not fit their 16 bits: 7 bits have to do
    narrow = not torch.cpu._is_vnni_supported()
    quantizer.set_global(get_default_x86_inductor_quantization_config(reduce_range=narrow))
    program = prepare_pt2e(torch.export.load(path).module(), quantizer)
    with torch.no_grad():
        for batch in images.split(100):  # it notes the range of every tensor
            program(batch)
    return convert_pt2e(program)


def with_scales(model: nn.Module) -> nn.Module:
    """A copy whose normalizations all have a scale: torchao cannot fuse others, as deep_bn's."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and not part.affine:
            part.weight = nn.Parameter(torch.ones(part.num_features))
            part.bias = nn.Parameter(torch.zeros(part.num_features))
    return model


def compile_for_cpu(program: nn.Module) -> Network:
    """The program, compiled; call it within ``torch.no_grad()``."""
    torch._inductor.config.freezing = True  # otherwise an int8 program computes in float32
    return torch.compile(program)


def quantize_with_onnxruntime(model: nn.Module, images: Tensor, folder: Path) -> Path:
    """An int8 ONNX file; ``images`` are training images, uint8 (N, 3, H, W)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        batches = iter(images.split(100))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    path = cifarzoo.export_onnx(model, folder / "float.onnx")
    quant_pre_process(path, folder / "prepared.onnx")  # fuses batch normalization
    quantize_static(
        folder / "prepared.onnx",
        folder / "int8.onnx",
        Images(),
        per_channel=True,
        activation_type=QuantType.QUInt8,  # x86 processors multiply unsigned by signed
        weight_type=QuantType.QInt8,
        reduce_range=not torch.cpu._is_vnni_supported(),  # else sums do not fit their 16 bits
    )
    return folder / "int8.onnx"


def load_onnx(path: Path) -> Network:
    """The network in an ONNX file, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def measure(name: str, train: ImageSet, test: ImageSet, rounds: int) -> dict[str, Any]:
    """Accuracy of every contender, and its speed against that of others."""
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        networks = contenders(name, train.subset(torch.arange(CALIBRATION)).images, Path(temporary))
        accuracy = {way: accuracy_of(network, test) for way, network in networks.items()}
        ratios: dict[str, list[float]] = {way: [] for way in networks}
        own: dict[str, list[float]] = {way: [] for way in networks}
        for _ in range(rounds):
            seconds = {way: clock(network, test) for way, network in networks.items()}
            for way, taken in seconds.items():
                ratios[way].append(seconds[way.replace("int8", "float32")] / taken)
                own[way].append(seconds["cifarzoo"] / taken)
    return {
        way: {
            "accuracy": accuracy[way],
            "speed": statistics.median(ratios[way]),  # of int8 against float32, in the same runtime
            "speed_of_own": statistics.median(own[way]),  # against cifarzoo's own evaluation
        }
        for way in networks
    }


def contenders(name: str, images: Tensor, folder: Path) -> dict[str, Network]:
    """The network as each runtime computes it."""
    model = cifarzoo.create_model(name, pretrained=True).eval()
    small = quantize_with_torch(model, images, folder)
    onnx = quantize_with_onnxruntime(model, images, folder)
    return {
        "cifarzoo": lambda batch: cifarzoo.probabilities(model, batch),
        "torch float32": compile_for_cpu(torch.export.load(folder / "float.pt2").module()),
        "torch int8": compile_for_cpu(small),
        "onnxruntime float32": load_onnx(folder / "float.onnx"),
        "onnxruntime int8": load_onnx(onnx),
    }


def accuracy_of(network: Network, test: ImageSet) -> float:
    """Share of right answers, 0..1."""
    found = torch.cat([network(batch).argmax(1) for batch in test.images.split(BATCH)])
    return (found == test.labels).double().mean().item()


def clock(network: Network, test: ImageSet) -> float:
    """Seconds for some images."""
    began = time.perf_counter()
    for batch in test.images[:TIMED].split(BATCH):
        network(batch)
    return time.perf_counter() - began


def main() -> None:
    """Measure, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet20,deep_bn,airbench94")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    for name in names:  # before a minute is spent
        cifarzoo.get_model_info(name).get_weights("default")
    torch.set_num_threads(1)
    build_layers()
    train, test = (cifarzoo.load_cifar10(part, download=False) for part in ("train", "test"))
    results: dict[str, Any] = {"machine": describe_machine(), "models": {}}
    if arguments.output.exists():
        before = json.loads(arguments.output.read_text(encoding="utf-8"))
        if is_this_machine(before["machine"]):
            results["models"] = before["models"]
        others = [name for name in before["models"] if name not in names]
        check_others(parser, arguments.output, others, before["machine"])
    for name in names:
        results["models"][name] = measure(name, train, test, arguments.rounds)
        print(name, json.dumps(results["models"][name], indent=1), flush=True)
        write_text(arguments.output, json.dumps(results, indent=1) + "\n")
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
