"""Two machines train what one would have trained; here they are two network namespaces of Linux."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import miss
from command import run
from runs import PLAIN

import cifarzoo

ADDRESSES = ("10.77.31.1", "10.77.31.2")
PORT = "29577"


def ip(*words: str) -> None:
    """Run the command ``ip``."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of two namespaces that a cable connects; nothing else is in their network."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    if shutil.which("ip") is None:
        miss("the command ip (Debian: apt-get install iproute2)")
    names = [f"cifarzoo{os.getpid()}{letter}" for letter in "ab"]
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"this user may make no network namespaces: {error.stderr}")
            stack.callback(ip, "netns", "del", name)
        cable = ["link", "add", "eth0", "netns", names[0], "type", "veth"]
        ip(*cable, "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names


@pytest.mark.slow
def test_two_machines_train_what_one_does(hosts: list[str], tmp_path: Path) -> None:
    recipe = PLAIN.replace(epochs=2, batch_size=100, augmentation={"flip": "random"})
    recipe.save(tmp_path / "recipe.toml")
    train = ["-m", "cifarzoo", "train", "simple", "--data", "sample", "--device", "cpu"]
    train += ["--precision", "float32", "--recipe", str(tmp_path / "recipe.toml"), "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}
    machines = []
    for number, host in enumerate(hosts):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        launch += ["--node-rank", str(number), "--nproc-per-node", "1"]
        launch += ["--master-addr", ADDRESSES[0], "--master-port", PORT]
        launch += [*train, str(tmp_path / f"machine{number}")]
        machines.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *launch],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for machine in machines:
            _, errors = machine.communicate(timeout=240)
            assert machine.returncode == 0, errors[-4000:]
    finally:
        for machine in machines:
            machine.kill()
    assert not (tmp_path / "machine1").exists()  # the first machine alone writes

    run(*train[2:], tmp_path / "alone")
    found, expected = (
        cifarzoo.load_model(tmp_path / name / "weights.safetensors").state_dict()
        for name in ("machine0", "alone")
    )
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)
