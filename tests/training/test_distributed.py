"""Several processes train what one would have trained."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from runs import PLAIN, Events, make_trainer, same_state
from torch import nn

from cifarzoo import ImageSet
from cifarzoo.training.distributed import World, joined_world

CPU = torch.device("cpu")

SCRIPT = """
import os, sys
from pathlib import Path
import torch
from cifarzoo import CSVLogger, Logger, Recipe, Trainer, create_model, load_sample

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
images = load_sample("train").subset(torch.load(folder / "index.pt"))
model = create_model("simple", seed=int(rank))  # the processes must agree on the first one's
output = folder / f"out{rank}"


class EndAfter(Logger):
    def on_epoch(self, record):
        return record.epoch == int(os.environ.get("EPOCHS", 0))


trainer = Trainer(
    model,
    Recipe.load(folder / "recipe.json"),
    device="cpu",
    precision="float32",
    output=output,
    loggers=[CSVLogger(output / "log.csv"), EndAfter()],
)
history = trainer.fit(images, images, resume=(folder / "out0" / "checkpoint.pt").exists())
history.save(folder / f"history{rank}.json")
torch.save(model.state_dict(), folder / f"weights{rank}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(folder: Path, processes: int, **variables: str) -> None:
    """Run SCRIPT under torchrun, on this machine's loopback only."""
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nproc-per-node", str(processes), "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), str(folder / "script.py"), str(folder)]
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    environment |= variables
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-4000:]


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
