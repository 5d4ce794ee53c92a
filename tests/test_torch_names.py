"""The names of torch that the source uses are listed, and none is younger than the oldest torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def torch_names() -> ModuleType:
    """tools/torch_names.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("torch_names")


def test_every_name_of_torch_that_is_used_is_listed_with_its_version(
    torch_names: ModuleType,
) -> None:
    assert torch_names.used_names() == torch_names.read_table().keys()


def test_no_name_is_younger_than_the_oldest_torch(torch_names: ModuleType) -> None:
    oldest = torch_names.number(torch_names.oldest_torch())
    known = torch_names.read_table()
    assert {name for name, since in known.items() if torch_names.number(since) > oldest} == set()


def test_every_listed_name_is_one_of_torch(torch_names: ModuleType) -> None:
    for name in torch_names.read_table():
        value = torch
        try:
            for part in name.split(".")[1:]:
                value = getattr(value, part)
        except AttributeError:
            importlib.import_module(name.rpartition(".")[0])


def test_names_are_found_however_they_are_imported(torch_names: ModuleType) -> None:
    source = """
import torch
import torch.fx as fx
import torch.nn.functional as F
from torch import nn, Tensor as T
from torch.optim import SGD
import numpy.torch_like

def f(x: T) -> "T":
    return F.relu(nn.init.zeros_(torch.zeros(1).torch_like), fx.GraphModule)
"""
    assert torch_names.names_in(source) == {
        *("torch.fx.GraphModule", "torch.nn.functional.relu", "torch.nn.init.zeros_"),
        *("torch.zeros", "torch.Tensor", "torch.optim.SGD"),
    }
