from __future__ import annotations

import sys
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer
from huggingface_hub import HfApi

import cifarzoo
from cifarzoo.errors import DownloadError, MissingExtraError, WeightsError
from cifarzoo.files.writing import file_digest


@pytest.fixture(autouse=True)
def own_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub of the test, and a cache of its own."""
    files = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": files,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)


def test_a_file_on_the_hub_is_an_address(saved: Path, api: HfApi, hub: HubServer) -> None:
    cifarzoo.push_to_hub("simple", "me/simple-cifar10", api=api)
    place = "hf://me/simple-cifar10/model.safetensors"
    network = cifarzoo.create_model("simple", pretrained=place)
    weights = cifarzoo.create_model("simple", pretrained=True).state_dict()
    assert all(weights[name].equal(value) for name, value in network.state_dict().items())
    commit = hub.commit("me/simple-cifar10", "main")
    whole = file_digest(saved / "model.safetensors")
    pinned = f"{place.replace('cifar10/', f'cifar10@{commit}/')}#sha256={whole}"
    cifarzoo.create_model("simple", pretrained=pinned)
    with pytest.raises(WeightsError, match="is another file: its sha256 is"):
        cifarzoo.create_model("simple", pretrained=f"{place}#sha256={'0' * 64}")


def test_what_the_hub_does_not_have_is_named() -> None:
    with pytest.raises(DownloadError, match=r"does not give hf://me/nothing/w\.pt: "):
        cifarzoo.create_model("simple", pretrained="hf://me/nothing/w.pt")


def test_an_address_of_the_hub_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cifarzoo\[hub\]'"):
        cifarzoo.create_model("simple", pretrained="hf://me/simple/w.pt")
