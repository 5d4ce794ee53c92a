"""A hub, and folders as it has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import HfApi

import cifarzoo


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on this machine, reached without any proxy."""
    monkeypatch.setenv("no_proxy", "*")
    with HubServer().running() as running:
        yield running


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """A client of that hub."""
    return HfApi(endpoint=hub.address, token="hf_of_a_test")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's ``simple``, saved for the hub."""
    return cifarzoo.save_pretrained("simple", tmp_path_factory.mktemp("hub") / "simple-cifar10")
