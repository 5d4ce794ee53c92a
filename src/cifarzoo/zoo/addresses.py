"""Weights at an address: ``https://`` or ``hf://owner/name@revision/file``; kept once fetched."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cifarzoo.errors import ArgumentError, DownloadError, MissingExtraError, WeightsError
from cifarzoo.files.writing import cache_directory, digest, file_digest
from cifarzoo.version import __version__
from cifarzoo.zoo.torch_files import kind_of_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["fetch_address", "hub_client", "is_address", "said_by_hub"]

_ON_HUB = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", re.IGNORECASE)
_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub has it: resnet18-f37072fd.pth
_NEAR = ("localhost", "127.0.0.1", "::1")


def is_address(text: str) -> bool:
    """Whether ``text`` is an address rather than a path or a name.

    Example:
        >>> is_address("https://example.org/resnet20.safetensors")
        True
        >>> is_address("C:/weights/resnet20.safetensors")
        False
    """
    return re.match(r"(https?|hf)://", text, re.IGNORECASE) is not None


def fetch_address(address: str) -> tuple[Path, bool]:
    """The file at ``address``, from the cache if it was fetched before.

    Args:
        address: ``https://...`` or ``hf://owner/name@revision/file``. ``#sha256=...`` behind it
            says which file it must be; so does a name that ends as torch.hub's do, in a hyphen and
            the first eight or more digits of the sha256.

    Returns:
        The path, and whether the file was compared with a whole sha256.

    Raises:
        ArgumentError: It is no such address, or is one of ``http://`` without a checksum.
        MissingExtraError: huggingface_hub is not installed.
        DownloadError: The file cannot be fetched.
        WeightsError: It is another file than ``#sha256=`` says.
    """
    place, _, fragment = address.partition("#")
    said = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and not said:
        raise ArgumentError(
            f"{address}: what follows # must be sha256= and 64 hexadecimal digits; got {fragment!r}"
        )
    checksum = said[1].lower() if said else None
    if place.lower().startswith("hf://"):
        path = _from_hub(place)
        if checksum is not None and file_digest(path) != checksum:
            raise WeightsError(f"{place} is another file: its sha256 is {file_digest(path)}")
        return path, checksum is not None
    return _from_web(place, checksum), checksum is not None


def _from_web(url: str, checksum: str | None) -> Path:
    from cifarzoo.files.downloads import download
    from cifarzoo.files.progress import byte_bar

    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ArgumentError(f"{url} is no address: {error}") from error
    name = Path(unquote(parts.path)).name
    if not parts.hostname or not name or not name.isprintable() or re.search(r"\s", url):
        raise ArgumentError(f"{url} names no file; write https://host/folder/file.safetensors")
    if checksum is None and parts.scheme.lower() == "http" and parts.hostname not in _NEAR:
        raise ArgumentError(
            f"{url} can be changed on its way: take its https:// address, or put #sha256=... "
            "behind it"
        )
    hashed = _IN_NAME.search(name)
    if checksum is None and hashed and not hashed[1].isdigit():  # digits alone are a date
        checksum = hashed[1]
    target = cache_directory() / "weights" / digest(url.encode())[:16] / name
    with byte_bar(name) as advance:
        path = download([url], target, checksum=checksum, algorithm="sha256", advance=advance)
    if checksum is None:
        try:
            kind_of_file(path)
        except WeightsError:  # an error page, say: the next call asks again
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    return path


def _from_hub(place: str) -> Path:
    parts = _ON_HUB.fullmatch(place)
    if parts is None:
        raise ArgumentError(
            f"{place} names no file of the hub; write hf://owner/name/file.safetensors, or "
            "hf://owner/name@revision/file.safetensors"
        )
    client = hub_client()
    repository, revision, file = parts.groups()
    at = unquote(revision) if revision else None
    try:
        return Path(client.hf_hub_download(repository, file, revision=at))
    except Exception as error:  # of the hub, of its connection, or about the name
        raise DownloadError(
            f"the hub does not give {place}: {said_by_hub(error)}; check name, revision, file and "
            "connection, and run hf auth login if it is private"
        ) from error


def hub_client(api: HfApi | None = None) -> HfApi:
    """What talks to the hub: ``api`` itself, or one that says it is ours.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtraError(
            "the Hugging Face hub needs: pip install 'cifarzoo[hub]'"
        ) from error
    return api or HfApi(library_name="cifarzoo", library_version=__version__)


def said_by_hub(error: Exception) -> str:
    """What an error of the hub says, in one line; it has paragraphs."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
