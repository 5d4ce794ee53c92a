from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cifarzoo.compute import machine, place
from cifarzoo.compute.machine import computes_bfloat16
from cifarzoo.compute.place import Place
from cifarzoo.errors import ArgumentError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_the_processor() -> Iterator[None]:
    machine._processor_computes_bfloat16.cache_clear()
    yield
    machine._processor_computes_bfloat16.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (True, True, "cuda:1"),
        (True, False, "cuda:1"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ],
)
def test_auto_is_the_fastest_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: None)
    assert Place.find("auto", "float32").device == torch.device(expected)


@pytest.mark.parametrize("device", ["auto", "cuda", torch.device("cuda")])
def test_each_process_of_torchrun_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: Any
) -> None:
    pretend(monkeypatch, cuda=True, mps=False)
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Place.find(device, "float32").device == torch.device("cuda", 3)
    assert Place.find("cuda:0", "float32").device == torch.device("cuda", 0)


def test_none_is_where_the_model_is() -> None:
    model = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(ArgumentError, match="device 'meta' cannot be used here"):
        Place.find(None, "float32", model=model)
    assert Place.find(None, "float32", model=torch.nn.ReLU()).device == CPU
    assert Place.find(None, "float32").device == CPU


def test_a_place_is_taken_as_it_is() -> None:
    place = Place(CPU, torch.bfloat16)
    assert Place.find(place, "float32") is place
    assert str(place) == "cpu in bfloat16"


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_device_that_exists_is_taken(device: Any) -> None:
    assert Place.find(device).device == CPU


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x", "hpu", "vulkan", torch.device("vulkan")])
def test_device_that_does_not_exist_is_refused(device: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        Place.find(device)
    message = str(refused.value)
    assert message.startswith(f"device {str(device)!r} cannot be used here (")
    assert message.endswith("); try 'auto' or 'cpu'")
    assert "\n" not in message


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, ModuleNotFoundError])
def test_reason_of_the_backend_is_told(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error("no such hardware\nand a long trace")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(ArgumentError, match=r"'cuda:1' cannot be used here \(no such hardware\);"):
        Place.find("cuda:1")


@pytest.mark.parametrize(
    ("precision", "computes", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("float16", True, torch.float16),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, precision: Any, computes: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(place, "computes_bfloat16", lambda device: computes)
    assert Place.find("cpu", precision).precision == expected


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"'auto' or one of 'float32', .*; got 'float64'"):
        Place.find("cpu", "float64")  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((8, 6), True), ((9, 0), True)]
)
def test_gpus_compute_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_bfloat16(torch.device("cuda")) is expected


def test_other_devices_are_not_believed_to_compute_bfloat16() -> None:
    assert not computes_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
    ],
)
def test_torch_is_asked_about_the_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bfloat16(CPU) is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f", False),
        ("flags : fpu avx512_bf16 avx2", True),
        ("flags : amx_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : not_bf16 bf16x", False),
    ],
)
def test_linux_is_asked_where_torch_is_too_old(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    def read_text(path: Path, **options: Any) -> str:
        assert path == Path("/proc/cpuinfo")
        return f"processor : 0\n{flags}\n"

    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    monkeypatch.setattr(Path, "read_text", read_text)
    assert computes_bfloat16(CPU) is expected


def test_answer_is_no_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(path: Path, **options: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    monkeypatch.setattr(Path, "read_text", read_text)
    assert not computes_bfloat16(CPU)


def test_processor_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: asked.append(None) or {}, False)
    computes_bfloat16(CPU)
    computes_bfloat16(CPU)
    assert len(asked) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_computes_in_the_precision(dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with Place(CPU, dtype).autocast():
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32
