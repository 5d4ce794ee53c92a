"""Downloads that resume, go on at mirrors, and are only believed when the checksum is right."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock

from cifarzoo.errors import DownloadError
from cifarzoo.files.progress import Advance
from cifarzoo.files.writing import file_digest, make_directory

__all__ = ["addresses", "download"]

_TIMEOUT = 30.0  # seconds without a byte before the next address is tried
_SLOW = 200_000  # bytes a second: 170 MB would take a quarter of an hour
_PATIENCE = 20.0  # seconds below that before the next address is tried
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)


def download(
    urls: Sequence[str],
    target: str | Path,
    *,
    checksum: str,
    algorithm: Literal["md5", "sha256"] = "md5",
    advance: Advance | None = None,
) -> Path:
    """Fetch a file from the first of ``urls`` that delivers it whole.

    What arrived before an interruption is kept beside the target with the suffix ``.part`` and
    continued, from whichever address answers. An address that is slow is left for the others, and
    asked again when they have failed. The target appears only when its checksum is right.
    Of several processes that want the same file, one fetches it and the others wait.

    Args:
        urls: Addresses in order of preference.
        target: Where the file goes.
        checksum: What it must have, hexadecimal.
        algorithm: How that is computed.
        advance: Told the bytes so far and in all.

    Returns:
        The target's path.

    Raises:
        DownloadError: No address delivered the file; the message says what each one did.
        OutputError: The folder cannot be written.
    """
    target = Path(target)
    part = target.with_name(target.name + ".part")
    make_directory(target.parent)
    lock = target.with_name(target.name + ".lock")
    try:
        with FileLock(lock):  # two processes would spoil each other's part
            if not target.is_file() or file_digest(target, algorithm) != checksum:
                _fetch_first(urls, target, part, checksum, algorithm, advance)
    finally:
        with contextlib.suppress(OSError):  # where another process holds it, that one removes it
            lock.unlink()
    return target


def _fetch_first(
    urls: Sequence[str],
    target: Path,
    part: Path,
    checksum: str,
    algorithm: Literal["md5", "sha256"],
    advance: Advance | None,
) -> None:
    """Fetch from the first address that delivers it whole."""
    failures = []
    slow: list[str] = []
    # each once, then the slow ones with all patience: where all are slow, it is the line
    for url in itertools.chain(urls, slow):
        is_patient = url in slow or len(urls) == 1
        # a part that turns out wrong may stem from another address: one fresh start for each
        for attempt in ("continued", "fresh"):
            resumed = part.exists() and part.stat().st_size > 0
            try:
                _fetch(url, part, advance, least=0 if is_patient else _SLOW)
            except _TooSlowError:
                slow.append(url)
                break
            except _NETWORK_ERRORS as error:
                failures.append(f"{url}: {error}")
                break
            found = file_digest(part, algorithm)
            if found == checksum:
                part.replace(target)
                return
            part.unlink()
            if attempt == "fresh" or not resumed:
                failures.append(f"{url}: {algorithm} is {found}, expected {checksum}")
                break
    tried = "\n  ".join(failures)
    raise DownloadError(
        f"cannot download {target.name}:\n  {tried}\n"
        "check the connection and call again (what arrived is continued), name a mirror in "
        f"$CIFARZOO_MIRRORS, or put the file at {target} yourself"
    )


def addresses(folders: Sequence[str], name: str, *, mirrors: Sequence[str] = ()) -> list[str]:
    """Where the file ``name`` may be, in the order of asking.

    The user's own come first, for who names one wants it to be used: ``mirrors``, then those of
    $CIFARZOO_MIRRORS. The checksum makes all of them equally good.

    Args:
        folders: Addresses that the library knows.
        name: The file.
        mirrors: Addresses of folders that the user names.
    """
    named = os.environ.get("CIFARZOO_MIRRORS", "").split(",")
    own = (*mirrors, *(mirror.strip() for mirror in named if mirror.strip()))
    found = (f"{folder.rstrip('/')}/{name}" for folder in (*own, *folders))
    return list(dict.fromkeys(found))


class _TooSlowError(Exception):
    """An address sends less than it might."""


def _fetch(url: str, part: Path, advance: Advance | None, *, least: float) -> None:
    """Append what is missing of ``url`` to ``part``; at less than ``least`` bytes a second, stop.

    Raises:
        _TooSlowError: It has sent less for a while.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "cifarzoo"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing beyond what is here: the checksum decides
            return
        raise
    with response:
        if response.status != 206:  # the server does not resume
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        since, before = time.monotonic(), have
        with part.open("ab" if have else "wb") as file:
            while piece := response.read1(1 << 18):
                file.write(piece)
                have += len(piece)
                if advance is not None:
                    advance(have, total)
                seconds = time.monotonic() - since
                if seconds >= _PATIENCE:
                    if have - before < least * seconds:
                        raise _TooSlowError
                    since, before = time.monotonic(), have
    if total is not None and have < total:
        raise OSError(f"connection closed after {have:,} of {total:,} bytes")
