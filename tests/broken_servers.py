"""Servers that drip, stall, lie and send in circles, on this machine, for tests of downloads."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["Answer", "answering", "broken_answers", "drip", "say", "send_file"]

Answer = Callable[[socket.socket, str], None]
"""Answers one request: given the connection, and the server's own address."""

OK = b"HTTP/1.1 200 OK\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that gives each connection to ``answer``; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/file.bin"

        def serve(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):  # who asked has had enough
                peer.settimeout(30)
                peer.recv(4096)
                answer(peer, address)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield address
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def drip(start: bytes, more: bytes, *, pause: float = 0.01) -> Answer:
    """Sends ``start``, then ``more`` a byte at a time, again and again."""

    def answer(peer: socket.socket, address: str) -> None:
        peer.sendall(start)
        while True:
            for number in more:
                peer.sendall(bytes([number]))
                time.sleep(pause)

    return answer


def say(content: bytes) -> Answer:
    """Sends ``content`` at once, and closes the connection."""
    return lambda peer, _: peer.sendall(content)


def send_file(content: bytes) -> Answer:
    """What a good server sends, which continues nothing."""
    return say(OK + b"Content-Length: %d\r\n\r\n" % len(content) + content)


def go_to(address: bytes, more: bytes = b"") -> Answer:
    """Sends on to another address; nothing stands for the server's own."""

    def answer(peer: socket.socket, own: str) -> None:
        peer.sendall(MOVED + (address or own.encode()) + b"\r\n" + more + b"\r\n")

    return answer


def reset(peer: socket.socket, _: str) -> None:
    """Breaks the connection off."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless_redirect(peer: socket.socket, own: str) -> None:
    """Sends on to itself, with content that has no end."""
    drip(MOVED + own.encode() + b"\r\n\r\n", b"x")(peer, own)


def broken_answers(content: bytes, *, stall: float) -> dict[str, Answer]:
    """Every way to be broken, for a server that should send ``content``.

    Args:
        content: The right file.
        stall: Seconds of silence, more than anybody waits.
    """
    half, length = content[: len(content) // 2], len(content)

    def stalls(peer: socket.socket, _: str) -> None:
        time.sleep(stall)

    def stalls_halfway(peer: socket.socket, _: str) -> None:
        peer.sendall(OK + b"Content-Length: %d\r\n\r\n" % length + half)
        time.sleep(stall)

    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        "status drips": drip(b"", b"x"),
        "headers drip": drip(OK, b"X-A: b\r\n"),
        "goes on for ever": drip(b"", b"HTTP/1.1 100 Go\r\n\r\n"),
        "a chunk's length drips": drip(chunked, b"0"),
        "content drips": drip(OK + b"\r\n", b"x", pause=0.02),
        "stalls": stalls,
        "stalls halfway": stalls_halfway,
        "breaks off": say(OK + b"Content-Length: %d\r\n\r\n" % length + half),
        "resets": reset,
        "says nothing": say(b""),
        "states a length too large": say(OK + b"Content-Length: 99999999999999\r\n\r\n" + content),
        "states a length too small": say(OK + b"Content-Length: 3\r\n\r\n" + content),
        "states a length below zero": say(OK + b"Content-Length: -5\r\n\r\n" + half),
        "states a length in words": say(OK + b"Content-Length: many\r\n\r\n" + content),
        "states a length of many digits": say(
            OK + b"Content-Length: " + b"9" * 6000 + b"\r\n\r\n" + content
        ),
        "sends a wrong chunk": say(chunked + b"zz\r\n" + content),
        "breaks a chunk off": say(chunked + b"fffff\r\n" + half),
        "sends another file": send_file(content[::-1]),
        "sends a page": say(OK + b"Content-Type: text/html\r\n\r\n<html>Log in</html>"),
        "sends another part": say(b"HTTP/1.1 206 Partial\r\n\r\n" + content[7:]),
        "does not speak HTTP": say(b"\x1b[2J\r\n\r\n"),
        "speaks too long": say(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
        "has too many headers": say(OK + b"X: y\r\n" * 500 + b"\r\n"),
        "refuses": say(b"HTTP/1.1 403 \x1b[31mNo\r\n\r\n"),
        "fails": say(b"HTTP/1.1 503 Later\r\n\r\n"),
        "redirects in circles": go_to(b""),
        "redirects with endless content": endless_redirect,
        "redirects with a huge length": go_to(b"", b"Content-Length: 99999999999999\r\n"),
        "redirects to a file": go_to(b"file:///etc/hostname"),
        "redirects to ftp": go_to(b"ftp://127.0.0.1/x"),
        "redirects to nowhere": go_to(b"http://[::bad/x"),
        "redirects to a port that is none": go_to(b"http://127.0.0.1:999999/x"),
    }
