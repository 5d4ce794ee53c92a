"""Networks go to the hub and come back as they were."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import HfApi
from torch import nn

import cifarzoo
import cifarzoo.hub.repository
from cifarzoo import ModelCard, Preprocessing
from cifarzoo.errors import (
    ArgumentError,
    DownloadError,
    MissingExtraError,
    OutputError,
    UnknownNameError,
    WeightsError,
)

FILES = ["README.md", "config.json", "model.safetensors"]


def files(folder: Path) -> dict[str, bytes]:
    """The content of each file in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether all parameters and buffers are the same, and so are the cards."""
    ours, theirs = first.state_dict(), second.state_dict()
    same = all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    return same and cifarzoo.get_card(first) == cifarzoo.get_card(second)


@pytest.fixture
def model() -> nn.Module:
    """A network that differs from the zoo's in all that a card tells."""
    made = cifarzoo.create_model(
        "resnet20", shortcut="conv", seed=4, preprocessing=Preprocessing((0.1, 0.2, 0.3))
    )
    cifarzoo.reset_classifier(made, 3, classes=["a", "b", "c"], seed=5)
    return made


def test_a_network_comes_back_from_its_folder_as_it_was(model: nn.Module, tmp_path: Path) -> None:
    folder = cifarzoo.save_pretrained(model, tmp_path / "mine", metadata={"recipe": {"epochs": 2}})
    assert list(files(folder)) == FILES
    assert equal(cifarzoo.from_pretrained(folder), model)
    assert equal(cifarzoo.load_model(folder / "model.safetensors"), model)
    facts = cifarzoo.read_metadata(folder / "model.safetensors")["metadata"]
    assert facts == {"recipe": {"epochs": 2}}


def test_weights_of_the_zoo_are_copied_byte_for_byte(saved: Path) -> None:
    info = cifarzoo.get_model_info("simple").weights["default"]
    assert (saved / "model.safetensors").read_bytes() == info.path.read_bytes()
    ours = cifarzoo.create_model("simple", pretrained=True)
    assert equal(cifarzoo.from_pretrained(saved), ours)


def test_the_folder_of_a_run_is_taken_with_its_recipe(
    few: cifarzoo.ImageSet, tmp_path: Path
) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    recipe = cifarzoo.Recipe(epochs=1, batch_size=100)
    cifarzoo.Trainer(model, recipe, output=tmp_path / "run").fit(few)
    folder = cifarzoo.save_pretrained(tmp_path / "run", tmp_path / "hub")
    assert "epochs = 1\nbatch_size = 100\n" in (folder / "README.md").read_text(encoding="utf-8")
    assert equal(cifarzoo.from_pretrained(folder), model)


def test_the_report_of_another_network_is_refused(tmp_path: Path) -> None:
    images = cifarzoo.load_sample("test")
    report = cifarzoo.evaluate(cifarzoo.create_model("simple", seed=0), images)
    with pytest.raises(ArgumentError, match="which are not those of the network 'simple'"):
        cifarzoo.save_pretrained("simple.cifar100", tmp_path / "made", report=report)
    with pytest.raises(ArgumentError, match="is of 'simple', and the network is 'resnet20'"):
        cifarzoo.save_pretrained("resnet20", tmp_path / "made", report=report)
    assert not (tmp_path / "made").exists()
    part = cifarzoo.evaluate(cifarzoo.create_model("simple"), images.subset(range(50)))
    cifarzoo.save_pretrained("simple", tmp_path / "made", report=part)
    page = (tmp_path / "made/README.md").read_text(encoding="utf-8")
    assert "cifar10 sample test, 50 images" in page


def test_a_page_that_somebody_wrote_or_changed_stays(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = shutil.copytree(saved, tmp_path / "mine")
    page = mine / "README.md"
    cifarzoo.save_pretrained("simple", mine, license="apache-2.0")
    assert "license: apache-2.0" in page.read_text(encoding="utf-8")
    assert not caplog.text
    page.write_text("my own words", encoding="utf-8")
    cifarzoo.save_pretrained("resnet20", mine)
    assert page.read_text(encoding="utf-8") == "my own words"
    assert "somebody has changed it" in caplog.text
    assert cifarzoo.get_card(cifarzoo.from_pretrained(mine)).name == "resnet20"
    cifarzoo.save_pretrained("simple", mine)
    assert page.read_text(encoding="utf-8") == "my own words"
    page.unlink()
    cifarzoo.save_pretrained("simple", mine)
    assert "license: mit" in page.read_text(encoding="utf-8")


def test_weights_and_settings_of_another_library_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"library_name": "timm"}')
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"holds config\.json, which save_pretrained did not"):
        cifarzoo.save_pretrained("simple", tmp_path)
    assert files(tmp_path) == before


def test_a_folder_that_was_only_begun_is_completed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write = cifarzoo.hub.repository.write_text
    for left in ("README.md", "config.json"):
        folder = tmp_path / left

        def fail(path: Path, text: str, left: str = left) -> Path:
            if path.name == left:
                raise OutputError("no space left")
            return write(path, text)

        with (
            mock.patch("cifarzoo.hub.repository.write_text", fail),
            pytest.raises(OutputError, match="no space left"),
        ):
            cifarzoo.save_pretrained("simple", folder)
        cifarzoo.save_pretrained("simple", folder)
        assert list(files(folder)) == FILES
    assert not caplog.text


def test_a_saved_folder_is_pushed_as_it_is(
    saved: Path, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    mine = shutil.copytree(saved, tmp_path / "mine")
    (mine / "README.md").write_text("my own words", encoding="utf-8")
    (mine / "notes.txt").write_text("private", encoding="utf-8")
    cifarzoo.push_to_hub(mine, "me/mine", api=api)
    pushed = hub.commits["me/mine"][-1]
    assert sorted(pushed) == [".gitattributes", *FILES]
    assert pushed["README.md"] == b"my own words"
    with pytest.raises(ArgumentError, match="license has no place"):
        cifarzoo.push_to_hub(mine, "me/mine", license="mit", api=api)


def test_odd_words_break_no_table(tmp_path: Path) -> None:
    network = cifarzoo.create_model("simple", num_classes=2)
    cifarzoo.reset_classifier(network, 2, classes=["a|b", "c\nd"])
    folder = cifarzoo.save_pretrained(
        network, tmp_path / "made", metadata={"recipe": {"steps": [1, None]}}
    )
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert r"| classes | a\|b, c d |" in page
    assert "steps = [\n    1,\n]" in page


def test_settings_tell_what_others_need(model: nn.Module, tmp_path: Path) -> None:
    folder = cifarzoo.save_pretrained(model, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["library_name"] == "cifarzoo"
    assert ModelCard.from_dict(config["card"]) == cifarzoo.get_card(model)
    assert config["label_names"] == ["a", "b", "c"]
    assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]


def test_a_pushed_network_comes_back_from_the_hub_and_then_without_a_connection(
    model: nn.Module, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    address = cifarzoo.push_to_hub(model, "me/mine", message="First", api=api)
    assert address.startswith("https://huggingface.co/me/mine/commit/")
    pushed = hub.commits["me/mine"][-1]
    assert sorted(pushed) == [".gitattributes", *FILES]
    assert b'from_pretrained("me/mine")' in pushed["README.md"]
    assert set(hub.tokens) == {"Bearer hf_of_a_test"}
    assert equal(cifarzoo.from_pretrained("me/mine", cache_dir=tmp_path, api=api), model)
    hub.shutdown()
    hub.server_close()
    assert equal(cifarzoo.from_pretrained("me/mine", cache_dir=tmp_path, api=api), model)


def test_each_revision_is_the_network_that_was_pushed_then(
    hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    models = [cifarzoo.create_model("simple", seed=seed) for seed in (1, 2)]
    commits = [
        cifarzoo.push_to_hub(model, "me/mine", api=api).rpartition("/")[2] for model in models
    ]
    for commit, model in zip(commits, models, strict=True):
        found = cifarzoo.from_pretrained("me/mine", revision=commit, cache_dir=tmp_path, api=api)
        assert equal(found, model)
    newest = cifarzoo.from_pretrained("me/mine", cache_dir=tmp_path, api=api)
    assert equal(newest, models[1])


def test_nothing_but_weights_and_settings_is_fetched(
    saved: Path, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    hub.push("me/mine", {**files(saved), "model.py": b"boom", "pytorch_model.bin": b"boom"})
    cifarzoo.from_pretrained("me/mine", cache_dir=tmp_path, api=api)
    (snapshot,) = (tmp_path / "models--me--mine/snapshots").iterdir()
    assert list(files(snapshot)) == FILES[1:]


def test_a_cache_that_was_filled_elsewhere_is_read(
    saved: Path, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    hub.shutdown()
    hub.server_close()
    place = tmp_path / "models--me--mine"  # as huggingface_hub lays it out
    commit = "a" * 40
    shutil.copytree(saved, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(commit)
    found = cifarzoo.from_pretrained("me/mine", cache_dir=tmp_path, api=api)
    assert equal(found, cifarzoo.create_model("simple", pretrained=True))


@pytest.mark.parametrize(
    ("name", "revision"), [("me/other", None), ("me/mine", "f" * 40), ("not a name", None)]
)
def test_what_the_hub_does_not_have_is_named(
    name: str, revision: str | None, saved: Path, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    hub.push("me/mine", files(saved))
    with pytest.raises(DownloadError, match=f"no folder '{name}' here.*check name, revision"):
        cifarzoo.from_pretrained(name, revision=revision, cache_dir=tmp_path, api=api)


def test_a_repository_of_another_library_is_refused(
    saved: Path, hub: HubServer, api: HfApi, tmp_path: Path
) -> None:
    hub.push("me/bert", {**files(saved), "config.json": b'{"model_type": "bert"}'})
    with pytest.raises(WeightsError, match="was not written by save_pretrained"):
        cifarzoo.from_pretrained("me/bert", cache_dir=tmp_path, api=api)


def test_settings_of_other_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "mixed")
    cifarzoo.save_weights(cifarzoo.create_model("simple"), folder / "model.safetensors")
    with pytest.raises(WeightsError, match="do not belong together"):
        cifarzoo.from_pretrained(folder)


def test_a_revision_of_a_folder_is_refused(saved: Path) -> None:
    with pytest.raises(ArgumentError, match="has no revision 'v1'"):
        cifarzoo.from_pretrained(saved, revision="v1")


def test_a_network_that_nobody_registered_is_saved_and_says_how_to_load_it(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    folder = cifarzoo.save_pretrained(model, tmp_path)
    assert "architecture" not in json.loads((folder / "config.json").read_text())
    assert 'cifarzoo.load_weights(model, "model.safetensors")' in (folder / "README.md").read_text(
        encoding="utf-8"
    )
    with pytest.raises(UnknownNameError, match="no model of that name is registered"):
        cifarzoo.from_pretrained(folder)


def test_a_push_that_the_hub_refuses_says_why(hub: HubServer, api: HfApi) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(OutputError, match=r"cannot push to 'me/mine': .*hf auth login"):
        cifarzoo.push_to_hub("simple", "me/mine", api=api)


def test_without_the_extra_a_folder_is_read_and_writing_names_the_extra(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cifarzoo.get_card(cifarzoo.from_pretrained(saved)).name == "simple"
    with pytest.raises(MissingExtraError, match=r"cifarzoo\[hub\]"):
        cifarzoo.save_pretrained("simple", tmp_path / "new")
    assert not os.listdir(tmp_path)
