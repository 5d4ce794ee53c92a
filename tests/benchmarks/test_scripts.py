"""Programs in benchmarks, research and tools: they start, and lose nothing that was measured."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("benchmarks", "research", "tools")
    for path in (ROOT / folder).glob("*.py")
    if "ArgumentParser(" in path.read_text(encoding="utf-8")
)
# each as if it were called, in one process, which takes torch's import once
ALL = """
import contextlib, io, runpy, sys
from pathlib import Path
path, failed = [*sys.path], []
for script in sys.argv[1:]:
    sys.path[:] = [str(Path(script).resolve().parent), *path]
    out, sys.argv = io.StringIO(), [script, "--help"]
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code or "usage:" not in out.getvalue():
            failed.append(f"{script} ends with {end.code}")
    except Exception as error:
        failed.append(f"{script}: {error!r}")
    for name in ("machine", "families", "trials", "throughput", "found"):
        sys.modules.pop(name, None)
print("\\n".join(failed))
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a program, for the time of the test."""
    before = {*sys.modules}
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/soak"))
    yield importlib.import_module
    for name in {*sys.modules} - before:
        if getattr(sys.modules[name], "__file__", None) and "benchmarks" in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.mark.slow
def test_every_program_answers_to_help() -> None:
    assert len(SCRIPTS) > 15
    done = subprocess.run(
        [sys.executable, "-c", ALL, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def call(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("gpu", ("--only", "wieghts"), "there is no 'wieghts'; there are tests"),
        ("against", ("HEAD", "--only", "nosuch"), "there is no 'nosuch'"),
        ("against", ("HEAD", "--pairs", 1), "at least 2"),
        ("against", (), "name the commit"),
        ("against", ("HEAD", "--precision", "bf16"), "invalid choice"),
        ("augmentations", ("--batches", "128,4096"), "the package has 2000 images; got 4096"),
        ("throughput", ("--only", "trian"), "there is no 'trian'"),
    ],
)
def test_what_cannot_be_measured_is_said_first(
    program: str,
    arguments: tuple[object, ...],
    message: str,
    modules: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        call(modules(program), monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_a_step_on_a_gpu_that_fails_stops_no_other_and_is_tried_again(
    tmp_path: Path, modules: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, calls = modules("gpu"), []

    def fail() -> None:
        calls.append("fail")
        raise ValueError("no kernel")

    def run() -> dict[str, float]:
        calls.append("run")
        return {"accuracy": 0.9, "accuracy_with_tta": 0.91, "training": 1.0, "seconds": 2.0}

    monkeypatch.setattr(
        gpu, "steps", lambda bench: iter([("94 plain 0", fail), ("94 fast94 0", run)])
    )
    for _ in range(2):
        call(gpu, monkeypatch, "--folder", tmp_path, "--device", "cpu")
    assert calls == ["fail", "run", "fail"]
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["94 plain 0"] == {"error": "ValueError: no kernel"}
    assert found["94 fast94 0"]["accuracy"] == 0.9


@pytest.mark.parametrize("is_same", [True, False])
def test_some_networks_leave_the_results_of_the_others(
    is_same: bool,
    tmp_path: Path,
    modules: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, machine = tmp_path / "results.json", modules("machine").describe_machine()
    column = f"float32, {torch.backends.cpu.get_cpu_capability()}"
    if not is_same:
        machine["processor"] = "another"
    tables: dict[str, tuple[dict[str, Any], tuple[object, ...]]] = {
        "int8": ({"machine": machine, "models": {"deep_bn": 1}}, ("--models", "resnet20")),
        "every_family": (
            {column: {"machine": machine | {"rounds": 3}, "networks": {"deep_bn": 1}}},
            ("--models", "resnet20", "--precision", "float32"),
        ),
    }
    for program, (before, arguments) in tables.items():
        file.write_text(json.dumps(before))
        module = modules(program)
        for name, stub in {
            "measure": lambda *_: 2,
            "build_layers": lambda: None,
            "show": lambda *_: None,
        }.items():
            monkeypatch.setattr(module, name, stub, raising=False)
        monkeypatch.setattr(module.cifarzoo, "load_cifar10", lambda *_, **__: None)
        monkeypatch.setattr(module.torch, "set_num_threads", lambda _: None)
        if not is_same:
            with pytest.raises(SystemExit):
                call(module, monkeypatch, *arguments, "--output", file)
            assert "another machine" in capsys.readouterr().err
            assert json.loads(file.read_text()) == before
            continue
        call(module, monkeypatch, *arguments, "--output", file)
        found = json.loads(file.read_text())
        kept = found["models"] if program == "int8" else found[column]["networks"]
        assert kept == {"deep_bn": 1, "resnet20": 2}


def test_the_queue_goes_on_with_a_run_whose_entry_has_grown(
    modules: Callable[[str], ModuleType],
) -> None:
    queue = modules("training_queue")
    spec = {"name": "a", "model": "simple", "minutes": 5, "why": "?"}
    spec |= {"best_of": ("t1",), "seeds": (0,), "seed": 0}
    same = [{"seeds": (0, 1)}, {"best_of": ("t1", "t2")}, {"needs_bfloat16": True}, {"minutes": 9}]
    for change in same:
        assert queue._identity({**spec, **change}) == queue._identity(spec)
    plain = {**spec, "best_of": ()}
    other = [{"seed": 1}, {"model": "deep_bn"}, {"changes": {"epochs": 3}}, {"val_size": 5000}]
    for change in other:
        assert queue._identity({**plain, **change}) != queue._identity(plain)


def test_parts_of_the_soak_that_end_at_once_are_both_recorded(
    tmp_path: Path, modules: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    found, machine = modules("found"), modules("machine")
    together = threading.Barrier(2)

    def describe() -> dict[str, Any]:
        together.wait(10)
        return {}

    monkeypatch.setattr(machine, "describe_machine", describe)
    place = tmp_path / "reliability.json"
    parts = [
        threading.Thread(target=found.record, args=(place, part, found.Found()))
        for part in ("kills", "records")
    ]
    for thread in parts:
        thread.start()
    for thread in parts:
        thread.join()
    assert {*json.loads(place.read_text())} == {"kills", "records"}
