"""The public surface and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import cifarzoo
from cifarzoo import errors

ROOT = Path(__file__).parents[1]


def test_all_names_exist_once() -> None:
    assert len(set(cifarzoo.__all__)) == len(cifarzoo.__all__)  # ruff keeps them sorted
    for name in cifarzoo.__all__:
        assert hasattr(cifarzoo, name), name


def test_every_public_object_has_a_docstring() -> None:
    for name in cifarzoo.__all__:
        assert name == "__version__" or getattr(cifarzoo, name).__doc__, name


def test_every_error_is_a_cifarzoo_error_and_a_builtin() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.CifarZooError)
        if error is not errors.CifarZooError:
            builtins = [c for c in error.__mro__ if c.__module__ == "builtins"]
            assert builtins[0] is not Exception, name
            assert name in errors.__doc__


def test_package_is_marked_as_typed() -> None:
    assert (resources.files("cifarzoo") / "py.typed").is_file()


@pytest.mark.parametrize(
    "module", ["torchvision", "timm", "torchmetrics", "matplotlib", "torchinfo", "PIL", "rich"]
)
def test_importing_the_package_does_not_import(module: str) -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import cifarzoo; "
        f"print({module!r} in set(sys.modules) - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_version_stands_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(cifarzoo.__version__)}|Unreleased)\]", text, re.MULTILINE)
