"""Servers that drip, stall, lie and send in circles: given up in time, without a wrong file."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cifarzoo.errors import DownloadError
from cifarzoo.files.downloads import Pace, download

CONTENT = bytes(range(256)) * 64
MD5 = hashlib.md5(CONTENT).hexdigest()
PACE = Pace(silence=0.3, patience=0.1, waits=())
Answer = Callable[[socket.socket, str], None]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that gives each connection to ``answer``, with its own address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/file.bin"

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer, contextlib.suppress(OSError):
                    peer.recv(4096)
                    answer(peer, address)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def drip(start: bytes, more: bytes) -> Answer:
    """Sends ``start``, then ``more`` a byte at a time, again and again."""

    def answer(peer: socket.socket, address: str) -> None:
        peer.sendall(start)
        while True:
            for number in more:
                peer.sendall(bytes([number]))
                time.sleep(0.01)

    return answer


def say(text: str) -> Answer:
    """Sends ``text`` at once, with the server's own address in it."""
    return lambda peer, address: peer.sendall(text.format(address=address).encode())


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MOVED = "HTTP/1.1 302 Found\r\nLocation: {address}\r\n"
BROKEN: dict[str, tuple[Answer, str]] = {
    "status drips": (drip(b"", b"x"), "has not answered within 0.3 s|timed out"),
    "headers drip": (drip(OK, b"X-A: b\r\n"), "has not answered within 0.3 s|timed out"),
    "goes on for ever": (drip(b"", b"HTTP/1.1 100 Go\r\n\r\n"), "has not answered|timed"),
    "length of a chunk drips": (drip(CHUNKED, b"0"), "has not answered within 0.3 s|timed out"),
    "speaks of something else": (say("\x1b[2J\r\n\r\n"), r"BadStatusLine \[2J"),
    "stalls": (lambda peer, _: time.sleep(0.6), "timed out|has not answered"),
    "redirects in circles": (say(MOVED + "\r\n"), "infinite loop"),
    "redirects with endless content": (drip(MOVED.encode() + b"\r\n", b"x"), "unknown|loop|refus"),
    "redirects with a length beyond memory": (
        say(MOVED + "Content-Length: 99999999999999\r\n\r\n"),
        "infinite loop",
    ),
    "redirects to a file": (
        say("HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"),
        "not allowed",
    ),
    "redirects to ftp": (
        say("HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n\r\n"),
        "neither http nor https",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_server_is_given_up_in_time(broken: str, tmp_path: Path) -> None:
    answer, told = BROKEN[broken]
    began = time.monotonic()
    with answering(answer) as address, pytest.raises(DownloadError, match=told):
        download([address], tmp_path / "file.bin", checksum=MD5, pace=PACE)
    assert time.monotonic() - began < 10
    assert not (tmp_path / "file.bin").exists()


def test_the_next_address_is_asked_when_one_drips(tmp_path: Path) -> None:
    good = say("HTTP/1.0 200 OK\r\n\r\nwhole")
    digest = hashlib.md5(b"whole").hexdigest()
    with answering(drip(OK, b"x")) as dripping, answering(good) as address:
        path = download([dripping, address], tmp_path / "f", checksum=digest, pace=PACE)
    assert path.read_bytes() == b"whole"


def test_a_download_leaves_no_thread(tmp_path: Path) -> None:
    wrong = say("HTTP/1.0 200 OK\r\n\r\nwhole")
    with answering(wrong) as address:
        threads = threading.active_count()
        with pytest.raises(DownloadError, match=re.escape(MD5)):
            download([address], tmp_path / "f", checksum=MD5, pace=PACE)
        assert threading.active_count() == threads
