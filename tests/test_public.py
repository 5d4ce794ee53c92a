"""The public surface and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch

import cifarzoo
from cifarzoo import errors
from cifarzoo.zoo import registry

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


def test_what_draws_no_numbers_for_its_caller_leaves_torchs_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_FOREIGN_SPECS", {})  # as in a new process
    model = cifarzoo.create_model("simple", pretrained=True)
    few = cifarzoo.load_sample("test").subset(range(8))
    report = cifarzoo.evaluate(model, few)
    calls: dict[str, Callable[[], object]] = {
        "summary": lambda: cifarzoo.summary(model),
        "get_model_info": lambda: cifarzoo.get_model_info("torchvision:shufflenet_v2_x0_5"),
        "create_model": lambda: cifarzoo.create_model("torchvision:squeezenet1_1", seed=0),
        "evaluate": lambda: cifarzoo.evaluate(model, few),
        "predict": lambda: cifarzoo.predict(model, few),
        "embeddings": lambda: cifarzoo.embeddings(model, few),
        "get_classifier": lambda: cifarzoo.get_classifier(model),
        "reset_classifier": lambda: cifarzoo.reset_classifier(model, 3, seed=1),
        "compare": lambda: cifarzoo.compare(report, report),
        "split": lambda: few.split(2, seed=1),
        "load_sample": lambda: cifarzoo.load_sample("train"),
    }
    for name, call in calls.items():
        before = torch.get_rng_state()
        call()
        assert torch.equal(torch.get_rng_state(), before), name


def test_package_is_marked_as_typed() -> None:
    assert (resources.files("cifarzoo") / "py.typed").is_file()


def test_using_the_public_names_does_not_import_what_few_need() -> None:
    rarely = {"torchvision", "timm", "torchmetrics", "matplotlib", "torchinfo", "PIL", "rich"}
    code = (
        "import sys, torch; before = set(sys.modules); import cifarzoo\n"
        "for name in cifarzoo.__all__: getattr(cifarzoo, name)\n"
        f"assert (set(sys.modules) - before).isdisjoint({rarely})"
    )
    modules_after(code)


@pytest.mark.slow
def test_a_network_with_its_weights_waits_for_no_other_one() -> None:
    code = (
        "import sys, cifarzoo; cifarzoo.create_model('resnet20', pretrained=True)\n"
        "others = {'cifarzoo.models.vgg', 'cifarzoo.recipe', 'pydantic', 'torchvision', 'timm'}\n"
        "assert others.isdisjoint(sys.modules), others & set(sys.modules)"
    )
    modules_after(code)


def test_version_stands_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(cifarzoo.__version__)}|Unreleased)\]", text, re.MULTILINE)


def modules_after(code: str) -> set[str]:
    """The first parts of the names of all modules that a new interpreter has after ``code``."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.splitlines()[-1].split())


HEAVY = {"torch", "numpy", "torchvision", "timm", "safetensors", "PIL", "matplotlib"}


@pytest.mark.parametrize(
    "arguments", [[], ["--version"], ["--help"], ["train", "--help"], ["report", "--help"]]
)
def test_help_waits_for_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['cifarzoo', *{arguments}]\n"
        "from cifarzoo.cli import main\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert modules_after(code).isdisjoint(HEAVY)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert modules_after("import cifarzoo; cifarzoo.__version__").isdisjoint(HEAVY)


@pytest.mark.slow
def test_every_public_name_is_where_the_package_looks_for_it() -> None:
    code = (
        "import cifarzoo\n"
        "names = dir(cifarzoo)\n"
        "assert set(cifarzoo.__all__) <= set(names) and 'training' in names\n"
        "for name in cifarzoo.__all__: getattr(cifarzoo, name)\n"
        "assert cifarzoo.training.Trainer is cifarzoo.Trainer\n"
        "assert callable(cifarzoo.summary)\n"
        "from cifarzoo import *\n"
        "assert Trainer is cifarzoo.Trainer and evaluate is cifarzoo.evaluate\n"
        "from cifarzoo.zoo.summary import summary as again\n"
        "assert again is cifarzoo.summary\n"
        "import pickle\n"
        "assert pickle.loads(pickle.dumps(cifarzoo.Recipe)) is cifarzoo.Recipe\n"
        "assert not hasattr(cifarzoo, 'trainning') and not hasattr(cifarzoo, '__path')\n"
        "import pydoc; assert 'class Trainer' in pydoc.plain(pydoc.render_doc(cifarzoo))\n"
    )
    modules_after(code)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["zoo.registry", "zoo.summary", "training", "models", "data"])
def test_each_module_can_be_the_first_that_is_imported(module: str) -> None:
    code = (
        f"import cifarzoo.{module}\nimport cifarzoo\n"
        "assert len(cifarzoo.list_models()) > 10 and callable(cifarzoo.summary)"
    )
    modules_after(code)


@pytest.mark.slow
def test_a_name_of_the_zoo_is_taken_from_the_beginning() -> None:
    code = (
        "import cifarzoo\n"
        "from cifarzoo.errors import DuplicateNameError\n"
        "register = cifarzoo.register_model(description='', source='', parameters=1, macs=1)\n"
        "def simple(*, num_classes=10): pass\n"
        "try: register(simple)\n"
        "except DuplicateNameError: pass\n"
        "else: raise AssertionError\n"
    )
    modules_after(code)
