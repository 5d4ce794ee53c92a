from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from file_server import FileServer, Served

from cifarzoo.errors import DataError, DownloadError, OutputError
from cifarzoo.files.downloads import Pace, download

CONTENT = bytes(range(256)) * 4096  # 1 MiB, more than one piece
HALF = len(CONTENT) // 2


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


MD5 = md5_of(CONTENT)
ONCE = Pace(waits=())
QUICK = Pace(slow=3e6, crawl=1000, patience=0.15, waits=(0.01, 0.02))
"""An address is slow that sends less than 3 MB a second for 0.15 seconds."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "file.bin"


def part_of(target: Path) -> Path:
    return target.with_name("file.bin.part")


def leave_part(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(content)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_arrives(server: FileServer, target: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    assert download([url], str(target), checksum=MD5) == target
    assert target.read_bytes() == CONTENT
    assert names_in(target.parent) == ["file.bin"]
    assert served.requests == [None]


def test_file_without_a_length_arrives(server: FileServer, target: Path) -> None:
    progress: list[tuple[int, int | None]] = []
    url = server.add("file.bin", Served(CONTENT, has_length=False))
    download([url], target, checksum=MD5, advance=lambda *seen: progress.append(seen))
    assert target.read_bytes() == CONTENT
    assert {total for _, total in progress} == {None}
    assert progress[-1] == (len(CONTENT), None)


def test_part_is_continued(server: FileServer, target: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    leave_part(target, CONTENT[:HALF])
    download([url], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert served.requests == [f"bytes={HALF}-"]
    assert names_in(target.parent) == ["file.bin"]


def test_part_is_replaced_when_the_server_does_not_resume(server: FileServer, target: Path) -> None:
    served = Served(CONTENT, resumes=False)
    url = server.add("file.bin", served)
    leave_part(target, CONTENT[:HALF])
    download([url], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert served.requests == [f"bytes={HALF}-"]


def test_part_that_is_already_whole_is_taken(server: FileServer, target: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    leave_part(target, CONTENT)
    download([url], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert served.requests == [f"bytes={len(CONTENT)}-"]


def test_part_that_is_empty_starts_at_the_beginning(server: FileServer, target: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    leave_part(target, b"")
    download([url], target, checksum=MD5)
    assert served.requests == [None]


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * (len(CONTENT) + 1)])
def test_wrong_part_costs_one_fresh_start(server: FileServer, target: Path, wrong: bytes) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    leave_part(target, wrong)
    download([url], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert served.requests == [f"bytes={len(wrong)}-", None]


def test_wrong_part_from_a_wrong_server_is_given_up(server: FileServer, target: Path) -> None:
    served = Served(b"y" * 2000)
    url = server.add("file.bin", served)
    leave_part(target, b"x" * 1000)
    with pytest.raises(DownloadError) as failure:
        download([url], target, checksum=MD5)
    assert served.requests == ["bytes=1000-", None]
    assert str(failure.value).count(url) == 1
    assert names_in(target.parent) == []


def test_next_call_continues_after_a_closed_connection(server: FileServer, target: Path) -> None:
    served = Served(CONTENT, cut=HALF)
    url = server.add("file.bin", served)
    closed = f"{url}: connection closed after {HALF:,} of {len(CONTENT):,} bytes"
    with pytest.raises(DownloadError, match=re.escape(closed)):
        download([url], target, checksum=MD5, pace=ONCE)
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:HALF]

    served.cut = None
    download([url], target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert served.requests == [None, f"bytes={HALF}-"]


def test_mirror_continues_where_the_first_address_stopped(server: FileServer, target: Path) -> None:
    mirror = Served(CONTENT)
    urls = [server.add("first.bin", Served(CONTENT, cut=HALF)), server.add("mirror.bin", mirror)]
    download(urls, target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert mirror.requests == [f"bytes={HALF}-"]


def test_wrong_checksum_leads_to_the_next_mirror(server: FileServer, target: Path) -> None:
    wrong, mirror = Served(b"another file"), Served(CONTENT)
    urls = [server.add("wrong.bin", wrong), server.add("mirror.bin", mirror)]
    download(urls, target, checksum=MD5)
    assert target.read_bytes() == CONTENT
    assert (wrong.requests, mirror.requests) == ([None], [None])


def test_mirrors_after_the_first_success_are_not_asked(server: FileServer, target: Path) -> None:
    mirror = Served(CONTENT)
    urls = [server.add("first.bin", Served(CONTENT)), server.add("mirror.bin", mirror)]
    download(urls, target, checksum=MD5)
    assert mirror.requests == []


def test_of_two_that_want_the_same_file_one_fetches_it(server: FileServer, target: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: download([url], target, checksum=MD5), range(2)))
    assert found == [target, target]
    assert target.read_bytes() == CONTENT
    assert names_in(target.parent) == ["file.bin"]
    assert served.requests == [None]


def test_error_says_what_each_address_did(server: FileServer, target: Path) -> None:
    wrong = b"another file"
    urls = [
        f"{server.address}/missing.bin",
        server.add("wrong.bin", Served(wrong)),
        "http://127.0.0.1:1/refused.bin",
        "no address at all",
        server.add("cut.bin", Served(CONTENT, cut=10)),
    ]
    with pytest.raises(DownloadError) as failure:
        download(urls, target, checksum=MD5, pace=ONCE)
    first, *tried = str(failure.value).splitlines()
    assert first == "cannot download file.bin:"
    for url, reason, line in zip(
        urls,
        ["404", f"md5 is {md5_of(wrong)}, expected {MD5}", "refused", "unknown url", "after 10 of"],
        tried,
        strict=False,
    ):
        assert line.startswith(f"  {url}: ")
        assert reason in line
    assert "$CIFARZOO_MIRRORS" in tried[-1]
    assert str(target) in tried[-1]
    assert isinstance(failure.value, DataError)
    assert isinstance(failure.value, OSError)


def test_failed_download_keeps_the_old_file(server: FileServer, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    with pytest.raises(DownloadError):
        download([server.add("wrong.bin", Served(b"another file"))], target, checksum=MD5)
    assert target.read_bytes() == b"old"
    assert names_in(target.parent) == ["file.bin"]


@pytest.mark.parametrize("have", [0, HALF])
def test_progress_counts_bytes_up_to_the_total(server: FileServer, target: Path, have: int) -> None:
    progress: list[tuple[int, int | None]] = []
    url = server.add("file.bin", Served(CONTENT))
    if have:
        leave_part(target, CONTENT[:have])
    download([url], target, checksum=MD5, advance=lambda *seen: progress.append(seen))
    done = [bytes_done for bytes_done, _ in progress]
    assert len(done) > 1
    assert have < done[0]
    assert done == sorted(set(done))
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in progress} == {len(CONTENT)}


def test_progress_starts_again_when_the_server_does_not_resume(
    server: FileServer, target: Path
) -> None:
    progress: list[tuple[int, int | None]] = []
    url = server.add("file.bin", Served(CONTENT, resumes=False))
    leave_part(target, CONTENT[:HALF])
    download([url], target, checksum=MD5, advance=lambda *seen: progress.append(seen))
    assert progress[0][0] < HALF
    assert progress[-1] == (len(CONTENT), len(CONTENT))


def test_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        download([url], tmp_path / "file" / "file.bin", checksum=MD5)
    assert served.requests == []


def test_a_slow_address_is_left_for_the_next_which_goes_on(
    server: FileServer, target: Path
) -> None:
    slow, mirror = Served(CONTENT, pause=0.1), Served(CONTENT)
    urls = [server.add("slow.bin", slow), server.add("mirror.bin", mirror)]
    download(urls, target, checksum=MD5, pace=QUICK)
    assert target.read_bytes() == CONTENT
    assert slow.requests == [None]
    (asked,) = mirror.requests
    assert asked is not None
    assert 0 < int(asked.removeprefix("bytes=").rstrip("-")) < HALF


@pytest.mark.parametrize("others", [[], ["missing.bin"], ["as_slow.bin"]])
def test_a_slow_address_is_better_than_none(
    server: FileServer, target: Path, others: list[str]
) -> None:
    slow = Served(CONTENT, pause=0.03)
    urls = [server.add("slow.bin", slow), *(f"{server.address}/{name}" for name in others)]
    server.add("as_slow.bin", Served(CONTENT, pause=0.03))
    download(urls, target, checksum=MD5, pace=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(slow.requests) == (2 if others else 1)


def test_an_address_that_sends_next_to_nothing_is_given_up(
    server: FileServer, target: Path
) -> None:
    url = server.add("crawl.bin", Served(CONTENT, pause=0.1))
    crawl = dataclasses.replace(QUICK, crawl=3e6, waits=(0.01,))
    with pytest.raises(DownloadError, match="sends fewer than 3,000,000 bytes a second"):
        download([url], target, checksum=MD5, pace=crawl)
    before = part_of(target).stat().st_size
    assert before > 0
    server.served["crawl.bin"].pause = 0
    download([url], target, checksum=MD5)
    assert server.served["crawl.bin"].requests[-1] == f"bytes={before}-"


def test_an_address_that_breaks_off_is_asked_again_and_goes_on(
    server: FileServer, target: Path
) -> None:
    served = Served(CONTENT, cut=HALF - 1)
    url = server.add("file.bin", served)
    download([url], target, checksum=MD5, pace=QUICK)
    assert target.read_bytes() == CONTENT
    assert served.requests == [None, f"bytes={HALF - 1}-", f"bytes={2 * HALF - 2}-"]


def test_an_address_is_given_up_after_as_many_waits_as_there_are(
    server: FileServer, target: Path
) -> None:
    served = Served(CONTENT, cut=0)
    url = server.add("file.bin", served)
    began = time.monotonic()
    with pytest.raises(DownloadError, match="connection closed after 0"):
        download([url], target, checksum=MD5, pace=Pace(waits=(0.05, 0.1)))
    assert len(served.requests) == 3
    assert time.monotonic() - began >= 0.15


def test_what_will_not_change_is_not_asked_again(server: FileServer, target: Path) -> None:
    wrong = Served(b"another file")
    urls = [f"{server.address}/missing.bin", server.add("wrong.bin", wrong)]
    with pytest.raises(DownloadError):
        download(urls, target, checksum=MD5, pace=Pace(waits=(60.0,)))
    assert wrong.requests == [None]


def test_what_arrived_is_kept_where_the_next_address_only_sends_the_whole(
    server: FileServer, target: Path
) -> None:
    leave_part(target, CONTENT[:HALF])
    url = server.add("whole.bin", Served(CONTENT, resumes=False, cut=HALF // 2))
    with pytest.raises(DownloadError):
        download([url], target, checksum=MD5, pace=ONCE)
    assert part_of(target).read_bytes() == CONTENT[:HALF]


@pytest.mark.parametrize("has_length", [True, False])
def test_more_than_the_file_may_have_is_refused(
    server: FileServer, target: Path, has_length: bool
) -> None:
    endless = Served(CONTENT, has_length=has_length)
    urls = [server.add("endless.bin", endless), server.add("file.bin", Served(CONTENT[:HALF]))]
    done: list[int] = []
    download(
        urls,
        target,
        checksum=md5_of(CONTENT[:HALF]),
        limit=HALF + 1,
        advance=lambda count, _: done.append(count),
    )
    assert target.read_bytes() == CONTENT[:HALF]
    assert max(done) <= HALF + 1


def test_a_file_that_is_there_needs_no_lock(server: FileServer, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    with mock.patch("cifarzoo.files.downloads.held", side_effect=OutputError("read-only")):
        assert download([server.add("a", Served(b""))], target, checksum=MD5) == target
        with pytest.raises(OutputError):
            download([server.add("a", Served(b""))], target, checksum=md5_of(b"other"))


def test_a_full_disk_is_no_failure_of_the_address(server: FileServer, target: Path) -> None:
    resource = pytest.importorskip("resource")
    served = Served(CONTENT)
    url = server.add("file.bin", served)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            download([url], target, checksum=MD5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert served.requests == [None]
