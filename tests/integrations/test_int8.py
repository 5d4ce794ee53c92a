"""int8: the program behind the how-to page, and what it has measured."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch
import torch._inductor.config
from torch import Tensor

import cifarzoo
from cifarzoo import ImageSet

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def int8() -> ModuleType:
    """benchmarks/int8.py, whose functions the page shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("int8")


def test_what_was_measured_is_within_half_a_point() -> None:
    results = json.loads((BENCHMARKS / "results/int8.json").read_text(encoding="utf-8"))
    assert len(results["models"]) >= 3
    for name, ways in results["models"].items():
        for runtime in ("torch", "onnxruntime"):
            full, small = (ways[f"{runtime} {kind}"]["accuracy"] for kind in ("float32", "int8"))
            assert small > full - 0.005, name
            metadata = cifarzoo.read_metadata(cifarzoo.get_model_info(name).weights["default"].path)
            stated = metadata["metadata"]["test_accuracy"]["none"]
            assert full == pytest.approx(stated, abs=0.002), name


@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize("name", ["resnet20", "deep_bn"])
def test_both_ways_keep_the_answers(
    name: str,
    int8: ModuleType,
    tmp_path: Path,
    sample_train: ImageSet,
    sample_test: ImageSet,
) -> None:
    model = cifarzoo.create_model(name, pretrained=True).eval()
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    calibration = sample_train.images[:500]
    program = int8.quantize_with_torch(model, calibration, tmp_path)
    quantized = [node for node in program.graph.nodes if "quantize_per" in str(node.target)]
    assert len(quantized) > 10
    path = int8.quantize_with_onnxruntime(model, calibration, tmp_path)
    small = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == 3]
    assert len(small) > 5  # weights as int8
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())

    expected = cifarzoo.probabilities(model, sample_test, precision="float32").argmax(1)

    def check(network: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            batches = sample_test.images.split(100)
            found: Tensor = torch.cat([network(batch) for batch in batches]).argmax(1)
        assert (found == expected).double().mean() > 0.97
        shares = [(each == sample_test.labels).double().mean() for each in (found, expected)]
        assert shares[0] > shares[1] - 0.01

    check(int8.load_onnx(path))
    with torch._inductor.config.patch(freezing=False):  # what is set within is undone
        check(int8.compile_for_cpu(program) if name == "resnet20" else program)
