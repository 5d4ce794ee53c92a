"""A web server on this machine for tests of downloads."""

from __future__ import annotations

import contextlib
import dataclasses
import time

from local_server import Handler, LocalServer

__all__ = ["FileServer", "Served"]


@dataclasses.dataclass
class Served:
    """How one file is answered.

    Args:
        content: The whole file.
        resumes: Whether Range requests are honoured.
        cut: Bytes after which the connection is closed; None sends all that is asked for.
        has_length: Whether Content-Length is sent.
        pause: Seconds between two pieces of 64 KiB; 0 sends all at once.
        requests: Header Range of every request so far.
    """

    content: bytes
    resumes: bool = True
    cut: int | None = None
    has_length: bool = True
    pause: float = 0.0
    requests: list[str | None] = dataclasses.field(default_factory=list)


class FileServer(LocalServer):
    """Serves the files in ``served``, by name; everything else is 404."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.served: dict[str, Served] = {}

    def add(self, name: str, served: Served) -> str:
        """Serve a file and return its address."""
        self.served[name] = served
        return f"{self.address}/{name}"


class _Handler(Handler):
    server: FileServer

    def do_GET(self) -> None:  # noqa: N802  (its name there)
        served = self.server.served.get(self.path.lstrip("/"))
        if served is None:
            self.send_error(404)
            return
        asked = self.headers["Range"]
        served.requests.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.resumes else 0
        if asked and start >= len(served.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if served.has_length:
            self.send_header("Content-Length", str(len(served.content) - start))
        self.end_headers()
        content = served.content[start:][: served.cut]
        if not served.pause:
            self.wfile.write(content)
            return
        with contextlib.suppress(ConnectionError):  # who asked has had enough
            for place in range(0, len(content), 1 << 16):
                self.wfile.write(content[place : place + (1 << 16)])
                time.sleep(served.pause)
