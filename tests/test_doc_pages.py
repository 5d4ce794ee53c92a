"""What pages of the documentation say agrees with the library."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import typer

import cifarzoo
from cifarzoo import cli, errors, models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "generated" not in path.parts)
GAP = "…"  # what differs from case to case in a message


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def error_index() -> dict[str, list[str]]:
    """The messages that docs/faq.md quotes, by the class whose heading they stand below."""
    _, _, text = read("faq.md").partition("\n## Errors\n")
    sections = re.split(r"^### (\w+)$", text, flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"^`([^`]+)`$(?=\n: )", body, re.MULTILINE)
        for name, body in zip(sections[::2], sections[1::2], strict=True)
    }


def text_of(node: ast.expr) -> str | None:
    """A string in the source, with gaps for what is filled in; None for what is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or GAP for part in node.values)
    return None


@cache
def raised() -> tuple[tuple[str, str], ...]:
    """Pairs of an error class and a message that the source raises it with."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name, message = node.func.id, text_of(node.args[0])
                if name in errors.__all__ and message is not None:
                    found.append((name, message))
    return tuple(found)


def test_every_error_is_in_the_index() -> None:
    index = error_index()
    assert sorted(index) == sorted(errors.__all__)
    assert all(messages for name, messages in index.items() if name != "CifarZooError")


@pytest.mark.parametrize(
    ("name", "quoted"), [(name, each) for name, all_ in error_index().items() for each in all_]
)
def test_every_message_in_the_index_is_raised_by_its_class(name: str, quoted: str) -> None:
    plain = quoted.strip(GAP)
    assert any(of == name and plain in message for of, message in raised()), quoted


def test_the_reference_of_networks_finds_every_class() -> None:
    assert {*models.__all__} <= {*dir(models)}  # by which Sphinx knows what there is


def test_every_extra_is_in_the_page_about_installing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = re.findall(r"^\| `(\w+)` \|", read("install.md"), re.MULTILINE)
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_every_page_is_in_one_table_of_contents() -> None:
    found: list[str] = []
    for path in PAGES:
        for body in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S
        ):
            lines = [line for line in body.splitlines() if line and not line.startswith(":")]
            folder = path.parent.relative_to(DOCS)
            named = [line.split("<")[-1].strip("> ") for line in lines]
            # a slash leads from the top
            found += [
                name.removeprefix("/") if name[0] == "/" else (folder / name).as_posix()
                for name in named
            ]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES}
    assert {each for each in found if not each.startswith("models/generated")} >= pages - {"index"}
    assert len(found) == len(set(found))


def links(page: str) -> Iterator[str]:
    """What a page refers to."""
    return iter(re.findall(r"\{doc\}`(?:[^`<]*<)?([\w/.-]+)>?`", read(page)))


def test_the_home_page_leads_to_every_how_to_page() -> None:
    linked = set(links("index.md"))
    pages = {f"howto/{path.stem}" for path in (DOCS / "howto").glob("*.md")}
    assert pages - linked == {"howto/release"}  # for who makes a release


def test_the_home_page_begins_with_two_sentences() -> None:
    first = read("index.md").split("\n\n")[1].replace("\n", " ")
    assert len(re.findall(r"[.](?: |$)", first)) == 2


def test_the_ten_best_on_the_home_page_are_those_of_the_full_table(results: ModuleType) -> None:
    short = results.short_table(results.ten_best()).splitlines()[2:]
    full = results.results_table(results.ten_best()).splitlines()[2:]
    assert len(short) == len(full) > 5
    for line, other in zip(short, full, strict=True):
        name, accuracy = (cell.strip() for cell in line.split("|")[1:3])
        assert re.sub(r"\[|\]\([^)]*\)", "", name) == other.split("|")[1].strip()
        assert accuracy == other.split("|")[3].split("±")[0].strip()
        (page,) = re.findall(r"models/generated/(\w+)\.md", name)
        assert page in cifarzoo.list_models()


def test_names_in_the_tables_of_other_packages_are_of_the_zoo() -> None:
    names = set(
        re.findall(
            r"`(\w+)`",
            "\n".join(
                line.split("|")[2]
                for line in read("howto/coming-from.md").splitlines()
                if re.match(r"\| `(ResNet|PreAct|VGG|Mobile|cifar10)", line)
            ),
        )
    )
    assert len(names) > 10
    assert names <= set(cifarzoo.list_models())


def test_code_stands_below_a_heading_not_below_a_remark_in_other_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other, code = "```toml\n# a remark\n```\n", "```python\nx = 1\n# more\n```\n"
    page.write_text(f"# One\n\n{other}\n{code}## Two\n```python\n```\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        blocks = importlib.import_module("code_blocks")
    assert [*blocks.code_blocks(page, "python")] == [("One", "x = 1\n# more\n"), ("Two", "")]


def test_the_walk_that_is_shown_is_of_this_page_and_took_less_than_a_quarter_of_an_hour() -> None:
    measured = json.loads((ROOT / "benchmarks/results/walk.json").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.*)$", read("howto/fine-tune.md"), re.MULTILINE)
    steps = [step for step in measured["steps"] if step != "The home page"]
    assert steps == [each for each in headings if each in steps]
    assert measured["install_seconds"] > 0  # in an environment of its own
    assert measured["seconds_in_all"] < 15 * 60


@pytest.mark.slow
def test_the_walk_from_the_home_page_ends_at_a_network_for_photos(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        walking = importlib.import_module("walk")
    sample = cifarzoo.load_sample("test")
    for kind, label in (("boat", 8), ("cat", 3)):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for number in (sample.labels == label).nonzero()[:20, 0].tolist():
            from PIL import Image

            photo = Image.fromarray(sample.images[number].permute(1, 2, 0).numpy())
            photo.resize((200, 150)).save(tmp_path / "mine" / kind / f"{number}.jpg")
    (tmp_path / "work").mkdir()
    found = walking.walk(tmp_path / "work", tmp_path / "mine")
    assert found["photos"] == {"boat": 20, "cat": 20}
    assert found["tested"] == 8
    assert found["after"] >= 0.75
    assert found["after"] > found["before"] or found["before"] == 1
    assert not any(step.startswith("2.") for step in found["steps"])
    assert {"boat", "cat"} == set(
        cifarzoo.get_card(cifarzoo.load_model(tmp_path / "work/photos.safetensors")).classes
    )
    assert found["printed"].startswith("cat ")


def commands() -> list[tuple[str, str]]:
    """Each line of the pages that calls the command, and its page."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                call = re.match(r"\$ (?:torchrun .* -m )?cifarzoo (.*)", line)
                if call:
                    found.append((path.relative_to(DOCS).as_posix(), call[1]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_on_a_page_can_be_read(page: str, line: str) -> None:
    words = shlex.split(re.sub(r" [>|] .*", "", line), comments=True)
    if words == ["--version"]:
        return
    if words[0] == "--import":
        words = words[2:]
    command = typer.main.get_command(cli.app).commands[words[0]]
    command.make_context(words[0], words[1:])
