"""Broken servers are given up in time, in our words, and never believed."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path

import pytest
from broken_servers import Answer, answering, broken_answers, drip, send_file

from cifarzoo.errors import DownloadError
from cifarzoo.files.downloads import Pace, download

CONTENT = bytes(range(256)) * 64
MD5 = hashlib.md5(CONTENT).hexdigest()
PACE = Pace(silence=0.3, slow=3000, patience=0.15, waits=())
BROKEN = broken_answers(CONTENT, stall=1.0)
TOLD = {
    "headers drip": "has not answered within 0.3 s|timed out",
    "does not speak HTTP": r"BadStatusLine +\[2J$",
    "redirects with a huge length": "infinite loop",
    "redirects to a file": "not allowed",
    "redirects to ftp": "neither http nor https",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_server_is_given_up_in_time(name: str, tmp_path: Path) -> None:
    path, began = tmp_path / "file.bin", time.monotonic()
    told = re.compile(TOLD.get(name, "cannot download"), re.MULTILINE)
    with answering(BROKEN[name]) as address, pytest.raises(DownloadError, match=told) as failure:
        download([address], path, checksum=MD5, pace=PACE)
    assert time.monotonic() - began < 10
    assert not path.exists()
    assert str(failure.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", BROKEN)
def test_the_next_address_is_asked_when_one_is_broken(name: str, tmp_path: Path) -> None:
    good: Answer = send_file(CONTENT)
    with answering(BROKEN[name]) as broken, answering(good) as address:
        path = download([broken, address], tmp_path / "file.bin", checksum=MD5, pace=PACE)
    assert path.read_bytes() == CONTENT


def test_a_download_leaves_no_thread(tmp_path: Path) -> None:
    with answering(drip(b"", b"x")) as address:
        threads = {thread.name for thread in threading.enumerate()}
        with pytest.raises(DownloadError):
            download([address], tmp_path / "file.bin", checksum=MD5, pace=PACE)
        mine = {t.name for t in threading.enumerate() if "serve" not in t.name}
    assert mine <= threads
