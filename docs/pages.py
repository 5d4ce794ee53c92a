"""The pages that are made from the library itself: models, schedulers, the command line, a run.

Nothing in them is typed: what they show is read from the registry, from the command, and from
a run of examples/quickstart.py on the embedded sample.
"""

import contextlib
import hashlib
import inspect
import io
import json
import runpy
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import typer
from code_blocks import code_blocks
from results import (
    hundred_table,
    imbalance_table,
    int8_table,
    machine_line,
    plot_why_71,
    reliability_tables,
    results_table,
    short_table,
    table,
    ten_best,
    tuning_tables,
    walk_table,
    why_71_tables,
)
from trained import pictures, weights_section
from trials_94 import airbench_table, plot_trials, to_94_table, tune_94_table
from typer.testing import CliRunner

import cifarzoo
from cifarzoo import cli, models
from cifarzoo.names import keyword_options
from cifarzoo.recipe.schedulers import registry as schedulers
from cifarzoo.recipe.schedulers import timm
from cifarzoo.zoo.builds import other_sizes

# what each section of benchmarks/throughput.py measures
SECTIONS = {
    "train": "training, images/s",
    "compile": "ten epochs with torch.compile, images/s",
    "loader": "loading batches, images/s",
    "evaluation": "evaluation, images/s",
    "precision": "float32 and bfloat16",
    "start": "start-up",
    "memory": "peak memory",
}


def bring_up_to_date(docs: Path) -> None:
    """Write the generated pages, unless they were made from the same files before."""
    stamp, state = docs / "generated/made-from.txt", made_from(docs)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != state:
        stamp.unlink(missing_ok=True)
        write(docs)
        stamp.write_text(state, encoding="utf-8")


def made_from(docs: Path) -> str:
    """A checksum that changes with the library, the measured results, and these programs."""
    running = hashlib.sha256(torch.__version__.encode())
    folders = ("src", "examples", "packs", "benchmarks/results", "research/results")
    files = [file for each in folders for file in (docs.parent / each).rglob("*")]
    programs = (*docs.glob("*.py"), *docs.glob("*.toml"), docs / "index.md")
    for file in sorted([*files, *programs]):
        if file.is_file() and "__pycache__" not in file.parts:
            about = file.stat()
            running.update(f"{file} {about.st_size} {about.st_mtime_ns}\n".encode())
    return running.hexdigest()


def write(docs: Path) -> None:
    """Write all generated pages below ``docs``; those that are the same stay untouched."""
    _write_folder(docs / "models/generated", model_pages())
    reference = {"_cli.md": command_line(), "_schedulers.md": scheduler_table()}
    _write_folder(docs / "reference/generated", reference)
    results, research = (docs.parent / name / "results" for name in ("benchmarks", "research"))
    explanation = {
        "_speed.md": speed_tables(results / "throughput.json"),
        "_every_family.md": families_table(results / "every_family.json"),
        "_reliability.md": reliability_tables(results / "reliability.json"),
        "_to_94.md": to_94_table(research / "to_94.json"),
        "_airbench.md": airbench_table(results / "zoo" / "log.jsonl"),
        "_tune_94.md": tune_94_table(research / "tune_94.json"),
        "_fewer_94.md": tune_94_table(research / "fewer_94.json"),
        "trials-94.svg": plot_trials(research / "tune_94.json", research / "fewer_94.json"),
        "_tune_zoo.md": tuning_tables(research / "tune_zoo.json"),
        "_results.md": results_table(),
        "_results_cifar100.md": hundred_table(),
        "_ten_best.md": short_table(ten_best()),
        "why-71.svg": plot_why_71(research / "why_71.json"),
        **{
            f"_why_71_{budget}.md": text
            for budget, text in why_71_tables(research / "why_71.json").items()
        },
    }
    _write_folder(docs / "explanation/generated", explanation)
    howto = {
        "_int8.md": int8_table(results / "int8.json"),
        "_walk.md": walk_table(results / "walk.json"),
        "_imbalance.md": imbalance_table(research / "imbalance.json"),
    }
    _write_folder(docs / "howto/generated", howto)
    _run_quickstart(docs.parent / "examples/quickstart.py", docs / "generated")
    (docs / "generated/home.txt").write_text(what_it_prints(docs / "index.md"), encoding="utf-8")


def model_pages() -> dict[str, str]:
    """A page for each registered model with its pictures, and the table of all."""
    pages = {"_table.md": model_table()}
    with ProcessPoolExecutor(2) as pool:
        for of_model in pool.map(_page_and_pictures, cifarzoo.list_models()):
            pages |= of_model
    return pages


def _page_and_pictures(name: str) -> dict[str, str]:
    return {f"{name}.md": model_page(name), **pictures(cifarzoo.get_model_info(name))}


def model_table() -> str:
    """A row for each registered model."""
    rows = []
    for name in cifarzoo.list_models():
        spec = cifarzoo.get_model_info(name)
        stated = f"{spec.stated_accuracy:g} %" if spec.stated_accuracy else ""
        rows.append(
            (
                f"[`{name}`](generated/{name}.md)",
                f"{spec.parameters:,}",
                f"{spec.macs:,}",
                stated,
                spec.description,
            )
        )
    header = ("model", "parameters", "MACs", "stated", "description")
    return table(header, rows, numbers=(1, 2, 3))


def model_page(name: str) -> str:
    """What is known about the model called ``name``."""
    spec = cifarzoo.get_model_info(name)
    model = cifarzoo.create_model(name)
    network = type(model)
    size = f"{spec.image_size}x{spec.image_size}" if spec.image_size else "any size"
    options = ", ".join(f"`{key}={value!r}`" for key, value in spec.options.items())
    others = (f"; {size:,} with `{how}`" for how, size in other_sizes(spec.builder).items())
    facts = [
        ("source", spec.source),
        ("stated accuracy", f"{spec.stated_accuracy:g} %" if spec.stated_accuracy else "none"),
        ("parameters", "".join((f"{spec.parameters:,}", *others))),
        ("MACs", f"{spec.macs:,} for one 3x32x32 image"),
        ("images", size),
        ("options", options or "only `num_classes`"),
    ]
    parts = [
        f"# {name}",
        spec.description,
        table(("", ""), facts),
        _block("python", f'model = cifarzoo.create_model("{name}")'),
        *_about(network),
        *weights_section(spec),
        "## Recipes",
        f"`cifarzoo train {name} --recipe NAME` trains by one of these {{term}}`recipes <recipe>`. "
        "{py:class}`cifarzoo.Recipe` explains every field.",
    ]
    for recipe_name, recipe in spec.recipes.items():
        parts += [f"### {recipe_name}", _block("toml", recipe.to_toml())]
    parts += [
        "## Layers",
        "`print(model)` shows them:",
        _block("text", str(model), css="wide"),
        f"## Summary\n\n`cifarzoo summary {name}` prints the output shape, the parameters and the "
        "{term}`multiply-accumulates <MAC>` of every layer.",
        _block("text", str(cifarzoo.summary(model)), css="wide"),
    ]
    return "\n\n".join(parts) + "\n"


def command_line() -> str:
    """The help of every command, as the command itself prints it."""
    parts = [_block("text", _help())]
    for name in commands():
        parts += [f"## cifarzoo {name}", _block("text", _help(name))]
    return "\n\n".join(parts) + "\n"


def commands() -> list[str]:
    """Names of the registered commands, in the order of the help."""
    return list(typer.main.get_command(cli.app).commands)


def scheduler_table() -> str:
    """Every named schedule of the library's own, with its options."""
    rows = []
    for name, factory in sorted(schedulers._FACTORIES.items()):
        options = keyword_options(factory).values()
        shown = ", ".join(f"`{option.name}={option.default!r}`" for option in options)
        rows.append((f"`{name}`", inspect.getdoc(factory).splitlines()[0], shown))
    theirs = ", ".join(f"`timm.{name}`" for name in timm.NAMES)
    text = f"\n\nThese schedules are timm's, with timm's options: {theirs}."
    return table(("name", "schedule", "options"), rows) + text + "\n"


def speed_tables(measured: Path) -> str:
    """The tables of benchmarks/throughput.py, from the JSON it wrote."""
    results = json.loads(measured.read_text(encoding="utf-8"))
    parts = [machine_line(results.pop("machine"))]
    for section, found in results.items():
        rows = [
            (what, name, _rounded(value["median"]), _spread(value), _ratio(value))
            for what, contenders in found.items()
            for name, value in contenders.items()
        ]
        header = (SECTIONS[section], "contender", "median", "spread", "ratio")
        parts.append(table(header, rows, numbers=(2, 3, 4)))
    return "\n\n".join(parts) + "\n"


def families_table(measured: Path) -> str:
    """The tables of benchmarks/every_family.py, one for each precision and kind of vectors."""
    parts = []
    for title, column in sorted(json.loads(measured.read_text(encoding="utf-8")).items()):
        rows = [
            (
                f"`{name}`",
                *(_rounded(found[who]["median"]) for who in ("plain", "tuned", "ours")),
                *(_ratio(found[who]) for who in ("tuned", "ours")),
            )
            for name, found in column["networks"].items()
        ]
        header = (title, "plain", "tuned", "ours", "tuned / plain", "ours / plain")
        shown = table(header, rows, numbers=(1, 2, 3, 4, 5))
        parts.append(f"{machine_line(column['machine'])}\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(value: dict[str, float]) -> str:
    return f"{_rounded(value['low'])} to {_rounded(value['high'])}"


def _ratio(value: dict[str, float]) -> str:
    return f"{value['ratio']:.2f}" if "ratio" in value else ""


def _about(network: type) -> list[str]:
    """What the network's own docstring tells of it, for the zoo's networks."""
    if network not in [getattr(models, name) for name in models.__all__]:
        return []
    text = inspect.getdoc(network).split("\nArgs:")[0]
    link = f"{{py:class}}`cifarzoo.models.{network.__name__}`"
    return ["## The network", _block("{eval-rst}", text), f"Built as {link}."]


def _help(*command: str) -> str:
    """What ``cifarzoo COMMAND --help`` prints, without rich's frames."""
    mode, cli.app.rich_markup_mode = cli.app.rich_markup_mode, None
    try:
        environment = {"COLUMNS": "80", "NO_COLOR": "1"}
        result = CliRunner().invoke(
            cli.app, [*command, "--help"], prog_name="cifarzoo", env=environment
        )
    finally:
        cli.app.rich_markup_mode = mode
    assert result.exit_code == 0, result.output
    return result.output.replace("`", "").strip()


def _run_quickstart(program: Path, folder: Path) -> None:
    arguments, sys.argv = sys.argv, [str(program), str(folder)]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path(str(program), run_name="__main__")
    finally:
        sys.argv = arguments


def what_it_prints(page: Path) -> str:
    """The output of the tested code on a page."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec("".join(code for _, code in code_blocks(page, "{testcode}")), {})
    return printed.getvalue()


def _block(language: str, text: str, css: str = "") -> str:
    options = f":class: {css}\n\n" if css else ""
    name = f"{{code-block}} {language}" if css else language
    return f"```{name}\n{options}{text.rstrip()}\n```"


def _write_folder(folder: Path, pages: dict[str, str]) -> None:
    """Write ``pages`` into ``folder`` and nothing else; what is the same stays untouched."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        if stale.name not in pages:
            stale.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
