"""A web service of a network: the program of the how-to page, under uvicorn."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import howto
import httpx
import pytest
from PIL import Image

import cifarzoo
from cifarzoo.compute.cpu import library

COUNT = 100


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page's program listens, in a process of its own."""
    folder = tmp_path_factory.mktemp("serve")
    (program,) = howto.blocks("serve")
    (folder / "serve.py").write_text(program, encoding="utf-8")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(COUNT)
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "serve:app"]
        command += ["--fd", str(listening.fileno()), "--log-level", "warning"]
        # the layers in C that earlier runs may have left in the cache round otherwise
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "MODEL": "resnet20"}
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], env=environment)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    images = cifarzoo.load_sample("test").images[:COUNT]
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(COUNT)]


async def ask_all(address: str, files: list[Path]) -> list[httpx.Response]:
    """Send all files at once."""
    limits = httpx.Limits(max_connections=COUNT)
    async with httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as client:
        asked = [
            client.post(f"{address}/predict", files={"image": file.read_bytes()}) for file in files
        ]
        return await asyncio.gather(*asked)


def test_a_hundred_requests_at_once_get_the_answers_of_one_thread(
    address: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "find", lambda: None)  # nor has the service compiled them
    began = time.monotonic()
    answers = asyncio.run(ask_all(address, photos))
    assert time.monotonic() - began < 60
    assert {answer.status_code for answer in answers} == {200}
    model = cifarzoo.create_model("resnet20", pretrained=True).eval()
    for answer, photo in zip(answers, photos, strict=True):
        alone = cifarzoo.predict(model, photo)
        expected = {"label": alone.label, "top": dict(alone.top), "note": alone.note}
        assert answer.json() == expected
    assert len({answer.text for answer in answers}) > COUNT / 2


def test_what_is_no_image_is_the_users_error(address: str) -> None:
    def ask(content: bytes) -> httpx.Response:
        files = {"image": content}
        return httpx.post(f"{address}/predict", files=files, timeout=60, trust_env=False)

    refused = ask(b"no image")
    assert refused.status_code == 422
    assert "image" in refused.json()["detail"]
    assert ask(bytes(10_000_001)).status_code == 413
    assert ask(b"").status_code == 422
