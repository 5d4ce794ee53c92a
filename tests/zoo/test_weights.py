from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from file_server import FileServer, Served
from safetensors.torch import save_file
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ImageSet, Preprocessing, WeightsInfo
from cifarzoo.errors import ArgumentError, OutputError, UnknownNameError, WeightsError
from cifarzoo.files.writing import file_digest
from cifarzoo.zoo.card import ModelCard, attach_card
from cifarzoo.zoo.fitting import _check_options

OTHER = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


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
    attach_card(model, ModelCard("simple", preprocessing=OTHER))
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors")
    assert cifarzoo.get_card(cifarzoo.load_model(path)).preprocessing == OTHER


def test_load_model_needs_only_the_file(weights: Path, model: nn.Module) -> None:
    assert equal(cifarzoo.load_model(weights), model)


def test_a_network_that_was_changed_is_not_saved_as_that_of_the_zoo(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapted = cifarzoo.adapt_stem(cifarzoo.create_model("resnet18", seed=0))
    path = cifarzoo.save_weights(adapted, tmp_path / "w.safetensors")
    with pytest.raises(UnknownNameError, match="made from 'ResNet'"):
        cifarzoo.load_model(path)
    again = cifarzoo.adapt_stem(cifarzoo.create_model("resnet18", seed=1))
    cifarzoo.load_weights(again, path)
    assert equal(again, adapted)
    caplog.clear()
    cifarzoo.load_weights(cifarzoo.create_model("resnet18"), path)
    assert "made from 'ResNet', which the zoo did not build" in caplog.text


def test_what_makes_a_network_another_is_said_when_it_is_saved(
    own_registries: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Annealed(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.fc, self.temperature = nn.Linear(3072, num_classes), 5.0

        def forward(self, x: Tensor) -> Tensor:
            self.temperature *= 0.9
            out: Tensor = self.fc(x.flatten(1)) * self.temperature
            return out

    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def annealed(*, num_classes: int = 10) -> nn.Module:
        return Annealed(num_classes)

    network = cifarzoo.create_model("annealed")
    cifarzoo.save_weights(network, tmp_path / "a.safetensors")
    assert not caplog.text
    network(torch.zeros(1, 3, 32, 32))
    cifarzoo.save_weights(network, tmp_path / "a.safetensors")
    assert "one of 'Annealed', not of 'annealed', so load_model cannot" in caplog.text
    assert "temperature is 4.5, and its builder makes 5.0; what training" in caplog.text
    caplog.clear()
    stem = cifarzoo.adapt_stem(cifarzoo.create_model("resnet18"))
    cifarzoo.save_weights(stem, tmp_path / "b.safetensors")
    assert "conv1.stride is (1, 1), and its builder makes (2, 2)" in caplog.text


def test_a_network_that_looks_like_that_of_the_file_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = cifarzoo.save_weights(
        cifarzoo.create_model("resnet18_cifar"), tmp_path / "a.safetensors"
    )
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    cifarzoo.load_weights(network, path)  # its pooling is forgotten
    assert "this network (ResNet) has layers of other kinds or settings" in caplog.text
    caplog.clear()
    network.maxpool = nn.Identity()
    cifarzoo.load_weights(network, path)
    assert not caplog.text


class Tied(nn.Module):
    """Two layers that are one, if wanted."""

    def __init__(self, is_tied: bool) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 10)
        if is_tied:
            self.b.weight, self.b.bias = self.a.weight, self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.b(self.a(x.mean((2, 3))).relu()))
        return out


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_tied_layers_take_one_content_alone(dtype: torch.dtype | None, tmp_path: Path) -> None:
    one, two = Tied(is_tied=True), Tied(is_tied=False)
    path = cifarzoo.save_weights(two, tmp_path / "two.safetensors", dtype=dtype)
    before = copy.deepcopy(one)
    with pytest.raises(WeightsError, match=r"a\.weight and b\.weight are one tensor of this model"):
        cifarzoo.load_weights(one, path)
    assert equal(one, before)
    path = cifarzoo.save_weights(one, tmp_path / "one.safetensors", dtype=dtype)
    again = Tied(is_tied=True)
    for network in (two, again):
        cifarzoo.load_weights(network, path)
        assert torch.equal(network.a.weight, network.b.weight)
    assert again.a.weight is again.b.weight


def test_expanded_tensors_are_refused_before_anything_is_filled(tmp_path: Path) -> None:
    def build() -> nn.Module:
        network = nn.Linear(3, 10)
        network.register_buffer("scale", torch.ones(1).expand(3))
        return network

    path = cifarzoo.save_weights(build(), tmp_path / "w.safetensors")
    other = build()
    before = copy.deepcopy(other)
    with pytest.raises(WeightsError, match=r"scale of this model is an expanded tensor"):
        cifarzoo.load_weights(other, path)
    assert equal(other, before)


def test_a_default_that_is_written_out_is_the_default(steep: Path, tmp_path: Path) -> None:
    said = cifarzoo.create_model("sloped", width=4, slope=0.0)
    path = cifarzoo.save_weights(said, tmp_path / "w.safetensors")
    assert cifarzoo.read_metadata(path)["card"]["options"] == {"width": 4}
    cifarzoo.load_weights(cifarzoo.create_model("sloped", width=4), path)
    older = {"card": {**cifarzoo.get_card(said).to_dict()}}
    assert older["card"]["options"] == {"width": 4, "slope": 0.0}
    _check_options(sloped, older["card"]["options"], {"width": 4}, "older")


@pytest.mark.parametrize(
    ("table", "is_kept"), [({"1": 3}, True), ((1, 2), True), ({1: 3}, False), ({2, 3}, False)]
)
def test_options_that_json_would_change_are_not_saved(
    table: Any, is_kept: bool, own_registries: None, tmp_path: Path
) -> None:
    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def tabled(*, table: Any = None, num_classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))

    network, path = cifarzoo.create_model("tabled", table=table), tmp_path / "w.safetensors"
    if is_kept:
        cifarzoo.load_model(cifarzoo.save_weights(network, path))
        return
    with pytest.raises(ArgumentError, match="options of 'tabled' must be plain data"):
        cifarzoo.save_weights(network, path)
    with pytest.raises(ArgumentError, match="options of 'tabled' must be plain data"):
        cifarzoo.export_program(network, tmp_path / "w.pt2")


class _Counts(nn.Linear):
    def get_extra_state(self) -> int:
        return 3

    def set_extra_state(self, state: Any) -> None:
        assert state == 3


def _with_large(value: float) -> nn.Module:
    model = nn.Linear(3072, 10)
    with torch.no_grad():
        model.bias[3] = value
    return model


@pytest.mark.parametrize(
    ("network", "dtype", "message"),
    [
        (_Counts(4, 2), None, r"tensors alone, and _extra_state of this"),
        (_with_large(torch.nan), None, "NaN or infinite.*: bias; save an earlier"),
        (_with_large(-torch.inf), torch.float16, "NaN or infinite.*: bias; save an earlier"),
        (_with_large(7e4), torch.float16, r"dtype=torch\.float16 cannot hold the numbers of bias,"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(
    network: nn.Module, dtype: torch.dtype | None, message: str, weights: Path
) -> None:
    before = weights.read_bytes()
    with pytest.raises(ArgumentError, match=message):
        cifarzoo.save_weights(network, weights, dtype=dtype)
    assert weights.read_bytes() == before
    assert [each.name for each in weights.parent.iterdir()] == [weights.name]


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


def test_an_option_that_changes_the_answers_of_the_weights_is_told(
    steep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cifarzoo.create_model("sloped", pretrained=steep, slope=0.5)
    cifarzoo.create_model("wrn16_2", pretrained=True, dropout=0.3)
    assert not caplog.text
    cifarzoo.create_model("sloped", pretrained=steep, slope=0.0)
    assert "was made by create_model('sloped', width=4, slope=0.5), and this network" in caplog.text
    caplog.clear()
    cifarzoo.create_model("airbench94", pretrained=True, early_pooling=(1,))
    assert "was made by create_model('airbench94'), and this network" in caplog.text


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


def test_foreign_weights_tell_their_classes_by_the_last_layer(tmp_path: Path) -> None:
    theirs = cifarzoo.create_model("simple", num_classes=100)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    assert cifarzoo.read_metadata(tmp_path / "theirs.pt") == {}
    ours = cifarzoo.create_model("simple", pretrained=tmp_path / "theirs.pt")
    assert equal(ours, theirs)
    assert cifarzoo.get_card(ours) == ModelCard("simple", num_classes=100)
    seven = cifarzoo.create_model("simple", pretrained=tmp_path / "theirs.pt", num_classes=7)
    assert torch.equal(seven.get_parameter("fc2.bias"), theirs.get_parameter("fc2.bias"))
    assert seven.get_parameter("fc3.weight").shape == (7, 32)


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


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (0, "is empty"),
        (4, "is truncated, or not a safetensors file"),
        (200, "is a truncated safetensors file"),
        (-1, "is truncated or not a safetensors file"),
    ],
)
def test_truncated_file_is_refused(weights: Path, keep: int, told: str) -> None:
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=told):
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


def test_foreign_safetensors_take_a_stated_preprocessing(tmp_path: Path, model: nn.Module) -> None:
    save_file(model.state_dict(), tmp_path / "foreign.safetensors")
    other = cifarzoo.create_model("simple", seed=9)
    stated = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    cifarzoo.load_weights(other, tmp_path / "foreign.safetensors", preprocessing=stated)
    assert cifarzoo.get_card(other).preprocessing == stated
    assert equal(other, model)
    with pytest.raises(WeightsError, match="does not say which model"):
        cifarzoo.load_model(tmp_path / "foreign.safetensors")


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
    give_weights("simple", default=WeightsInfo(weights, file_digest(weights).upper()))
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
    monkeypatch.setattr("cifarzoo.zoo.about.cache_directory", lambda: cache)
    info = WeightsInfo(Path("simple-large.safetensors"), file_digest(weights), url)
    give_weights("simple", large=info)
    # what an interrupted download left is continued
    kept = cache / "weights" / info.sha256[:16] / "simple-large.safetensors"
    part = kept.with_name("simple-large.safetensors.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(served.content[:1000])
    for _ in range(2):
        assert equal(cifarzoo.create_model("simple", pretrained="large"), model)
    assert served.requests == ["bytes=1000-"]
    # a file that was damaged later is fetched again
    kept.write_bytes(b"half")
    assert equal(cifarzoo.create_model("simple", pretrained="large"), model)
    assert len(served.requests) == 2


def test_files_of_one_name_from_two_addresses_are_two_files(
    model: nn.Module,
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    give_weights: Callable[..., None],
) -> None:
    monkeypatch.setattr("cifarzoo.zoo.about.cache_directory", lambda: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    known, served = {}, []
    for tag, seed in (("one", 1), ("two", 2)):
        made = cifarzoo.create_model("simple", seed=seed)
        path = cifarzoo.save_weights(made, tmp_path / tag, metadata={"data": "my cats"})
        served.append(Served(path.read_bytes()))
        url = server.add(f"{tag}/w.safetensors", served[-1])
        known[tag] = WeightsInfo(Path("w.safetensors"), file_digest(path), url)
    give_weights("simple", **known)
    # a file in the working folder is none of them
    cifarzoo.save_weights(model, "w.safetensors", metadata={"data": "strange"})
    assert "strange" not in str(cifarzoo.get_model_info("simple"))
    for tag, seed in (("one", 1), ("two", 2), ("one", 1)):
        found = cifarzoo.create_model("simple", pretrained=tag)
        assert equal(found, cifarzoo.create_model("simple", seed=seed))
    assert [len(each.requests) for each in served] == [1, 1]
    assert "trained on my cats" in str(cifarzoo.get_model_info("simple"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"folds": {1: "a", "1": "b"}},
        {"notes": ["a"] * 600_000},
        {"note": "a" * 60_000_000},
    ],
    ids=["a key twice", "too many parts", "too long"],
)
def test_facts_that_could_not_be_read_again_are_refused(
    metadata: dict[str, Any], model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=r"could not be read again|more than"):
        cifarzoo.save_weights(model, tmp_path / "w.safetensors", metadata=metadata)
    assert not [*tmp_path.iterdir()]


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
    with pytest.raises(ArgumentError, match="a path is empty; name a file or folder"):
        cifarzoo.create_model("simple", pretrained="")
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
    with pytest.raises(ArgumentError, match="dtype must be one of"):
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


def run_of_an_epoch(output: Path, **fields: Any) -> cifarzoo.Trainer:
    """A finished run whose network has a normalization of its own."""
    model = cifarzoo.create_model("deep_bn", num_classes=10, seed=0)
    attach_card(model, ModelCard("deep_bn", preprocessing=OTHER))
    recipe = cifarzoo.Recipe(epochs=1, batch_size=10, **fields)
    trainer = cifarzoo.Trainer(model, recipe, device="cpu", precision="float32", output=output)
    trainer.fit(cifarzoo.load_sample("train").subset(range(30)))
    return trainer


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, "learner.model"),
        ({"ema_decay": 0.9}, "learner.ema"),
        ({"lookahead_decay": 0.9}, "learner.lookahead"),
        ({"ema_decay": 0.9, "lookahead_decay": 0.9}, "learner.ema"),
    ],
)
def test_a_checkpoint_of_a_run_gives_what_the_run_would_hand_over(
    fields: dict[str, Any], chosen: str, tmp_path: Path
) -> None:
    trainer = run_of_an_epoch(tmp_path, **fields)
    path = tmp_path / "checkpoint.pt"
    filled = cifarzoo.create_model("deep_bn")
    facts = cifarzoo.load_weights(filled, path)
    assert (facts["format"], facts["chosen"]) == ("checkpoint", chosen)
    assert facts["metadata"]["recipe"]["epochs"] == 1
    assert cifarzoo.read_metadata(path)["card"]["name"] == "deep_bn"
    for each in (
        filled,
        cifarzoo.load_model(path),
        cifarzoo.create_model("deep_bn", pretrained=path),
        cifarzoo.create_model("deep_bn", pretrained=torch.load(path, weights_only=True)),
    ):
        assert equal(each, trainer.model)
        assert cifarzoo.get_card(each).preprocessing == OTHER
    plain = cifarzoo.create_model("deep_bn", pretrained=path, key="learner.model")
    assert cifarzoo.get_card(plain).preprocessing == OTHER
    assert equal(plain, trainer.model) is (
        chosen != "learner.ema"
    )  # lookahead ends in its slow ones


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"card": [1]}, "card should be"),
        ({"card": {}}, "card cannot be read"),
        ({"recipe": 5}, "recipe should be"),
        ({"learner": [torch.zeros(1)]}, "learner should be"),
        ({"learner": {"model": torch.zeros(1)}}, "learner.model should be"),
        ({"records": [{"epoch": 1}]}, "records.0.train_loss is missing"),
        ({"learner": {"model": {}, "lookahead": [torch.zeros(1)]}}, "holds 1 tensors of 0"),
    ],
)
def test_a_checkpoint_with_fields_of_another_kind_is_damaged(
    change: dict[str, Any], told: str, model: nn.Module, tmp_path: Path
) -> None:
    state = {
        "format": 1,
        "card": cifarzoo.get_card(model).to_dict(),
        "recipe": cifarzoo.Recipe().to_dict(),
        "learner": {"model": dict(model.state_dict())},
        "records": [],
    }
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    assert equal(cifarzoo.load_model(path), model)
    torch.save({**state, **change}, path)
    for read in (cifarzoo.read_metadata, cifarzoo.load_model):
        with pytest.raises(WeightsError, match=f"is damaged: .*{told}"):
            read(path)


def test_a_head_that_was_replaced_by_hand_is_on_the_card(tmp_path: Path) -> None:
    model = cifarzoo.create_model("resnet20", seed=0)
    model.fc = nn.Linear(64, 2)
    path = cifarzoo.save_weights(model, tmp_path / "two.safetensors")
    for again in (cifarzoo.load_model(path), cifarzoo.create_model("resnet20", pretrained=path)):
        assert equal(again, model)
        assert cifarzoo.get_card(again) == ModelCard("resnet20", num_classes=2)
    pets = ImageSet(torch.zeros(4, 3, 32, 32).byte(), torch.arange(4) % 2, ("cat", "dog"))
    assert cifarzoo.evaluate(cifarzoo.load_model(path), pets).accuracy == 0.5
    cifarzoo.load_weights(model, path)
    assert cifarzoo.get_card(model).num_classes == 2


def test_class_names_that_fit_a_replaced_head_are_kept(tmp_path: Path) -> None:
    model = cifarzoo.create_model("resnet20")
    model.fc = nn.Linear(64, 2)
    attach_card(model, ModelCard("resnet20", classes=("cat", "dog")))
    path = cifarzoo.save_weights(model, tmp_path / "two.safetensors")
    card = cifarzoo.get_card(cifarzoo.load_model(path))
    assert (card.num_classes, card.classes) == (2, ("cat", "dog"))


def test_a_network_that_its_builder_could_not_build_is_one_made_elsewhere(tmp_path: Path) -> None:
    def altered() -> nn.Module:
        model = cifarzoo.create_model("resnet20")
        model.fc = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
        return model

    model, again = altered(), altered()
    path = cifarzoo.save_weights(model, tmp_path / "altered.safetensors")
    with pytest.raises(
        UnknownNameError, match=r"made from 'SmallResNet'.*load_weights\(model, path"
    ):
        cifarzoo.load_model(path)
    cifarzoo.load_weights(again, path)
    assert equal(again, model)
    assert cifarzoo.get_card(again).num_classes == 2


def test_the_card_of_any_module_tells_its_number_of_outputs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072), nn.Linear(3072, 3))
    before = copy.deepcopy(model)
    path = cifarzoo.save_weights(model, tmp_path / "mine.safetensors")
    assert cifarzoo.read_metadata(path)["card"]["num_classes"] == 3
    assert equal(model, before)
    assert model.training


@pytest.mark.parametrize("card", ["resnet18, trained by me", '{"license": "mit"}', "[1]"])
def test_foreign_safetensors_may_have_a_card_of_their_own(
    card: str, tmp_path: Path, model: nn.Module
) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt", "card": card})
    assert cifarzoo.read_metadata(path) == {}
    assert equal(cifarzoo.create_model("simple", pretrained=path), model)


def test_a_damaged_card_is_no_foreign_file(weights: Path) -> None:
    content = weights.read_bytes()
    for good, bad in (
        (b'num_classes\\": 10', b'num_classes\\": 1x'),
        (b"preprocessing", b"preprocessinh"),
    ):
        assert good in content
        weights.write_bytes(content.replace(good, bad))
        with pytest.raises(WeightsError, match="is damaged"):
            cifarzoo.load_model(weights)


def test_metadata_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="metadata must be plain data"):
        cifarzoo.save_weights(
            cifarzoo.create_model("simple"), tmp_path / "w.safetensors", metadata={"x": tmp_path}
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        cifarzoo.save_weights(cifarzoo.create_model("simple"), tmp_path)


def test_a_new_last_layer_knows_no_classes() -> None:
    model = cifarzoo.create_model("simple", pretrained="cifar100", num_classes=10, seed=0)
    assert cifarzoo.get_card(model).classes is None
