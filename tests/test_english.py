"""What users read is plain English: helps, headings, heads of tables, and explained terms.

A machine cannot judge a style. It can find what readers have stumbled over, and its kinds: an
option whose help does not say what it is, a heading or a column that is only a preposition, a term
that no page explains.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

from cifarzoo import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    if "generated" not in page.parts and "_build" not in page.parts
)
SOURCES = sorted(
    file
    for folder in ("src", "examples", "docs", "research")
    for file in (ROOT / folder).rglob("*.py")
    if "_build" not in file.parts
)
TEMPLATES = sorted((ROOT / "src").rglob("*.html"))
COMMANDS: dict[str, click.Command] = vars(typer.main.get_command(cli.app))["commands"]

# what readers have stumbled over, and the kind of it
RIDDLES = (
    "those of others",
    "Of the computation",
    "Seed of parameters, order, draws",
    "instead of those it was trained for",
    "what is known about a model: size",
    "Prove pretrained weights",
    "passes more",
    "come to an end with it",
    "do not tell, and pass",
    "are the business of",
    "None of it is assembly",
    "no slow convergence but none",
    "its mode back",
    "All of it is also on the command line",
    "measured after the last epoch, mean and standard deviation",
    "Ours are trained on",
    "took for which",
    "sees to both",
    "Level with the straight line",
    "earns what it costs",
)
RIDDLE_PATTERNS = (
    r"tells apart [\w, ]+, which are not",
    r"\b[Ss]ur(?:er|est)\b",
    r"\bof one's own\b.{0,40}\bthose\b",
)
PREPOSITIONS = ("as", "at", "behind", "by", "for", "from", "in", "of", "on", "than", "to", "with")
NOT_A_BEGINNING = {*PREPOSITIONS, "also", "how", "like", "what", "where", "which", "whose"}


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    """The options and arguments of every command, with what to call them."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.name != "help":
                yield f"{name} {parameter.name}", parameter


def one_line(text: str) -> str:
    """``text`` without line breaks, and without the quotes that join strings in a program."""
    return re.sub(r"\s+", " ", re.sub(r'"\s*\n\s*f?"', "", text))


def table_heads(text: str) -> Iterator[list[str]]:
    """The heads of every table in Markdown."""
    for heads in re.findall(r"^\|(.+)\|\n\|[ :|-]+\|$", text, re.MULTILINE):
        yield [head.strip() for head in heads.split("|")]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize(
    "file", [*PAGES, *SOURCES, *TEMPLATES], ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_text_has_a_phrase_that_stopped_a_reader(file: Path) -> None:
    text = one_line(file.read_text(encoding="utf-8"))
    assert [riddle for riddle in RIDDLES if riddle in text] == []
    assert [pattern for pattern in RIDDLE_PATTERNS if re.search(pattern, text)] == []


@pytest.mark.parametrize("parameter", [pytest.param(each, id=name) for name, each in parameters()])
def test_every_option_and_argument_says_what_it_is(parameter: click.Parameter) -> None:
    text = re.sub(r" ?\[default: .*?\]$", "", getattr(parameter, "help", None) or "")
    words = re.findall(r"[\w'-]+", text)
    assert len(words) >= 4, "a help is at least four words"
    assert text[0].isupper(), "it begins with a capital letter"
    assert words[0].lower() not in NOT_A_BEGINNING, "it begins with a noun or a verb"
    assert text.endswith(".") or "[default: " in (parameter.help or "")
    assert text.count(";") <= 1, "it is a sentence or two"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_begins_with_a_sentence_that_the_list_shows_whole(name: str) -> None:
    first = (COMMANDS[name].help or "").split("\n\n")[0]
    assert first.endswith(".")
    assert re.match(r"[A-Z][a-z]+ ", first)
    assert len(first.split(". ")[0]) <= 72
    assert "..." not in COMMANDS[name].get_short_help_str(80)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_heading_and_no_column_is_only_a_preposition(page: Path) -> None:
    text = prose(page)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        assert len(heading.split()) > 1 or heading.lower() not in NOT_A_BEGINNING
        assert heading.split()[0].lower() not in ("by", "of", "than")
    for heads in table_heads(text):
        check_heads(heads)


def test_no_column_of_a_measured_table_is_only_a_preposition(results: ModuleType) -> None:
    measured = {name: ROOT / name / "results" for name in ("benchmarks", "research")}
    trials = importlib.import_module("trials_94")  # beside it
    tables = [
        results.results_table(),
        trials.to_94_table(measured["research"] / "to_94.json"),
        trials.airbench_table(measured["benchmarks"] / "zoo" / "log.jsonl"),
        trials.tune_94_table(measured["research"] / "tune_94.json"),
        trials.tune_94_table(measured["research"] / "fewer_94.json"),
        results.tuning_tables(measured["research"] / "tune_zoo.json"),
        results.int8_table(measured["benchmarks"] / "int8.json"),
        results.reliability_tables(measured["benchmarks"] / "reliability.json"),
        *results.why_71_tables(measured["research"] / "why_71.json").values(),
    ]
    for text in tables:
        found = list(table_heads(text))
        assert found
        for heads in found:
            check_heads(heads)


def check_heads(heads: list[str]) -> None:
    """Only the first column may have no head; no head is a preposition, or begins with "of"."""
    assert all(heads[1:]) or not any(heads)
    for head in heads:
        words = head.lower().split()
        assert not words or not {*words} <= {*PREPOSITIONS}, head
        assert words[:1] not in (["of"], ["than"]), head


def glossary() -> dict[str, str]:
    """The terms of the glossary, in lower case, with what explains them."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    entries = "\n\n".join(re.findall(r"```\{glossary\}\n(.*?)```", text, re.DOTALL))
    found = re.findall(r"^(\S.*)\n((?:  .+\n)+)", entries + "\n", re.MULTILINE)
    return {term.lower(): one_line(explanation).strip() for term, explanation in found}


def test_the_glossary_explains_each_term_in_two_sentences() -> None:
    terms = glossary()
    assert {"muon", "six views", "pflop", "calibration error", "epoch", "seed"} <= set(terms)
    for term, explanation in terms.items():
        assert explanation[0].isupper() or explanation.startswith("bfloat16"), term
        assert len(re.findall(r"\.(?= [A-Z`]|$)", explanation)) >= 2, term
        assert explanation.endswith("."), term


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS in page.parents], ids=lambda page: page.name
)
def test_a_term_is_linked_once_on_a_page_where_it_first_stands(page: Path) -> None:
    terms = glossary()
    linked = []
    for role in re.findall(r"\{term\}`([^`]+)`", page.read_text(encoding="utf-8")):
        target = re.search(r"<([^>]+)>", one_line(role))
        linked.append((target[1] if target else one_line(role)).lower())
    assert set(linked) <= set(terms)
    assert len(linked) == len(set(linked))
