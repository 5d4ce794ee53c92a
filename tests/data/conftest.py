from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_server import FileServer, serve_files


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A web server on this machine, reached without any proxy."""
    monkeypatch.setenv("no_proxy", "*")
    with serve_files() as running:
        yield running
