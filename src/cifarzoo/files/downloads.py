"""Downloads that resume, go on at mirrors, and are only believed when the checksum is right."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import itertools
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from cifarzoo.errors import ArgumentError, DownloadError, OutputError
from cifarzoo.files.locking import held
from cifarzoo.files.patience import TimeLimit
from cifarzoo.files.progress import Advance
from cifarzoo.files.writing import cannot_write, file_digest
from cifarzoo.plain import shorten

__all__ = ["Pace", "addresses", "download"]

_PROGRESS = 1 << 20  # bytes: a round that brings so many is no failure, and the waits begin anew
_LARGEST = 1 << 30  # bytes: no weights and no data set here have as many
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)
_WORDS = 300  # characters of a reason that are shown
_TRY_AGAIN = (408, 425, 429)  # of the answers 4xx; the others will be the same again


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long is waited for whom.

    Args:
        silence: Seconds before an address is left that does not begin to send, or sends no more.
        slow: Bytes a second; an address that sends fewer is left for one that may be faster.
        crawl: Bytes a second; an address that sends fewer is left even if it is the only one.
        patience: Seconds over which that is measured.
        waits: Seconds before each further round of all addresses.
    """

    silence: float = 30.0
    slow: float = 200_000  # 170 MB would take a quarter of an hour
    crawl: float = 2_000  # 170 MB would take a day
    patience: float = 20.0
    waits: tuple[float, ...] = (1.0, 2.0, 4.0)


def download(
    urls: Sequence[str],
    target: str | Path,
    *,
    checksum: str | None,
    algorithm: Literal["md5", "sha256"] = "md5",
    limit: int = _LARGEST,
    pace: Pace = Pace(),
    advance: Advance | None = None,
) -> Path:
    """Fetch a file from the first of ``urls`` that delivers it whole.

    What arrived before an interruption is kept beside the target with the suffix ``.part`` and
    continued, from whichever address answers, also from one that can only send the whole. An
    address that is slow is left for the others, and asked again when they have failed; one that
    sends next to nothing is left for good. When all have failed they are asked again, after a
    while. The target appears only when its checksum is right.
    Of several processes that want the same file, one fetches it and the others wait.

    Args:
        urls: Addresses in order of preference.
        target: Where the file goes.
        checksum: What it must have, hexadecimal; the first digits of it will do. None takes the
            file that the address sends, if it is as long as the server says; one that is there
            already is taken, and what arrived of another is not continued.
        algorithm: How that is computed.
        limit: Bytes; an address that sends more does not have the file.
        pace: How long is waited for whom.
        advance: Told the bytes so far and in all.

    Returns:
        The target's path.

    Raises:
        DownloadError: No address delivered the file; the message says what each one did.
        OutputError: The folder cannot be written, or the disk is full.
    """
    target = Path(target)
    wanted = _Wanted(target, checksum, algorithm, limit, advance)
    if target.is_file() and not wanted.problem_of(target):
        return target  # also from a folder that nobody can write
    with held(target.with_name(target.name + ".lock")):  # two would spoil each other's part
        if not target.is_file() or wanted.problem_of(target):
            _fetch_first(urls, wanted, pace)
    return target


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """A file, and how it is known."""

    target: Path
    checksum: str | None
    algorithm: Literal["md5", "sha256"]
    limit: int
    advance: Advance | None

    @property
    def part(self) -> Path:
        """What has arrived of it."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def problem_of(self, path: Path) -> str:
        """What is wrong with a whole file; empty for the one that is wanted."""
        if self.checksum is None:
            return ""
        found = file_digest(path, self.algorithm)
        is_it = found.startswith(self.checksum)
        return "" if is_it else f"{self.algorithm} is {found}, expected {self.checksum}"


def _fetch_first(urls: Sequence[str], wanted: _Wanted, pace: Pace) -> None:
    """Fetch from the first address that delivers it whole."""
    failures: dict[str, str] = {}
    hopeful, left = list(dict.fromkeys(urls)), list(pace.waits)
    while hopeful:
        before = wanted.size
        slow: list[str] = []
        # each once, then the slow ones with more patience: where all are slow, it is the line
        for url in itertools.chain(tuple(hopeful), slow):
            is_patient = url in slow or len(urls) == 1
            least = pace.crawl if is_patient else pace.slow
            try:
                _fetch_whole(url, wanted, pace, least=least)
            except OutputError:
                raise
            except _TooSlowError:
                if not is_patient:
                    slow.append(url)
                failures[url] = f"sends fewer than {least:,.0f} bytes a second"
            except _NETWORK_ERRORS as error:
                failures[url] = _reason(error)
                if _is_final(error):
                    hopeful.remove(url)
            else:
                wanted.part.replace(wanted.target)
                return
        if wanted.size - before >= _PROGRESS:
            left = list(pace.waits)
        elif not left:
            break
        if hopeful and left:
            time.sleep(left.pop(0))
    tried = "\n  ".join(f"{url}: {failures[url]}" for url in dict.fromkeys(urls))
    raise DownloadError(
        f"cannot download {wanted.target.name}:\n  {tried}\n"
        "check the connection and call again (what arrived is continued), name a mirror in "
        f"$CIFARZOO_MIRRORS, or put the file at {wanted.target} yourself"
    )


def _reason(error: Exception) -> str:
    """What happened, in one line: a server may have chosen the words."""
    said = "".join(letter if letter.isprintable() else " " for letter in str(error)).strip()
    if isinstance(error, http.client.HTTPException):
        said = f"{type(error).__name__} {said}"
    return said[:_WORDS] or type(error).__name__


def _is_final(error: Exception) -> bool:
    """Whether an address that failed so would fail again."""
    if isinstance(error, urllib.error.HTTPError):
        return 400 <= error.code < 500 and error.code not in _TRY_AGAIN
    return isinstance(error, ValueError)


def addresses(folders: Sequence[str], name: str, *, mirrors: Sequence[str] = ()) -> list[str]:
    """Where the file ``name`` may be, in the order of asking.

    The user's own come first, for who names one wants it to be used: ``mirrors``, then those of
    $CIFARZOO_MIRRORS. The checksum makes all of them equally good.

    Args:
        folders: Addresses that the library knows.
        name: The file.
        mirrors: Addresses of folders that the user names.
    """
    if isinstance(mirrors, str) or any(not isinstance(mirror, str) for mirror in mirrors):
        raise ArgumentError(f"mirrors must be a list of addresses; got {shorten(mirrors)}")
    named = os.environ.get("CIFARZOO_MIRRORS", "").split(",")
    own = (*mirrors, *(mirror.strip() for mirror in named if mirror.strip()))
    found = (f"{folder.rstrip('/')}/{name}" for folder in (*own, *folders))
    return list(dict.fromkeys(found))


class _TooSlowError(Exception):
    """An address sends less than it might."""


class _WrongFileError(ValueError):
    """An address sends something else."""


def _fetch_whole(url: str, wanted: _Wanted, pace: Pace, *, least: float) -> None:
    """Fetch what is missing, until the part has the right checksum.

    A part that turns out wrong may stem from another address: one fresh start for each.
    """
    while True:
        if wanted.checksum is None:  # nothing would tell that two halves do not belong together
            wanted.part.unlink(missing_ok=True)
        is_fresh = not wanted.size
        try:
            _fetch(url, wanted, pace, least=least)
            if problem := wanted.problem_of(wanted.part):
                raise _WrongFileError(problem)
            return
        except _WrongFileError:
            wanted.part.unlink(missing_ok=True)
            if is_fresh:
                raise


def _fetch(url: str, wanted: _Wanted, pace: Pace, *, least: float) -> None:
    """Append what is missing of ``url``; at less than ``least`` bytes a second, stop.

    Raises:
        _TooSlowError: It has sent less for a while.
        _WrongFileError: It has more to send than the file is long.
        OutputError: The part cannot be written.
    """
    have = wanted.size
    request = urllib.request.Request(url, headers={"User-Agent": "cifarzoo"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    limit = TimeLimit(pace.silence)  # redirects and headers together, however they arrive
    try:
        response = limit.opener().open(request, timeout=pace.silence)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing beyond what is here: the checksum decides
            return
        raise
    with response:
        place = have if response.status == 206 else 0  # the server does not resume
        length = response.headers.get("Content-Length")
        total = place + int(length) if length is not None else None
        if total is None and wanted.checksum is None and not response.chunked:
            raise _WrongFileError("does not tell how long the file is")
        since, before = time.monotonic(), place
        with _writing(wanted.part):
            file = wanted.part.open("ab")
        with file:
            while piece := _next_piece(response, limit):
                _check_size(max(place + len(piece), total or 0), wanted.limit)
                with _writing(wanted.part):
                    file.write(piece[max(0, have - place) :])  # what is here is passed over
                    file.flush()
                place += len(piece)
                if wanted.advance is not None:
                    wanted.advance(place, total)
                seconds = time.monotonic() - since
                if seconds >= pace.patience:
                    if place - before < least * seconds:
                        raise _TooSlowError
                    since, before = time.monotonic(), place
    if total is not None and place < total:
        raise OSError(f"connection closed after {place:,} of {total:,} bytes")


def _next_piece(response: http.client.HTTPResponse, limit: TimeLimit) -> bytes:
    limit.begin()
    return response.read1(1 << 18)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise _WrongFileError(f"sends {size:,} bytes, more than the {limit:,} the file may have")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell errors of the disk from those of the network."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
