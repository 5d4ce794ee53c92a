"""Weights files that a bit, a program or a stranger has changed: noticed, or without effect."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import resource
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import cifarzoo
from cifarzoo import EpochRecord
from cifarzoo.errors import ArgumentError, CifarZooError, WeightsError
from cifarzoo.zoo.facts import Record


def small(*, width: int = 2, num_classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, num_classes))


@pytest.fixture(autouse=True)
def registered(own_registries: None) -> None:
    cifarzoo.register_model(
        name="small", description="A test.", source="here", parameters=1, macs=1
    )(small)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    record = EpochRecord(1, 1.5, 0.5, None, None, 0.1, 60.0, 500.0).to_dict()
    metadata = {"model": "small", "history": [record], "test_accuracy": {"none": 0.5}}
    model = cifarzoo.create_model("small", num_classes=3, seed=0)
    return cifarzoo.save_weights(model, tmp_path / "small.safetensors", metadata=metadata)


def read_all(path: Path) -> tuple[Any, ...]:
    """Everything that is in a file, to be compared."""
    model, facts = cifarzoo.load_model(path), cifarzoo.read_metadata(path)
    state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return state, cifarzoo.get_card(model), facts["metadata"], facts["versions"]


def rewrite(path: Path, changes: Mapping[str, Any], *, tensors: Any = None) -> None:
    """Give a file other facts and a checksum over them, as a stranger would."""
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata()
    header.pop("facts_sha256")
    header["format"] = "1"
    header |= {k: v if isinstance(v, str) else json.dumps(v) for k, v in changes.items()}
    save_file(load_file(path) if tensors is None else tensors, path, metadata=header)


def test_a_flipped_bit_in_the_header_is_noticed_or_changes_nothing(path: Path) -> None:
    whole, expected = path.read_bytes(), read_all(path)
    (length,) = struct.unpack("<Q", whole[:8])
    refused = 0
    for bit in range(0, 8 * (8 + length), 23):  # every position in a byte has its turn
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert read_all(path) == expected, bit
        except CifarZooError:
            refused += 1
    assert refused > length // 4


def test_a_file_of_the_first_format_loads_and_says_what_is_not_covered(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_all(path)
    assert not caplog.records
    rewrite(path, {})
    with caplog.at_level(logging.WARNING, logger="cifarzoo"):
        assert read_all(path) == expected
    assert "whose checksum covers the tensors alone" in caplog.text
    caplog.clear()
    cifarzoo.create_model("simple", pretrained=True)  # compared as a whole file
    assert not caplog.records


@pytest.mark.parametrize("name", ["format", "card", "sha256", "versions", "metadata"])
def test_a_header_without_one_of_its_facts_is_no_file_of_others(path: Path, name: str) -> None:
    path.write_bytes(
        path.read_bytes().replace(f'"{name}":"'.encode(), f'"{name[:-1]}_":"'.encode())
    )
    with pytest.raises(WeightsError, match=rf"is damaged: .*does not state its {name}"):
        cifarzoo.read_metadata(path)


CARD = cifarzoo.ModelCard("small", num_classes=3).to_dict()
EVEN = {"mean": [0.5] * 3, "std": [0.5] * 3}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"card": [1]}, "card cannot be read"),
        ({"card": {**CARD, "name": 3}}, "name should be a valid string"),
        ({"card": {**CARD, "name": "\ud800"}}, "no Unicode"),
        ({"card": {**CARD, "num_classes": True}}, "num_classes should be a valid integer"),
        ({"card": {**CARD, "num_classes": 0}}, "num_classes should be greater"),
        ({"card": {**CARD, "options": None}}, "options should be a valid dictionary"),
        ({"card": {**CARD, "preprocessing": 5}}, "preprocessing should be"),
        ({"card": {**CARD, "preprocessing": {"mean": [0.5] * 3}}}, "preprocessing.std is missing"),
        ({"card": {**CARD, "preprocessing": {**EVEN, "std": [10**400] * 3}}}, "card cannot be rea"),
        (
            {"card": {**CARD, "preprocessing": {**EVEN, "mean": ["0.5"] * 3}}},
            "mean.0 should be a number",
        ),
        ({"card": {**CARD, "classes": "abc"}}, "classes"),
        ({"card": {**CARD, "classes": [1, 2, 3]}}, "classes"),
        ({"card": DEEP}, "nested too deeply"),
        ({"metadata": DEEP}, "nested too deeply"),
        ({"metadata": "[" * 500 + "]" * 500}, "nested more than"),
        ({"metadata": []}, "metadata should be"),
        ({"metadata": {"history": 5}}, "metadata.history should be a valid list"),
        ({"metadata": {"history": [{"epoch": 1}]}}, "history.0.train_loss is missing"),
        ({"metadata": {"parameters": "many"}}, "metadata.parameters should be a valid integer"),
        ({"metadata": {"test_accuracy": 0.9}}, "test_accuracy should be a valid dictionary"),
        ({"metadata": {"note": "\udfff"}}, "no Unicode"),
        ({"versions": 3}, "versions should be"),
        ({"format": 9}, "format 9 is of a newer version"),
        ({"format": "3.5"}, "sha256 of its facts differs"),
        ({"format": "9" * 5000}, "damaged"),
    ],
)
def test_facts_of_another_kind_are_named(path: Path, changes: dict[str, Any], told: str) -> None:
    rewrite(path, changes)
    for read in (cifarzoo.read_metadata, cifarzoo.load_model):
        with pytest.raises(WeightsError, match=told):
            read(path)
    model = small()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(WeightsError, match=told):
        cifarzoo.load_weights(model, path)
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())


def test_facts_that_could_not_be_read_again_are_not_written(tmp_path: Path) -> None:
    for metadata in ({"test_accuracy": 0.9}, {"note": "\ud800"}, {"history": ["first"]}):
        with pytest.raises(ArgumentError, match="metadata: "):
            cifarzoo.save_weights(small(), tmp_path / "w.safetensors", metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_a_record_of_a_history_has_the_fields_of_an_epoch() -> None:
    assert list(Record.__annotations__) == [each.name for each in dataclasses.fields(EpochRecord)]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than a gigabyte beyond what is taken."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 500_000_000},
        {"num_classes": 10**30},
        {"options": {"width": 500_000_000}},
        {"options": {"width": -1}},
        {"options": {"width": "wide"}},
        {"options": {"depth": 3}},
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_a_card_cannot_ask_for_more_than_its_file_holds(
    path: Path, changes: dict[str, Any]
) -> None:
    rewrite(path, {"card": {**CARD, **changes}})
    with pytest.raises(CifarZooError):
        cifarzoo.load_model(path)


def test_a_builder_that_cannot_be_planned_is_given_no_more_classes_than_there_are_numbers(
    tmp_path: Path, path: Path
) -> None:
    @cifarzoo.register_model(description="A test.", source="here", parameters=1, macs=1)
    def reads_numbers(*, num_classes: int = 10) -> nn.Module:
        assert num_classes < 100
        layer = nn.Linear(4, num_classes)
        assert layer.weight.sum().item() != 0  # no number is there to be read in a plan
        return layer

    model = cifarzoo.create_model("reads_numbers", num_classes=3)
    path = cifarzoo.save_weights(model, tmp_path / "w.safetensors")
    assert cifarzoo.get_card(cifarzoo.load_model(path)).num_classes == 3
    rewrite(path, {"card": {**CARD, "name": "reads_numbers", "num_classes": 500}})
    with pytest.raises(WeightsError, match="card states 500 classes"):
        cifarzoo.load_model(path)
