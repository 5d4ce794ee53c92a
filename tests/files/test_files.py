from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cifarzoo.errors import CifarZooError, OutputError
from cifarzoo.files.locking import Timeout, held
from cifarzoo.files.writing import (
    atomic_path,
    digest,
    file_digest,
    make_directory,
    write_bytes,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that is there already, alone in its folder."""
    path = tmp_path / "file.json"
    path.write_bytes(b"old")
    return path


needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def assert_untouched(old: Path) -> None:
    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == [old.name]


def test_block_that_succeeds_replaces_the_file(old: Path) -> None:
    with atomic_path(old) as part:
        part.write_bytes(b"new")
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == b"new"
    assert names_in(old.parent) == ["file.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="which files are open is asked of Linux")
@pytest.mark.parametrize("replace", [True, False])
def test_nothing_is_done_that_windows_does_not_allow(
    replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flushing a file that is open for reading, moving one that is open at all."""
    import fcntl

    flush, move, link = os.fsync, Path.replace, os.link

    def flush_as_there(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "bad file descriptor")
        flush(number)

    def check_closed(path: Path) -> None:
        numbers = Path("/proc/self/fd").iterdir()
        if any(os.path.realpath(number) == os.path.realpath(path) for number in numbers):
            raise PermissionError(errno.EACCES, "it is being used by another process")

    def move_as_there(path: Path, target: Path) -> Path:
        check_closed(path)
        return move(path, target)

    def link_as_there(path: Path, target: Path) -> None:
        check_closed(path)
        link(path, target)

    monkeypatch.setattr(os, "fsync", flush_as_there)
    monkeypatch.setattr(os, "link", link_as_there)
    monkeypatch.setattr(Path, "replace", move_as_there)
    monkeypatch.setattr(sys, "platform", "win32")
    path = write_bytes(tmp_path / "file.json", b"new", replace=replace)
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["file.json"]


@needs_links
def test_behind_a_link_the_file_that_it_names_is_replaced(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.json"
    link.parent.mkdir()
    link.symlink_to(old)
    write_text(link, "new")
    assert link.is_symlink()
    assert old.read_text() == "new"
    assert names_in(link.parent) == ["link.json"]


@needs_links
def test_a_file_keeps_its_permissions(old: Path) -> None:
    old.chmod(0o600)
    write_text(old, "new")
    assert old.stat().st_mode & 0o777 == 0o600


def test_temporary_path_is_hidden_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    with atomic_path(str(tmp_path / "plot.png")) as part:
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.suffix == ".png"
        part.write_bytes(b"picture")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_block_that_fails_leaves_the_old_file(old: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with atomic_path(old) as part:
            part.write_bytes(b"ne")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_half()
    assert_untouched(old)


def test_block_that_fails_leaves_no_new_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "file.json") as part:
            part.write_bytes(b"ne")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        write_half()
    assert names_in(tmp_path) == []


def test_block_that_writes_nothing_leaves_the_old_file(old: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), atomic_path(old):
        pass
    assert_untouched(old)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a file takes one byte and then no more."""

    def write_bytes(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_full_disk_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch)
    with pytest.raises(OutputError) as failure:
        write_bytes(old, b"new")
    assert str(failure.value) == (
        f"cannot write {old}: no space left on device; free space or choose another place"
    )
    assert isinstance(failure.value, OSError)
    assert isinstance(failure.value, CifarZooError)
    assert isinstance(failure.value.__cause__, OSError)
    assert_untouched(old)


def test_disk_that_is_found_full_at_the_end_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="no space left on device"):
        write_text(old, "new")
    assert_untouched(old)


def test_content_is_on_the_disk_before_it_takes_the_place_of_the_old(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync"))

    def recorded(path: Path, target: Any) -> Path:
        order.append("replace")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", recorded)
    write_bytes(old, b"new")
    assert order == ["fsync", "replace"]


def test_error_without_a_reason_of_the_system_is_still_told(old: Path) -> None:
    def fail() -> None:
        with atomic_path(old):
            raise OSError("Strange Disk")

    with pytest.raises(OutputError, match="strange disk; choose another place"):
        fail()


def test_error_that_is_already_ours_stays_as_it_is(old: Path) -> None:
    ours = OutputError("already said")

    def fail() -> None:
        with atomic_path(old):
            raise ours

    with pytest.raises(OutputError) as failure:
        fail()
    assert failure.value is ours
    assert_untouched(old)


def test_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write .*taken: it is a folder"):
        write_bytes(tmp_path / "taken", b"new")
    assert names_in(tmp_path) == ["taken"]


def test_write_bytes_makes_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert write_bytes(str(path), b"\0\xff") == path
    assert path.read_bytes() == b"\0\xff"


def test_write_text_is_utf8_with_plain_newlines(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file", "é→\n")
    assert path.read_bytes() == "é→\n".encode()


def test_make_directory_may_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_directory(str(folder)) == make_directory(folder) == folder
    assert folder.is_dir()


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_make_directory_in_the_place_of_a_file(old: Path, below: str) -> None:
    with pytest.raises(
        OutputError, match=r"cannot write .*: a file is in its place; choose a folder"
    ):
        make_directory(old / below)
    assert_untouched(old)


def test_make_directory_checks_the_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Any, mode: int) -> bool:
        assert mode == os.W_OK | os.X_OK
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(OutputError, match="permission denied; choose another folder"):
        make_directory(tmp_path)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_checksums_equal_those_of_hashlib(tmp_path: Path, algorithm: str, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    path = tmp_path / "file"
    path.write_bytes(content)
    expected = hashlib.new(algorithm, content).hexdigest()
    assert digest(content, algorithm) == file_digest(str(path), algorithm) == expected


def test_checksums_are_sha256_unless_asked(old: Path) -> None:
    expected = hashlib.sha256(b"old").hexdigest()
    assert digest(b"old") == file_digest(old) == expected


WRITER = """
import sys, time
from cifarzoo.files.writing import atomic_path

with atomic_path(sys.argv[1]) as part:
    part.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that is in the middle of writing ``path``."""
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def test_what_a_killed_write_leaves_is_removed_by_the_next_into_the_folder(
    tmp_path: Path,
) -> None:
    with writing(tmp_path / "checkpoint.pt") as killed:
        killed.kill()
        killed.wait()
        assert len(names_in(tmp_path)) == 1
    (tmp_path / ".12345.part.checkpoint.pt").write_bytes(b"of an older version")
    write_text(tmp_path / "other.json", "{}")
    assert names_in(tmp_path) == ["other.json"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with writing(tmp_path / "checkpoint.pt") as alive:
        before = names_in(tmp_path)
        write_text(tmp_path / "other.json", "{}")
        assert names_in(tmp_path) == [*before, "other.json"]
        alive.kill()


def test_threads_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_bytes(path, content), contents * 5))
    assert path.read_bytes() in contents
    assert names_in(tmp_path) == ["file"]


def test_a_file_that_may_not_be_replaced_is_not(old: Path) -> None:
    with pytest.raises(OutputError, match="it is there already"):
        write_bytes(old, b"new", replace=False)
    assert_untouched(old)
    other = write_bytes(old.with_name("other"), b"new", replace=False)
    assert other.read_bytes() == b"new"
    assert names_in(old.parent) == ["file.json", "other"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    for name in ("x" * 300, "x" * 300 + "/file"):
        with pytest.raises(OutputError, match="file name too long; choose another place"):
            write_bytes(tmp_path / name, b"new")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has none")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/stdout", "/dev/null"):
        with pytest.raises(OutputError, match="is a device or a pipe"):
            write_bytes(path, b"new")
    assert pipe.is_fifo()


def test_a_lock_in_a_folder_that_was_replaced_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "lock"
    with held(lock):
        lock.parent.rename(tmp_path / "moved")
        lock.parent.mkdir()
        lock.write_text("of another process")
    assert lock.read_text() == "of another process"


HOLDER = """
import sys, time
from cifarzoo.files.locking import held

with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_free_when_its_process_has_died(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Timeout), held(lock, wait=False):
            pass
        process.kill()
        process.wait()
    assert names_in(tmp_path) == ["lock"]
    with held(lock, wait=False):
        assert names_in(tmp_path) == ["lock"]
    assert names_in(tmp_path) == []
