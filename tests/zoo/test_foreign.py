"""A network is found in a checkpoint by its names, wherever its trainer put it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import cifarzoo
from cifarzoo.errors import WeightsError
from cifarzoo.zoo.foreign import Layout


def equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def load(content: Any, **arguments: Any) -> nn.Module:
    return cifarzoo.create_model("simple", pretrained=content, **arguments)


def prefixed(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return cifarzoo.create_model("simple", seed=3)


@pytest.fixture(scope="module")
def other() -> nn.Module:
    return cifarzoo.create_model("simple", seed=4)


PREFIXES = [
    *map("".join, itertools.permutations(("module.", "_orig_mod.", "model."))),
    *("", "net.", "backbone.", "module.", "_orig_mod.", "student.encoder.0."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kept_as", [None, "state_dict", "model_state_dict", "weights"])
def test_any_prefix_is_found(prefix: str, kept_as: str | None, theirs: nn.Module) -> None:
    content: dict[str, Any] = prefixed(prefix, theirs)
    if kept_as is not None:
        content = {"epoch": 3, kept_as: content, "optimizer": {"state": {0: torch.ones(3)}}}
    assert equal(load(content), theirs)


@pytest.mark.parametrize("key", ["model", "net", "params", "learner", "checkpoint", "0"])
def test_any_container_is_found_in_a_file(key: str, theirs: nn.Module, tmp_path: Path) -> None:
    torch.save({"acc": 93.1, key: {"state": theirs.state_dict()}}, tmp_path / "theirs.pt")
    facts = cifarzoo.load_weights(cifarzoo.create_model("simple"), tmp_path / "theirs.pt")
    assert facts["chosen"] == f"{key}.state"
    assert equal(load(tmp_path / "theirs.pt"), theirs)


def test_other_tensors_may_stand_beside_the_network(theirs: nn.Module) -> None:
    content = {**prefixed("model.", theirs), "loss.weight": torch.ones(10), "step": torch.ones(())}
    facts = cifarzoo.load_weights(cifarzoo.create_model("simple"), {"state_dict": content})
    assert facts["chosen"] == "state_dict.model"
    assert facts["left"] == ["state_dict.loss", "state_dict.step"]


def test_a_tensor_too_many_under_the_same_prefix_is_refused(theirs: nn.Module) -> None:
    content = {**prefixed("module.", theirs), "module.fc4.weight": torch.ones(3)}
    with pytest.raises(WeightsError, match=r"read under 'module\.'.*\n.*unknown .*: fc4\.weight"):
        load(content)


def averaged(network: nn.Module) -> dict[str, Any]:
    return dict(AveragedModel(network).state_dict())


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema", "params_ema", "swa_model"])
def test_an_average_is_taken_before_the_plain_weights(
    key: str, theirs: nn.Module, other: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"state_dict": other.state_dict(), key: theirs.state_dict()}
    facts = cifarzoo.load_weights(cifarzoo.create_model("simple"), content)
    assert facts["chosen"] == key
    assert facts["left"] == ["state_dict"]
    assert "an average, taken before the plain weights" in caplog.text
    assert equal(load(content), theirs)
    assert equal(load(content, key="state_dict"), other)
    flat = {**prefixed("model.", other), **prefixed(f"{key}.module.", theirs)}
    assert equal(load({"state_dict": flat}), theirs)


def test_an_averaged_model_is_known_by_its_counter(theirs: nn.Module, other: nn.Module) -> None:
    assert equal(load(averaged(theirs)), theirs)
    assert equal(load({"model": other.state_dict(), "best": averaged(theirs)}), theirs)


@pytest.mark.parametrize("key", ["square_avg", "sq_avg", "grad_avg", "exp_avg"])
def test_the_moments_of_an_optimizer_are_no_average(
    key: str, theirs: nn.Module, other: nn.Module
) -> None:
    with pytest.raises(WeightsError, match=f"choose one by key=, of 'params', '{key}'"):
        load({"params": theirs.state_dict(), key: other.state_dict()})


def test_half_an_average_is_not_passed_over_in_silence(
    theirs: nn.Module, other: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    half = dict(list(theirs.state_dict().items())[:-1])
    assert equal(load({"net": other.state_dict(), "ema": half}), other)
    assert "'ema' is no whole network, and was left" in caplog.text


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"two tensors 'a\.b'"):
        load({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)})


def test_of_two_networks_one_is_chosen_by_its_key(theirs: nn.Module, other: nn.Module) -> None:
    content = {"runs": {"student": prefixed("net.", theirs), "teacher": prefixed("net.", other)}}
    with pytest.raises(WeightsError, match=r"2 times.*'runs\.student\.net', 'runs\.teacher\.net'"):
        load(content)
    for key in ("runs.student", "runs.student.net", "runs.student."):
        assert equal(load(content, key=key), theirs)
    with pytest.raises(WeightsError, match=r"holds no tensors under key='run'; it has runs"):
        load(content, key="run")
    with pytest.raises(WeightsError, match="2 times"):
        load({"all": [theirs, other]})


def test_the_same_network_twice_is_one(theirs: nn.Module) -> None:
    """Wrappers list what they share with another wrapper a second time."""
    content = {**prefixed("module.model.", theirs), **prefixed("module.attacker.model.", theirs)}
    assert equal(load(content), theirs)


def test_a_network_may_have_a_part_called_module() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.ModuleDict({"module": nn.Linear(3072, 10)}))

    first, second = build(), build()
    for content in (first.state_dict(), prefixed("module.", first)):
        cifarzoo.load_weights(second, content)
        assert equal(first, second)


def test_what_comes_nearest_is_compared_with_the_model(theirs: nn.Module) -> None:
    content = {"epoch": 1, "state_dict": prefixed("module.", theirs)}
    del content["state_dict"]["module.fc1.bias"]  # type: ignore[attr-defined]  # a dict
    with pytest.raises(WeightsError, match=r"'state_dict\.module\.'.*\n +missing .*: fc1\.bias$"):
        load(content)


def test_an_own_layout_is_stated_on_the_class(own_registries: None) -> None:
    class Mine(nn.Module):
        layouts = (Layout("somebody", ((r"^out\.", "head."),)),)

        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.head = nn.Linear(3072, num_classes)

    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def mine(*, num_classes: int = 10) -> Mine:
        return Mine(num_classes)

    content = {"out.weight": torch.ones(4, 3072), "out.bias": torch.ones(4)}
    model = cifarzoo.create_model("mine", pretrained=content)
    assert model.get_parameter("head.weight").shape == (4, 3072)
    assert cifarzoo.load_weights(model, content)["layout"] == "somebody"
