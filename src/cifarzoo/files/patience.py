"""Answers of servers that have to be there in time, also from servers that drip.

A timeout of a socket begins anew with every byte. A server that sends a header a byte at a time
would keep a program waiting for days. Here one time limit holds for all the bytes of an answer.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
import urllib.request
from typing import Any, cast

__all__ = ["TimeLimit"]


class TimeLimit:
    """A number of seconds, after which reading from a server fails.

    Args:
        seconds: How many; they begin at once, and anew at each `begin`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begin()

    def begin(self) -> None:
        """Start the time anew."""
        self._end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds that are left.

        Raises:
            TimeoutError: There are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"has not answered within {self.seconds:g} s")
        return left

    def opener(self) -> urllib.request.OpenerDirector:
        """What opens addresses, as ``urllib.request.urlopen`` does, within the limit."""
        return urllib.request.build_opener(_Http(self), _Https(self), _Redirects)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, limit: TimeLimit) -> None:
        super().__init__()
        self.limit = limit

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connect: Any = functools.partial(_connect, http.client.HTTPConnection, self.limit)
        return self.do_open(connect, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, limit: TimeLimit) -> None:
        super().__init__()
        self.limit = limit

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connect: Any = functools.partial(_connect, http.client.HTTPSConnection, self.limit)
        return self.do_open(connect, request)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Go on to another address; what else the answer holds is not read, however long it is."""
        fp.close()
        if not newurl.lower().startswith(("http:", "https:")):
            raise OSError(f"sends on to {newurl[:200]}, which is neither http nor https")
        if req.full_url.lower().startswith("https:") and newurl.lower().startswith("http:"):
            raise OSError(f"sends on to {newurl[:200]}, where others could change the file")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _connect(
    kind: type[http.client.HTTPConnection], limit: TimeLimit, host: str, **options: Any
) -> http.client.HTTPConnection:
    """A connection whose answers, that of a proxy too, are read within the limit."""
    connection = kind(host, **{**options, "timeout": limit.left()})

    def answer(sock: socket.socket, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, **options)
        raw = response.fp.detach()
        response.fp = io.BufferedReader(_Watched(raw, sock, limit))
        return response

    connection.response_class = cast("type[http.client.HTTPResponse]", answer)
    return connection


class _Watched(io.RawIOBase):
    """The bytes of a socket, each of which has to be there in time."""

    def __init__(self, raw: Any, sock: socket.socket, limit: TimeLimit) -> None:
        self.raw, self.sock, self.limit = raw, sock, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.limit.left())
        found: int | None = self.raw.readinto(buffer)
        return found

    def close(self) -> None:
        if not self.closed:
            self.raw.close()
        super().close()
