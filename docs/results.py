"""The tables of results, made from the index of the weights and from benchmarks/results."""

import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from picture import Point, frontier, published

import cifarzoo
from cifarzoo.cli.zoo import short_count
from cifarzoo.zoo.about import known_facts, mean_accuracy, trained_on

REPORT = ("simple", "deep_bn", "resnet18")  # what these state is the report's own figure


def shown_weights(data: str = "cifar10") -> list[tuple[str, str]]:
    """Model and tag of the weights trained on a set, but those of further seeds."""
    return [
        (name, tag)
        for name in cifarzoo.list_models(pretrained=True)
        for tag, info in cifarzoo.get_model_info(name).weights.items()
        if known_facts(info).get("seeds")
        and "seed_of" not in info.facts
        and (trained_on(info) or "cifar10") == data
    ]


def ten_best() -> list[tuple[str, str]]:
    """Ten models or more, the best first: those that no other beats in both accuracy and cost.

    The most accurate of the others fill the list up to ten.
    """
    points = {}
    for name, tag in shown_weights():
        spec = cifarzoo.get_model_info(name)
        points[name, tag] = Point(name, spec.macs, mean_accuracy(spec.weights[tag]) or 0.0)
    ranked = sorted(points, key=lambda key: -points[key].accuracy)
    best = frontier(list(points.values()))
    first = [key for key in ranked if points[key] in best]
    chosen = {*first, *[key for key in ranked if key not in first][: max(0, 10 - len(first))]}
    return [key for key in ranked if key in chosen]


def short_table(shown: Sequence[tuple[str, str]]) -> str:
    """Accuracy and cost of some weights, by model and tag, for a narrow screen."""
    rows = []
    for name, tag in shown:
        spec = cifarzoo.get_model_info(name)
        shares = [seed["test_accuracy"]["none"] for seed in known_facts(spec.weights[tag])["seeds"]]
        link = f"[`{name}`](models/generated/{name}.md)"
        rows.append(
            (
                link if tag == "default" else f"{link}, `{tag}`",
                f"{100 * statistics.mean(shares):.2f}",
                short_count(spec.macs),
            )
        )
    return table(("network", "accuracy", "MACs"), rows, numbers=(1, 2)) + "\n"


def counted(count: int, noun: str) -> str:
    """As in "1 thread" and "2 threads"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def machine_line(machine: Mapping[str, Any]) -> str:
    """A sentence about where something was measured, with which versions, and when."""
    versions = [
        f"{shown} {machine[name]}"
        for name, shown in (("cifarzoo", "cifarzoo"), ("torch", "torch"), ("python", "Python"))
        if name in machine
    ]
    device = "no GPU" if machine["device"] == "cpu" else machine["device"]
    parts = (
        f"Measured on: {machine['processor']}, {counted(machine['threads'], 'thread')}, {device}, "
        f"{'with' if machine['bfloat16'] else 'without'} bfloat16 in hardware",
        ", ".join(versions),
        machine.get("date"),
    )
    return f"{'; '.join(part for part in parts if part)}."


def walk_table(measured: Path) -> str:
    """The steps of tools/walk.py and what they took, and the accuracy before and after."""
    found = json.loads(measured.read_text(encoding="utf-8"))
    steps = dict(found["steps"])
    if found["install_seconds"]:
        steps = {"The installation": found["install_seconds"], **steps}
    rows = [(step, f"{seconds:.0f} s") for step, seconds in steps.items()]
    rows.append(("**to the network that is kept**", duration(found["seconds_in_all"])))
    machine = found["machine"]
    low, high = found["interval"]
    cores = "one core" if machine["threads"] == 1 else f"{machine['threads']} cores"
    return "\n\n".join(
        (
            table(("step", "time"), rows, numbers=(1,)),
            f"Of {found['tested']} test photos, {found['before']:.1%} were right before and "
            f"{found['after']:.1%} after (95 % interval {low:.1%} to {high:.1%}). There were "
            f"{sum(found['photos'].values())} photos in {len(found['photos'])} classes. Machine: "
            f"{machine['processor']}, {cores}, no GPU, beside other work, {machine['date']}.\n",
        )
    )


def imbalance_table(measured: Path) -> str:
    """What the ways of research/imbalance.py reach: means over the seeds, in percent."""
    results = json.loads(measured.read_text(encoding="utf-8"))
    rows = []
    for way in results["runs"][0]["recalls"]:
        runs = [run["recalls"][way] for run in results["runs"]]
        rows.append(
            (
                way,
                spread([statistics.mean(recalls) for recalls in runs]),
                spread([statistics.mean(recalls[-3:]) for recalls in runs]),
            )
        )
    header = ("what was done", "all classes", "the three rarest")
    return table(header, rows, numbers=(1, 2)) + "\n"


def results_table(shown: Sequence[tuple[str, str]] | None = None) -> str:
    """A row for each set of weights for CIFAR-10, or for some weights, by model and tag."""
    rows = []
    for name, tag in shown_weights() if shown is None else shown:
        spec = cifarzoo.get_model_info(name)
        info = spec.weights[tag]
        facts = known_facts(info)
        seeds = facts["seeds"]
        seconds = statistics.mean(entry["train_seconds"] for entry in seeds)
        precisions = {"bfloat16" if entry["machine"]["bfloat16"] else "float32" for entry in seeds}
        count = 50_000 - facts["val_size"]
        stated = f"{spec.stated_accuracy:g}" if name in REPORT else ""
        rows.append(
            (
                f"`{name}`" if tag == "default" else f"`{name}`, `{tag}`",
                stated,
                spread([entry["test_accuracy"]["none"] for entry in seeds]),
                spread([entry["test_accuracy"]["flip_shift"] for entry in seeds]),
                str(len(seeds)),
                f"{count:,}",
                _published(name) if tag == "default" else "",
                short_count(spec.parameters),
                short_count(spec.macs),
                duration(seconds),
                ", ".join(sorted(precisions)),
            )
        )
    header = "model,report's accuracy,our accuracy,with six views,seeds,training images"
    header += ",published by others,parameters,MACs,training time,precision"
    return table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4, 5, 7, 8, 9)) + "\n"


def hundred_table() -> str:
    """A row for each set of weights for CIFAR-100."""
    rows = []
    for name, tag in shown_weights("cifar100"):
        info = cifarzoo.get_model_info(name).weights[tag]
        seeds = known_facts(info)["seeds"]
        reached = [[x["test_accuracy"][tta] for x in seeds] for tta in ("none", "flip_shift")]
        rows.append(
            (
                f"`{name}`, `{tag}`",
                *map(spread, reached),
                str(len(seeds)),
                duration(statistics.mean(seed["train_seconds"] for seed in seeds)),
            )
        )
    header = ("model and tag", "accuracy", "with six views", "seeds", "training time")
    return table(header, rows, numbers=(1, 2, 3, 4)) + "\n"


def _published(name: str) -> str:
    """What others state for the same network."""
    stated = []
    for each in published():
        if each["model"] == name:
            note = f", {each['note']}" if "note" in each else ""
            stated.append(f"{each['accuracy']:.2f} ([{each['by']}]({each['url']}){note})")
    return ", ".join(stated)


def tuning_tables(measured: Path) -> str:
    """The trials of research/tune_zoo.py, a table for each model."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for run in json.loads(measured.read_text(encoding="utf-8")):
        runs.setdefault(run["model"], []).append(run)
    parts = []
    for model, trials in runs.items():
        rows = [
            (
                trial["name"],
                str(trial["recipe"]["epochs"]),
                f"{100 * trial['accuracy']['none']:.2f}",
                f"{100 * trial['accuracy']['flip']:.2f}",
                f"{100 * trial['train_accuracy']:.2f}",
                f"{trial['loss']['none']:.4f}",
            )
            for trial in trials
        ]
        header = "trial,epochs,validation accuracy,with the mirror image,training accuracy"
        header += ",validation loss"
        parts += [f"### {model}", table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4, 5))]
    return "\n\n".join(parts) + "\n"


def int8_table(measured: Path) -> str:
    """The networks of benchmarks/int8.py: a row for each, and for each runtime."""
    results = json.loads(measured.read_text(encoding="utf-8"))
    rows = []
    for name, found in results["models"].items():
        for runtime, shown in (("torch", "torchao"), ("onnxruntime", "ONNX Runtime")):
            full, small = found[f"{runtime} float32"], found[f"{runtime} int8"]
            change = 100 * (small["accuracy"] - full["accuracy"])
            rows.append(
                (
                    f"`{name}`",
                    shown,
                    f"{100 * full['accuracy']:.2f}",
                    f"{100 * small['accuracy']:.2f}",
                    f"{change:+.2f}",
                    f"{small['speed']:.2f}",
                    f"{small['speed_of_own']:.2f}",
                )
            )
    header = "network,runtime,float32 accuracy,int8 accuracy,change,speed / float32"
    header += ",speed / cifarzoo"
    shown = table(tuple(header.split(",")), rows, numbers=(2, 3, 4, 5, 6))
    return f"{shown}\n\n{machine_line(results['machine'])}\n"


def why_71_tables(measured: Path) -> dict[str, str]:
    """The runs of research/why_71.py, in percent of the held-out images: a table a budget."""
    everything = json.loads(measured.read_text(encoding="utf-8"))
    header = "run,network,images,epochs,training accuracy,validation accuracy,difference"
    header += ",compared with"
    tables = {}
    for budget, runs in _budgets(everything).items():
        rows = []
        for name, run in runs.items():
            last = run["history"][-1]
            base = run["base"] if run["base"] in everything and run["base"] != name else ""
            change = (
                last["val_accuracy"] - everything[base]["history"][-1]["val_accuracy"]
                if base
                else 0
            )
            rows.append(
                (
                    name,
                    f"`{run['model']}`",
                    f"{run['images']:,}",
                    str(run["recipe"]["epochs"]),
                    f"{100 * last['train_accuracy']:.1f}",
                    f"{100 * last['val_accuracy']:.1f}",
                    f"{100 * change:+.1f}" if base else "",
                    base,
                )
            )
        tables[budget] = table(tuple(header.split(",")), rows, numbers=(2, 3, 4, 5, 6)) + "\n"
    return tables


def plot_why_71(measured: Path) -> str:
    """Validation accuracy after every epoch, a panel for each budget, as wide as a phone."""
    budgets = _budgets(json.loads(measured.read_text(encoding="utf-8")))
    figure = plt.figure(figsize=(4.9, 6.2 * len(budgets)), layout="constrained")
    panels = figure.subplots(len(budgets), squeeze=False)[:, 0]
    for axes, runs in zip(panels, budgets.values(), strict=True):
        bases = {run["base"] for run in runs.values()}
        for number, (name, run) in enumerate(runs.items()):
            values = [100 * record["val_accuracy"] for record in run["history"]]
            axes.plot(
                range(1, len(values) + 1),
                values,
                label=name,
                color="black" if name in bases else f"C{number % 10}",
                linewidth=2.5 if name in bases else 1.3,
                linestyle="--" if name.startswith("tuned") else "-",
                zorder=3 if name in bases else 2,
            )
        axes.set_title(f"{next(iter(runs.values()))['images']:,} images, one change at a time")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
    return svg(figure)


def svg(figure: plt.Figure) -> str:
    """The same text each time, so that a page that has not changed is not written again."""
    with matplotlib.rc_context({"svg.hashsalt": "cifarzoo", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()


def _budgets(runs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs that are compared with one on all images, and those with one on a quarter of them."""
    few = {run["base"] for run in runs.values()} - {"original"}
    return {
        "all": {name: run for name, run in runs.items() if run["base"] == "original"},
        "few": {name: run for name, run in runs.items() if few & {name, run["base"]}},
    }


PARTS = {
    "kills": "trainings killed",
    "records": "changed files",
    "recipes": "recipes drawn by Hypothesis",
    "commands": "odd command lines",
    "servers": "broken servers",
    "disk": "full disks",
    "ranks": "one of two processes lost",
    "threads": "many threads",
    "growth": "a long training",
    "fuzz": "fuzzing",
}
"""What each part of benchmarks/soak does, and benchmarks/fuzz.py."""


def reliability_tables(measured: Path) -> str:
    """What was done and what was found, from the JSON that the soak and the fuzzing wrote."""
    results = json.loads(measured.read_text(encoding="utf-8"))
    done = [
        (
            what,
            ", ".join(_count(*each) for each in results[part]["counts"].items()),
            str(sum(results[part]["problems"].values())),
            str(results[part]["seed"]),
            duration(results[part]["seconds"]),
        )
        for part, what in PARTS.items()
        if part in results
    ]
    kinds = next(iter(results.values()))["problems"]
    totals = tuple(str(sum(each["problems"][kind] for each in results.values())) for kind in kinds)
    machines = [{**each["machine"], "date": None} for each in results.values()]
    parts = [
        table(("attack", "what was done", "problems", "seed", "time"), done, numbers=(2, 3, 4)),
        "This table counts the problems of all attacks together, by kind:",
        table(tuple(kinds), [totals], numbers=tuple(range(len(kinds)))),
        *sorted({machine_line(machine) for machine in machines}),
    ]
    return "\n\n".join(parts) + "\n"


def _count(name: str, count: int) -> str:
    """As in "500 calls"; of the things that are counted, there is one only of processes."""
    return f"{count:,} {'process' if (name, count) == ('processes', 1) else name}"


def table(
    header: tuple[str, ...], rows: list[tuple[str, ...]], numbers: tuple[int, ...] = ()
) -> str:
    """A table in Markdown; the columns ``numbers`` are aligned to the right."""
    rule = ["--:" if column in numbers else ":--" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def spread(shares: list[float]) -> str:
    """Mean in percent and, for several values, standard deviation."""
    percent = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{deviation}"
