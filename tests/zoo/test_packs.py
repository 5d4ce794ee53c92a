from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cifarzoo
from cifarzoo.errors import WeightsError
from cifarzoo.files.writing import file_digest
from cifarzoo.zoo import packs

CHECKOUT = Path(__file__).parents[2]

PROGRAM = """
import sys, torch, cifarzoo
names = cifarzoo.get_model_info("resnet110").weights
print(sorted(names), [info.pack for info in names.values()])
model = cifarzoo.create_model("resnet110", pretrained="theirs")
print(torch.equal(next(model.parameters()), torch.full_like(next(model.parameters()), 0.5)))
print("their_weights" in sys.modules)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a pack called their-weights, as pip would, for this process."""

    def pack(index: Any, *, value: str = "their_weights") -> Path:
        folder = tmp_path / "site/their_weights"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise SystemExit('a pack is not to be run')")
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / "index.json").write_text(text)
        about = tmp_path / "site/their_weights-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-weights\nVersion: 1\n")
        (about / "entry_points.txt").write_text(f"[cifarzoo.weights]\ntheirs = {value}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        importlib.invalidate_caches()
        packs._everything.cache_clear()
        return folder

    yield pack
    packs._everything.cache_clear()


def entry(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": file_digest(path)}


@pytest.mark.slow
def test_weights_of_a_pack_are_found_and_no_code_of_it_is_run(
    install: Callable[..., Path], tmp_path: Path
) -> None:
    model = cifarzoo.create_model("resnet110")
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    path = cifarzoo.save_weights(model, tmp_path / "r110.safetensors")
    folder = install({"resnet110": {"theirs": entry(path)}})
    path.rename(folder / path.name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder.parent), *sys.path))}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["['theirs'] ['their-weights']", "True", "False"]


def test_a_pack_does_not_replace_what_the_package_knows(
    install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    shipped = packs.indexed_weights("simple")["default"]
    with caplog.at_level(logging.WARNING):
        install({"simple": {"default": {"file": "other.safetensors", "sha256": "0" * 64}}})
        assert dict(packs.indexed_weights("simple"))["default"] == shipped
    assert "their-weights brings other weights of the name simple.default" in caplog.text


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "should be a valid dictionary"),
        ({"simple": {"mine": {"file": "w.safetensors"}}}, "sha256 is missing"),
        ({"simple": {"mine": {"file": 3, "sha256": ""}}}, "file should be a valid string"),
        ({"simple": {"mine": {"file": "../w", "sha256": ""}}}, "'../w' lies in another folder"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_pack_with_a_wrong_index_is_left_out_with_the_reason(
    index: Any, problem: str, install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        install(index)
        assert "mine" not in packs.indexed_weights("simple")
    assert problem in caplog.text
    assert "their-weights" in caplog.text


@pytest.mark.parametrize("value", ["no_such_package", "enum", "their_weights.part"])
def test_a_pack_that_names_no_folder_is_left_out_with_the_reason(
    value: str, install: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        install({}, value=value)
        assert packs.indexed_weights("simple")
    assert f"the pack of weights theirs names {value}" in caplog.text


def test_weights_of_a_pack_that_is_missing_name_the_command_that_brings_it(
    tmp_path: Path, give_weights: Callable[..., None], install: Callable[..., Path]
) -> None:
    model = cifarzoo.create_model("simple")
    path = cifarzoo.save_weights(model, tmp_path / "far.safetensors")
    info = cifarzoo.WeightsInfo(
        tmp_path / "not/here/far.safetensors", file_digest(path), pack="their-weights"
    )
    give_weights("simple", far=info)
    with pytest.raises(WeightsError, match=r"of 'simple' come in .*: pip install their-weights$"):
        cifarzoo.create_model("simple", pretrained="far")
    path.rename(install({}) / path.name)  # installed meanwhile: the next call finds it
    cifarzoo.create_model("simple", pretrained="far")


def test_the_packs_of_this_repository_are_those_of_the_index() -> None:
    if not (CHECKOUT / "packs").exists():
        pytest.skip("there is no checkout")
    index = json.loads((packs.FOLDER / "index.json").read_text())
    wanted: dict[str, dict[str, dict[str, Any]]] = {}
    for model, tags in index.items():
        for tag, each in tags.items():
            if pack := each.pop("pack", None):
                wanted.setdefault(pack, {}).setdefault(model, {})[tag] = each
    for pack, content in wanted.items():
        folder = CHECKOUT / "packs" / pack / "src" / pack.replace("-", "_")
        assert json.loads((folder / "index.json").read_text()) == content
        files = {each["file"] for tags in content.values() for each in tags.values()}
        assert {path.name for path in folder.glob("*.safetensors")} == files
        assert sum(path.stat().st_size for path in folder.iterdir()) < 95e6
    assert {path.name for path in (CHECKOUT / "packs").iterdir()} == wanted.keys()
