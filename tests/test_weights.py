from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from file_server import FileServer, Served
from safetensors.torch import save_file
from torch import nn

import cifarzoo
from cifarzoo import Preprocessing, WeightsInfo
from cifarzoo.card import ModelCard, attach_card
from cifarzoo.errors import ArgumentError, OutputError, UnknownNameError, WeightsError
from cifarzoo.files import file_digest


@pytest.fixture
def model() -> nn.Module:
    return cifarzoo.create_model("simple", seed=3)


@pytest.fixture
def weights(model: nn.Module, tmp_path: Path) -> Path:
    return cifarzoo.save_weights(
        model, tmp_path / "simple.safetensors", metadata={"accuracy": 0.5, "recipe": {"epochs": 2}}
    )


def equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_metadata_travels_with_the_weights(weights: Path) -> None:
    facts = cifarzoo.read_metadata(weights)
    assert facts["metadata"] == {"accuracy": 0.5, "recipe": {"epochs": 2}}
    assert facts["card"]["name"] == "simple"
    assert facts["versions"]["torch"] == torch.__version__
    assert len(facts["sha256"]) == 64


def test_preprocessing_travels_with_the_weights(tmp_path: Path, model: nn.Module) -> None:
    other = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    attach_card(model, ModelCard("simple", preprocessing=other))
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors")
    assert cifarzoo.get_card(cifarzoo.load_model(path)).preprocessing == other


def test_load_model_needs_only_the_file(weights: Path, model: nn.Module) -> None:
    assert equal(cifarzoo.load_model(weights), model)


def test_load_model_keeps_the_number_of_classes(tmp_path: Path) -> None:
    wide = cifarzoo.create_model("deep_bn", num_classes=100)
    path = cifarzoo.save_weights(wide, tmp_path / "w.safetensors")
    assert equal(cifarzoo.load_model(path), wide)


def sloped(*, width: int = 8, slope: float = 0.0, num_classes: int = 10) -> nn.Module:
    """A model with an option that the shapes of its tensors do not tell."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, width), nn.LeakyReLU(slope), nn.Linear(width, num_classes)
    )


@pytest.fixture
def steep(own_registries: None, tmp_path: Path) -> Path:
    cifarzoo.register_model(
        name="sloped", description="A test.", source="here", parameters=1, macs=1
    )(sloped)
    model = cifarzoo.create_model("sloped", width=4, slope=0.5, seed=0)
    return cifarzoo.save_weights(model, tmp_path / "steep.safetensors")


def test_options_not_given_are_those_of_the_weights(steep: Path) -> None:
    for model, slope in (
        (cifarzoo.load_model(steep), 0.5),
        (cifarzoo.create_model("sloped", pretrained=steep), 0.5),
        (cifarzoo.create_model("sloped", pretrained=steep, slope=0.0), 0.0),
    ):
        assert cifarzoo.get_card(model).options == {"width": 4, "slope": slope}
        assert model.get_submodule("2").negative_slope == slope


def test_an_option_that_no_shape_tells_of_is_asked_for(steep: Path) -> None:
    flat = cifarzoo.create_model("sloped", width=4, seed=1)
    before = copy.deepcopy(flat)
    with pytest.raises(WeightsError, match=r"was made with slope=0\.5, which this model was not"):
        cifarzoo.load_weights(flat, steep)
    assert equal(before, flat)
    for slope in (0.5, 0.0):  # whoever says it means it
        told = cifarzoo.create_model("sloped", width=4, slope=slope)
        cifarzoo.load_weights(told, steep)
        assert equal(told, cifarzoo.load_model(steep))
        assert cifarzoo.get_card(told).options["slope"] == slope


def test_float16_halves_the_file_and_loads_as_float32(tmp_path: Path, model: nn.Module) -> None:
    full = cifarzoo.save_weights(model, tmp_path / "full.safetensors")
    half = cifarzoo.save_weights(model, tmp_path / "half.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.52 * full.stat().st_size
    loaded = cifarzoo.load_model(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_mismatches_name_the_layers_and_change_nothing(weights: Path) -> None:
    other = cifarzoo.create_model("simple", num_classes=7, seed=0)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(WeightsError, match=r"other shape: fc3.weight \(file \(10, 32\), model"):
        cifarzoo.load_weights(other, weights)
    with pytest.raises(WeightsError, match=r"made by 'simple'.*\n.*missing in the file: bn_conv1"):
        cifarzoo.load_weights(cifarzoo.create_model("deep_bn"), weights)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_weights_fill_all_but_the_head_of_a_network_for_other_classes(
    weights: Path, model: nn.Module
) -> None:
    other = cifarzoo.create_model("simple", pretrained=weights, num_classes=7, seed=5)
    fresh = cifarzoo.create_model("simple", num_classes=7, seed=5).state_dict()
    theirs = model.state_dict()
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, (fresh if name.startswith("fc3.") else theirs)[name]), name
    card = cifarzoo.get_card(other)
    assert (card.num_classes, card.classes) == (7, None)
    assert card.preprocessing == cifarzoo.get_card(model).preprocessing


def test_a_layer_of_another_shape_is_no_head(weights: Path) -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        cifarzoo.create_model("deep_bn", pretrained=weights, num_classes=7)


def test_weights_say_their_number_of_classes(tmp_path: Path) -> None:
    wide = cifarzoo.create_model("simple", num_classes=100)
    path = cifarzoo.save_weights(wide, tmp_path / "w.safetensors")
    assert equal(cifarzoo.create_model("simple", pretrained=path), wide)
    assert cifarzoo.get_card(cifarzoo.create_model("simple")).num_classes == 10


def test_foreign_weights_are_not_asked_for_their_classes(tmp_path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), tmp_path / "theirs.pt")
    assert cifarzoo.read_metadata(tmp_path / "theirs.pt") == {}
    assert equal(cifarzoo.create_model("simple", pretrained=tmp_path / "theirs.pt"), model)
    with pytest.raises(WeightsError, match="other shape: fc3"):
        cifarzoo.create_model("simple", pretrained=tmp_path / "theirs.pt", num_classes=7)


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_file_may_begin_like_a_pickle_or_an_archive(
    start: bytes, tmp_path: Path, model: nn.Module
) -> None:
    """Its first bytes are the length of the header, and so of everything that is noted in it."""
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata={"note": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    missing = (int.from_bytes(start, "little") - length) % 256 ** len(start)
    cifarzoo.save_weights(model, path, metadata={"note": "x" * missing})
    assert path.read_bytes().startswith(start)
    assert equal(cifarzoo.load_model(path), model)


@pytest.mark.parametrize("keep", [0, 4, 2000, -1])
def test_truncated_file_is_refused(weights: Path, keep: int) -> None:
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="truncated or not a safetensors file"):
        cifarzoo.load_weights(cifarzoo.create_model("simple"), weights)


def test_altered_tensor_is_refused(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="damaged: its sha256 differs"):
        cifarzoo.load_weights(cifarzoo.create_model("simple"), weights)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*nothing\.safetensors"):
        cifarzoo.load_model(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("wrap", ["module.", "_orig_mod.", "module._orig_mod.", ""])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "net", "model_state_dict"])
def test_foreign_checkpoints_load(
    tmp_path: Path, model: nn.Module, wrap: str, nest: str | None
) -> None:
    content: Any = {wrap + key: value for key, value in model.state_dict().items()}
    if nest:
        content = {"epoch": 3, nest: content}
    torch.save(content, tmp_path / "model.pt")
    other = cifarzoo.create_model("simple", seed=9)
    assert cifarzoo.load_weights(other, tmp_path / "model.pt") == {}
    assert equal(other, model)


def test_foreign_safetensors_take_a_stated_preprocessing(tmp_path: Path, model: nn.Module) -> None:
    save_file(model.state_dict(), tmp_path / "foreign.safetensors")
    other = cifarzoo.create_model("simple", seed=9)
    stated = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    cifarzoo.load_weights(other, tmp_path / "foreign.safetensors", preprocessing=stated)
    assert cifarzoo.get_card(other).preprocessing == stated
    assert equal(other, model)
    with pytest.raises(WeightsError, match="does not say which model"):
        cifarzoo.load_model(tmp_path / "foreign.safetensors")


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("how", [pickle.dump, torch.save])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, how: Any) -> None:
    with (tmp_path / "evil.pt").open("wb") as file:
        how({"state_dict": _Attack(tmp_path / "executed")}, file)
    with pytest.raises(WeightsError, match="holds code beside tensors"):
        cifarzoo.load_weights(cifarzoo.create_model("simple"), tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        cifarzoo.load_weights(cifarzoo.create_model("simple"), tmp_path / "empty.pt")


def test_a_failed_save_leaves_the_old_file(
    weights: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left on device"):
        cifarzoo.save_weights(model, weights)
    monkeypatch.undo()
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights]


def test_pretrained_finds_registered_weights(
    weights: Path, model: nn.Module, give_weights: Callable[..., None]
) -> None:
    give_weights("simple", default=WeightsInfo(weights, file_digest(weights)))
    assert "simple" in cifarzoo.list_models(pretrained=True)
    assert equal(cifarzoo.create_model("simple", pretrained=True), model)
    assert equal(cifarzoo.create_model("simple", pretrained="default"), model)
    with pytest.raises(UnknownNameError, match=r"did you mean 'default'\?"):
        cifarzoo.create_model("simple", pretrained="defualt")
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(WeightsError, match="its sha256 differs"):
        cifarzoo.create_model("simple", pretrained=True)


def test_weights_with_an_address_are_fetched_once(
    weights: Path,
    model: nn.Module,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    give_weights: Callable[..., None],
) -> None:
    served = Served(weights.read_bytes())
    url = server.add("simple-large.safetensors", served)
    cache = weights.parent / "cache"
    monkeypatch.setattr("cifarzoo.factory.cache_directory", lambda: cache)
    info = WeightsInfo(Path("simple-large.safetensors"), file_digest(weights), url)
    give_weights("simple", large=info)
    # what an interrupted download left is continued
    part = cache / "weights" / "simple-large.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(served.content[:1000])
    for _ in range(2):
        assert equal(cifarzoo.create_model("simple", pretrained="large"), model)
    assert served.requests == ["bytes=1000-"]
    # a file that was damaged later is fetched again
    (cache / "weights" / "simple-large.safetensors").write_bytes(b"half")
    assert equal(cifarzoo.create_model("simple", pretrained="large"), model)
    assert len(served.requests) == 2


def test_half_precision_is_for_parameters_alone(tmp_path: Path) -> None:
    model = cifarzoo.create_model("deep_bn", seed=0)
    model.bn_conv1.running_var.fill_(1e6)  # type: ignore[union-attr]  # beyond float16
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors", dtype=torch.float16)
    again = cifarzoo.load_model(path)
    assert again.bn_conv1.running_var[0] == 1e6  # type: ignore[union-attr, index]
    assert again.conv1.weight.dtype == torch.float32  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.half().float())


def test_no_pretrained_weights_says_so() -> None:
    with pytest.raises(ArgumentError, match="'resnet110' has no pretrained weights; see"):
        cifarzoo.create_model("resnet110", pretrained=True)
    with pytest.raises(WeightsError, match=r"there is no weights file lost\.safetensors"):
        cifarzoo.create_model("resnet110", pretrained="lost.safetensors")
    with pytest.raises(WeightsError, match=r"there is no weights file lost\.pt"):
        cifarzoo.create_model("simple", pretrained="lost.pt")
    with pytest.raises(ArgumentError, match="'resnet18' has no default weights; it has original"):
        cifarzoo.create_model("resnet18", pretrained=True)


def test_no_pretraining_may_be_said_as_torchvision_says_it() -> None:
    assert equal(
        cifarzoo.create_model("simple", pretrained=None, seed=1),
        cifarzoo.create_model("simple", seed=1),
    )


def test_a_network_may_have_a_part_called_module(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))

    first, second = Wrapped(), Wrapped()
    path = cifarzoo.save_weights(first, tmp_path / "wrapped.safetensors")
    cifarzoo.load_weights(second, path)
    assert equal(first, second)


@pytest.mark.parametrize("dtype", [torch.int8, "float16"])
def test_parameters_are_stored_as_floats(model: nn.Module, dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="dtype must be a floating-point"):
        cifarzoo.save_weights(model, tmp_path / "x.safetensors", dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_card_is_plain_json(model: nn.Module) -> None:
    card = cifarzoo.get_card(model)
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_the_folder_of_a_run_stands_for_its_weights(tmp_path: Path) -> None:
    model = cifarzoo.create_model("simple", seed=3)
    cifarzoo.save_weights(model, tmp_path / "weights.safetensors")
    for again in (cifarzoo.load_model(tmp_path), cifarzoo.create_model("simple")):
        cifarzoo.load_weights(again, tmp_path)
        assert torch.equal(again.get_parameter("fc1.weight"), model.get_parameter("fc1.weight"))


def test_the_folder_of_a_run_that_was_stopped_says_how_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights.safetensors; .*cifarzoo train --resume"):
        cifarzoo.load_model(tmp_path)


def test_a_checkpoint_of_a_run_gives_its_weights(tmp_path: Path) -> None:
    trainer = cifarzoo.Trainer(
        cifarzoo.create_model("simple", seed=0),
        cifarzoo.Recipe(epochs=1, batch_size=500),
        device="cpu",
        output=tmp_path,
    )
    trainer.fit(cifarzoo.load_sample("train"))
    again = cifarzoo.create_model("simple")
    cifarzoo.load_weights(again, tmp_path / "checkpoint.pt")
    assert torch.equal(again.get_parameter("fc1.weight"), trainer.model.get_parameter("fc1.weight"))


def test_metadata_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="metadata must be plain data"):
        cifarzoo.save_weights(
            cifarzoo.create_model("simple"), tmp_path / "w.safetensors", metadata={"x": tmp_path}
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        cifarzoo.save_weights(cifarzoo.create_model("simple"), tmp_path)
