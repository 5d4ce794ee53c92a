"""Loggers of other people's services; tests/integrations has those with the packages."""

from __future__ import annotations

import sys

import pytest

import cifarzoo
from cifarzoo.errors import MissingExtraError


@pytest.mark.parametrize(
    ("package", "logger"), [("wandb", "WandbLogger"), ("mlflow", "MLflowLogger")]
)
def test_a_missing_package_names_its_extra(
    package: str, logger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'cifarzoo\[{package}\]'"):
        getattr(cifarzoo, logger)()
