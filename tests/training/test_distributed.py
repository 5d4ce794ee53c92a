"""Several processes train what one would have trained."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from command import run
from runs import PLAIN, Events, make_trainer, same_state, terminate
from torch import nn

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.errors import ArgumentError, PeerError
from cifarzoo.training import distributed
from cifarzoo.training.distributed import World, is_first_process, joined_world

CPU = torch.device("cpu")

SCRIPT = """
import os, sys
from pathlib import Path
import torch
from cifarzoo import CSVLogger, Logger, Recipe, Trainer, create_model, load_sample

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
images = load_sample("train").subset(torch.load(folder / "index.pt"))
name = os.environ.get("MODEL", "simple")
model = create_model(name, seed=int(rank))  # the processes must agree on the first one's
output = folder / f"out{rank}"


class EndAfter(Logger):
    def on_epoch(self, record):
        return record.epoch == int(os.environ.get("EPOCHS", 0))


class Weighted(torch.nn.CrossEntropyLoss):
    def forward(self, logits, targets):
        return super().forward(logits, targets) + (0 if self.training else int(rank))


trainer = Trainer(
    model,
    Recipe.load(folder / "recipe.json"),
    device="cpu",
    loss=Weighted(weight=torch.arange(1.0, 11.0)) if "WEIGHTED" in os.environ else None,
    precision="float32",
    output=output,
    loggers=[CSVLogger(output / "log.csv"), EndAfter()],
)
saved = folder / "out0" / "checkpoint.pt"
history = trainer.fit(images, images, resume=saved if saved.exists() else False)
history.save(folder / f"history{rank}.json")
torch.save(model.state_dict(), folder / f"weights{rank}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def surroundings() -> dict[str, str]:
    """Variables of a process that talks over this machine's loopback only."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}


@contextlib.contextmanager
def ranks(number: int, *program: str, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs with torchrun's variables, but without torchrun, which would kill them."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared = {**surroundings(), **meeting, "WORLD_SIZE": str(number), **variables}
    with contextlib.ExitStack() as stack:
        started = []
        for rank in range(number):
            process = subprocess.Popen(
                [sys.executable, *program],
                env={**shared, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        yield started


def launch(folder: Path, number: int, **variables: str) -> None:
    """Run SCRIPT in several processes."""
    with ranks(number, "-c", SCRIPT, str(folder), **variables) as started:
        for process in started:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-4000:]


def torchrun(number: int, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in several processes, as people do."""
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nproc-per-node", str(number), "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), *program]
    return subprocess.run(command, env=surroundings(), capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_batches(
    sample_train: ImageSet, tmp_path: Path
) -> None:
    recipe = PLAIN.replace(epochs=2, batch_size=50, augmentation={"flip": "random"})
    recipe.save(tmp_path / "recipe.json")
    index = torch.arange(200)
    torch.save(index, tmp_path / "index.pt")
    launch(tmp_path, 2)

    weights = [torch.load(tmp_path / f"weights{rank}.pt") for rank in (0, 1)]
    assert same_state(*weights)
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("out*/*")}
    kept = ("run.json", "recipe.toml", "checkpoint.pt", "weights.safetensors", "history.json")
    assert written == {"out0/log.csv", *(f"out0/{name}" for name in kept)}

    images = sample_train.subset(index)
    alone = make_trainer(recipe)
    expected = alone.fit(images, images)
    torch.testing.assert_close(weights[0], dict(alone.model.state_dict()), rtol=1e-3, atol=1e-5)
    for rank in (0, 1):
        records = json.loads((tmp_path / f"history{rank}.json").read_text())
        for record, reference in zip(records, expected.to_list(), strict=True):
            for field in ("train_loss", "train_accuracy", "val_loss", "learning_rate"):
                assert record[field] == pytest.approx(reference[field], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_running_statistics_are_the_same_in_every_process(
    ema_decay: float, sample_train: ImageSet, tmp_path: Path
) -> None:
    """What is validated is what every process hands over."""
    PLAIN.replace(epochs=1, ema_decay=ema_decay).save(tmp_path / "recipe.json")
    index = torch.arange(200)
    torch.save(index, tmp_path / "index.pt")
    launch(tmp_path, 2, MODEL="resnet20")
    states = [torch.load(tmp_path / f"weights{rank}.pt") for rank in (0, 1)]
    assert same_state(*states)
    model = cifarzoo.create_model("resnet20")
    model.load_state_dict(states[0])
    images = sample_train.subset(index)
    report = cifarzoo.evaluate(model, images, device="cpu", precision="float32")
    for rank in (0, 1):
        (record,) = json.loads((tmp_path / f"history{rank}.json").read_text())
        assert record["val_accuracy"] == pytest.approx(report.accuracy)
        assert record["val_loss"] == pytest.approx(report.loss, rel=1e-4)


@pytest.mark.slow
def test_a_loss_of_ones_own_is_one_number_for_all_processes(
    sample_train: ImageSet, tmp_path: Path
) -> None:
    """Of all images, of which each process has another number, and as the first process has it."""
    PLAIN.replace(batch_size=48).save(tmp_path / "recipe.json")
    index = torch.arange(200)
    torch.save(index, tmp_path / "index.pt")
    launch(tmp_path, 3, WEIGHTED="1")
    images = sample_train.subset(index)
    model = cifarzoo.create_model("simple").eval()
    model.load_state_dict(torch.load(tmp_path / "weights0.pt"))
    with torch.no_grad():
        logits = model(cifarzoo.CIFAR10_PREPROCESSING.normalize(images.images))
    loss = nn.functional.cross_entropy(logits, images.labels, weight=torch.arange(1.0, 11.0))
    for rank in range(3):
        record = json.loads((tmp_path / f"history{rank}.json").read_text())[-1]
        assert record["val_loss"] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.slow
def test_the_command_line_trains_in_two_processes_as_in_one(tmp_path: Path) -> None:
    train = ["-m", "cifarzoo", "train", "simple", "--data", "sample", "--device", "cpu"]
    recipe = PLAIN.replace(epochs=2, batch_size=100, seed=3, augmentation={"flip": "random"})
    recipe.save(tmp_path / "recipe.toml")  # Muon, the network's default, would magnify rounding
    train += ["--precision", "float32", "--val-size", "500"]
    train += ["--recipe", str(tmp_path / "recipe.toml"), "--output"]
    two = torchrun(2, *train, str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr[-4000:]
    run(*train[2:], tmp_path / "one")

    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "recipe.toml"}
    assert two.stdout.count("training took") == 1
    assert two.stderr.count("run folder") == 1
    weights = [
        cifarzoo.load_model(tmp_path / name / "weights.safetensors").state_dict()
        for name in ("one", "two")
    ]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-2, atol=1e-4)
    rows = [(tmp_path / name / "history.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 3

    again = torchrun(2, *train, str(tmp_path / "two"))
    assert again.returncode != 0
    assert "holds a run already" in again.stderr
    assert (tmp_path / "two" / "history.csv").read_text().splitlines() == rows[1]


@pytest.mark.slow
def test_the_command_line_goes_on_in_two_processes(tmp_path: Path) -> None:
    train = ["-m", "cifarzoo", "train", "simple", "--data", "sample", "--device", "cpu"]
    train += ["--set", "epochs=12", "--output", str(tmp_path / "run")]
    started = subprocess.Popen([sys.executable, *train], stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("epoch  1/"):
            break
    started.send_signal(signal.SIGINT)
    assert started.wait(60) == 130
    started.stderr.close()
    resumed = torchrun(2, "-m", "cifarzoo", "train", "--resume", str(tmp_path / "run"))
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 13


# one process


def test_one_process_alone_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = nn.Linear(2, 2)
    with joined_world(CPU) as world:
        assert world == World(rank=0, size=1)
        assert world.is_main
        assert world.any(True, CPU)
        assert not world.any(False, CPU)
        assert world.sum(torch.tensor([2.0])).tolist() == [2.0]
        assert world.wrap(model, CPU) is model
    assert not dist.is_initialized()


def test_others_than_the_first_are_not_the_main_one() -> None:
    assert not World(rank=1, size=2).is_main


@pytest.mark.parametrize(
    ("size", "rank", "first"), [("1", "0", True), ("2", "0", True), ("2", "1", False)]
)
def test_one_of_the_processes_of_torchrun_is_the_first(
    size: str, rank: str, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    assert is_first_process() is first


def test_a_group_that_the_caller_has_set_up_is_used_and_left(few: ImageSet) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with joined_world(CPU) as world:
            assert world == World(0, 1)
        events = Events()
        make_trainer(loggers=[events]).fit(few)
        assert events.names[-1] == "end"
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, sample_train: ImageSet, tmp_path: Path
) -> None:
    recipe = PLAIN.replace(epochs=2, batch_size=50, augmentation={"flip": "random"})
    recipe.save(tmp_path / "recipe.json")
    torch.save(torch.arange(200), tmp_path / "index.pt")
    launch(tmp_path, before, EPOCHS="1")
    assert len(json.loads((tmp_path / "history0.json").read_text())) == 1
    launch(tmp_path, after)
    images = sample_train.subset(torch.arange(200))
    expected = make_trainer(recipe).fit(images, images)
    records = json.loads((tmp_path / "history0.json").read_text())
    for record, reference in zip(records, expected.to_list(), strict=True):
        assert record["train_loss"] == pytest.approx(reference["train_loss"], rel=1e-3)


# ranks that end, hang and are stopped

LOST = """
import os, sys, time
from pathlib import Path
import torch
from cifarzoo import Recipe, Trainer, create_model

rank, fate, folder = int(os.environ["RANK"]), sys.argv[1], Path(sys.argv[2])
(folder / str(rank)).touch()
while len(list(folder.iterdir())) < 2:  # one may have been started much later than the other
    time.sleep(0.01)


class Batches:
    def __len__(self):
        return 1000

    def __iter__(self):
        for number in range(1000):
            if number == 3 and rank == 1:
                print("now", flush=True)
                if fate == "ends":
                    os._exit(7)
                time.sleep(600)
            yield torch.zeros(8, 3, 32, 32), torch.arange(8)


model = create_model("simple", seed=0)
Trainer(model, Recipe(epochs=1), device="cpu", precision="float32").fit(Batches())
"""


@contextlib.contextmanager
def two_ranks(
    fate: str, folder: Path, timeout: float
) -> Iterator[tuple[subprocess.Popen[str], ...]]:
    """Two processes of LOST, the second of which ends or hangs."""
    folder.mkdir()
    program = ("-c", LOST, fate, str(folder))
    with ranks(2, *program, CIFARZOO_RANK_TIMEOUT=str(timeout)) as (first, second):
        assert second.stdout is not None
        assert second.stdout.readline() == "now\n"
        yield first, second


@pytest.mark.slow
def test_a_rank_whose_peer_has_ended_says_so(tmp_path: Path) -> None:
    with two_ranks("ends", tmp_path / "ready", timeout=300) as (first, _):
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "PeerError: another process of this run has ended" in errors


@pytest.mark.slow
def test_a_rank_whose_peer_hangs_ends_in_the_time_that_is_set(tmp_path: Path) -> None:
    with two_ranks("hangs", tmp_path / "ready", timeout=8) as (first, _):
        began = time.monotonic()
        _, errors = first.communicate(timeout=90)
    assert first.returncode == 1
    assert time.monotonic() - began < 38
    assert "has not answered for 8 s" in errors


FROZEN = """
import os, signal, sys
from datetime import timedelta
from torch.distributed import TCPStore

store = TCPStore("127.0.0.1", int(sys.argv[1]), 2, True, timedelta(seconds=30), False)
print("now", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nobody can be stopped there")
def test_a_rank_says_so_when_the_first_one_stands_still_while_they_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = str(free_port())
    meeting = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**meeting, "CIFARZOO_RANK_TIMEOUT": "0.5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_GRACE", 0.5)
    command = [sys.executable, "-c", FROZEN, port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "now\n"
        began = time.monotonic()
        try:
            with pytest.raises(PeerError, match=r"has not answered for 0\.5 s"), joined_world(CPU):
                pass
        finally:
            first.kill()
    assert time.monotonic() - began < 20
    for thread in threading.enumerate():
        if thread.name == "meeting":
            thread.join(20)  # it has something to say, too
            assert not thread.is_alive()


@pytest.mark.slow
def test_a_signal_ends_a_rank_that_waits_for_its_peer(tmp_path: Path) -> None:
    with two_ranks("hangs", tmp_path / "ready", timeout=16) as (first, _):
        time.sleep(1)  # until it waits
        errors = terminate(first)
    assert first.returncode == 143
    assert "while waiting for the other processes" in errors


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("CIFARZOO_RANK_TIMEOUT", text)
    with pytest.raises(ArgumentError, match="must be a number of seconds"), joined_world(CPU):
        pass
