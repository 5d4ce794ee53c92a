from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import run
from file_server import FileServer, Served
from torch import nn

import cifarzoo
from cifarzoo.errors import ArgumentError, CifarZooError, DownloadError, WeightsError
from cifarzoo.files.writing import digest


@pytest.fixture
def model() -> nn.Module:
    return cifarzoo.create_model("simple", seed=3)


@pytest.fixture
def content(model: nn.Module, tmp_path: Path) -> bytes:
    """A weights file of it."""
    return cifarzoo.save_weights(model, tmp_path / "made.safetensors").read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("cifarzoo.zoo.addresses.cache_directory", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def is_same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_weights_at_an_address_are_fetched_once(
    model: nn.Module, content: bytes, server: FileServer, cache: Path
) -> None:
    served = Served(content)
    address = server.add("simple.safetensors", served)
    for pretrained in (address, f"{address}#sha256={digest(content)}", address):
        assert is_same(cifarzoo.create_model("simple", pretrained=pretrained), model)
    assert len(served.requests) == 1
    assert [path.name for path in cache.rglob("*.safetensors")] == ["simple.safetensors"]


def test_the_command_line_takes_an_address(
    content: bytes, server: FileServer, cache: Path, tmp_path: Path
) -> None:
    address = server.add("simple.safetensors", Served(content))
    run("evaluate", address, "--data", "sample", "--json")


def test_another_file_than_the_checksum_says_is_refused(
    content: bytes, server: FileServer, cache: Path
) -> None:
    address = server.add("simple.safetensors", Served(content))
    with pytest.raises(DownloadError, match=r"sha256 is .*, expected 0000"):
        cifarzoo.create_model("simple", pretrained=f"{address}#sha256={'0' * 64}")
    # the checksum is compared with what was fetched before, too
    cifarzoo.create_model("simple", pretrained=address)
    with pytest.raises(DownloadError, match="expected 0000"):
        cifarzoo.create_model("simple", pretrained=f"{address}#sha256={'0' * 64}")
    assert not list(cache.rglob("*.part"))


def test_a_name_with_a_checksum_as_torch_hub_writes_it_is_believed(
    model: nn.Module, content: bytes, server: FileServer, cache: Path
) -> None:
    good = server.add(f"simple-{digest(content)[:8]}.safetensors", Served(content))
    assert is_same(cifarzoo.create_model("simple", pretrained=good), model)
    bad = server.add("simple-12345abc.safetensors", Served(content))
    with pytest.raises(DownloadError, match="expected 12345abc"):
        cifarzoo.create_model("simple", pretrained=bad)
    dated = server.add("simple-20261128.safetensors", Served(content))
    assert is_same(cifarzoo.create_model("simple", pretrained=dated), model)


@pytest.mark.parametrize("has_length", [True, False])
def test_half_a_file_without_a_checksum_is_not_taken(
    has_length: bool,
    content: bytes,
    server: FileServer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    served = Served(content, cut=len(content) // 2, has_length=has_length)
    address = server.add("simple.safetensors", served)
    with pytest.raises(DownloadError, match="bytes" if has_length else "how long the file is"):
        cifarzoo.create_model("simple", pretrained=address)
    # what arrived may be of another file than what is there now: it is not continued
    served.content, served.cut, served.has_length = content[::-1], None, True
    served.requests.clear()
    with pytest.raises(WeightsError):
        cifarzoo.create_model("simple", pretrained=address)
    assert served.requests == [None]


def test_an_answer_that_is_no_weights_file_is_not_kept(
    model: nn.Module, content: bytes, server: FileServer, cache: Path
) -> None:
    served = Served(b"<!DOCTYPE html><html><body>Log in</body></html>")
    address = server.add("simple.safetensors", served)
    with pytest.raises(WeightsError, match="HTML"):
        cifarzoo.create_model("simple", pretrained=address)
    served.content = content
    assert is_same(cifarzoo.create_model("simple", pretrained=address), model)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://example.org/w.pt", r"can be changed on its way: take its https://"),
        ("https://example.org/w.pt#md5=12", "must be sha256= and 64 hexadecimal digits; got 'md5"),
        ("https://example.org/w.pt#sha256=12", "must be sha256= and 64 hexadecimal digits"),
        ("https://example.org/", "names no file"),
        ("https:///w.pt", "names no file"),
        ("https://example.org/a b.pt", "names no file"),
        ("https://example.org/nul%00.pt", "names no file"),
        ("https://[::1/w.pt", "is no address"),
        ("https://example.org:port/w.pt", "is no address"),
        ("hf://owner/name", "names no file of the hub; write hf://owner/name/file"),
        ("hf://name", "names no file of the hub"),
    ],
)
def test_addresses_that_say_too_little_are_refused(address: str, problem: str, cache: Path) -> None:
    with pytest.raises(ArgumentError, match=problem):
        cifarzoo.create_model("simple", pretrained=address)
    run("evaluate", address, "--data", "sample", code=1)


def test_a_path_is_no_address(tmp_path: Path, give_weights: Callable[..., None]) -> None:
    with pytest.raises(CifarZooError, match="there is no weights file"):
        cifarzoo.create_model("simple", pretrained=tmp_path / "https.safetensors")
