"""Fixtures and options shared by all tests."""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
import typer.testing
from compiled import forget_kernels, without_kernels
from file_server import FileServer
from filelock import FileLock

import cifarzoo
from cifarzoo import ImageSet, WeightsInfo
from cifarzoo.compute.cpu import library
from cifarzoo.data.sets import registry as sets
from cifarzoo.data.sets import sample
from cifarzoo.evaluation import cost, metrics
from cifarzoo.recipe import optimizers
from cifarzoo.recipe.augmentation import registry as augmentations
from cifarzoo.recipe.schedulers import registry as schedulers
from cifarzoo.zoo import registry

cifarzoo.list_models()  # the registry is full before a test has its own

hypothesis.settings.register_profile(
    "default",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("default")


def pytest_collection_finish() -> None:
    """Leave what is there before the first test out of every later search for garbage."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


@pytest.fixture(autouse=True, scope="session")
def no_kernels() -> Iterator[None]:
    """No layers in C, whatever earlier runs have left in the cache; `built` has them."""
    with pytest.MonkeyPatch.context() as patch:
        without_kernels(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_command_tree() -> Iterator[None]:
    """The commands are built from their functions once, and not whenever a test calls one."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(typer.main.get_command)
        patch.setattr(typer.testing, "_get_command", once, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_sample() -> Iterator[None]:
    """The sample's pictures are decoded once; every call still gives a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "_read_mosaic", functools.cache(sample._read_mosaic))
        yield


@pytest.fixture(autouse=True, scope="session")
def short_measurements() -> Iterator[None]:
    """The speed on a page is measured for a moment: no test asks how exact it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_SECONDS", 0.01)
        yield


@pytest.fixture(scope="session")
def kernels_folder(pytestconfig: pytest.Config) -> Path:
    """A cache of the tests, for all processes and later runs.

    A file is named by the hash of its source, the processor and torch, so none is out of date.
    """
    return pytestconfig.cache.mkdir("kernels")


@pytest.fixture(scope="module")
def built_if_possible(kernels_folder: Path) -> Iterator[bool]:
    """The layers in C, compiled; False where there is no compiler, and torch's are used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "cache_directory", lambda: kernels_folder)
        forget_kernels(patch)
        with FileLock(kernels_folder / "lock"):  # the others need not compile them too
            is_built = library.build()
        yield is_built
    library._place.cache_clear()


@pytest.fixture(scope="module")
def built(built_if_possible: bool) -> None:
    """The layers in C, compiled."""
    if not built_if_possible:
        pytest.skip("there is no C compiler")


@pytest.fixture(scope="session")
def sample_train() -> ImageSet:
    """2,000 training images of CIFAR-10."""
    return cifarzoo.load_sample("train")


@pytest.fixture(scope="session")
def sample_test() -> ImageSet:
    """1,000 test images of CIFAR-10."""
    return cifarzoo.load_sample("test")


@pytest.fixture(scope="session")
def few(sample_train: ImageSet) -> ImageSet:
    """200 training images, 20 of each class: enough to train on for a moment."""
    return sample_train.split(200, seed=0)[1]


@pytest.fixture(scope="session")
def real_root() -> Path | None:
    """Folder of the official CIFAR-10 files; None when $CIFARZOO_DATA does not point at them."""
    root = os.environ.get("CIFARZOO_DATA")
    if root and (Path(root) / "cifar-10-batches-py").is_dir():
        return Path(root)
    return None


@pytest.fixture(scope="session")
def hundred_root(real_root: Path | None) -> Path:
    """Folder of the official CIFAR-100 files; there is no sample of them."""
    if real_root is None or not (real_root / "cifar-100-python").is_dir():
        pytest.skip("$CIFARZOO_DATA does not hold CIFAR-100")
    return real_root


@pytest.fixture(scope="session")
def cifar_test(real_root: Path | None, sample_test: ImageSet) -> ImageSet:
    """The official test images where they are at hand, the sample's otherwise."""
    return cifarzoo.load_cifar10("test", root=real_root) if real_root else sample_test


@pytest.fixture(scope="session")
def cifar_train(real_root: Path | None, sample_train: ImageSet) -> ImageSet:
    """The official training images where they are at hand, the sample's otherwise."""
    return cifarzoo.load_cifar10("train", root=real_root) if real_root else sample_train


@pytest.fixture(scope="session")
def results() -> Iterator[ModuleType]:
    """docs/results.py, which makes the tables of results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
        yield importlib.import_module("results")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A web server on this machine, reached without any proxy."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer().running() as running:
        yield running


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings at the command line draw no pictures, as where there is no matplotlib."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten when it ends."""
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(schedulers, "_FACTORIES", dict(schedulers._FACTORIES))
    monkeypatch.setattr(augmentations, "_FACTORIES", dict(augmentations._FACTORIES))
    monkeypatch.setattr(optimizers, "_FACTORIES", dict(optimizers._FACTORIES))
    monkeypatch.setattr(sets, "_SETS", dict(sets._SETS))
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))


@pytest.fixture
def give_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a model have these pretrained weights, by tag, and no others, until the test ends."""

    def give(model: str, **weights: WeightsInfo) -> None:
        spec = dataclasses.replace(cifarzoo.get_model_info(model), weights=weights)
        monkeypatch.setitem(registry._SPECS, model, spec)

    return give


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP does what it does by default, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
