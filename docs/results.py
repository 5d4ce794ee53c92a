"""The tables of results, made from the metadata of the weights and from benchmarks/results."""

import json
import statistics
from pathlib import Path
from typing import Any

import cifarzoo
from cifarzoo.cli.zoo import short_count

# test accuracy in percent as others state it for the same network, last or best epoch
PUBLISHED = {
    "resnet18_cifar": "93.02 ([kuangliu](https://github.com/kuangliu/pytorch-cifar))",
    "resnet20": "91.25 ([He et al.](https://arxiv.org/abs/1512.03385)), "
    "92.56 ([chenyaofo](https://github.com/chenyaofo/pytorch-cifar-models), 200 epochs)",
    "airbench94": "94.01 six views ([Jordan](https://arxiv.org/abs/2404.00498))",
}
REPORT = ("simple", "deep_bn", "resnet18")  # what these state is the report's own figure


def results_table() -> str:
    """A row for each set of pretrained weights."""
    rows = []
    for name in cifarzoo.list_models(pretrained=True):
        spec = cifarzoo.get_model_info(name)
        for tag, info in spec.weights.items():
            facts = cifarzoo.read_metadata(info.path)["metadata"]
            seeds = facts["seeds"]
            minutes = statistics.mean(entry["train_seconds"] for entry in seeds) / 60
            stated = f"{spec.stated_accuracy:g}" if name in REPORT else ""
            rows.append(
                (
                    f"`{name}`" if tag == "default" else f"`{name}`, `{tag}`",
                    stated,
                    _spread([entry["test_accuracy"]["none"] for entry in seeds]),
                    _spread([entry["test_accuracy"]["flip_shift"] for entry in seeds]),
                    str(len(seeds)),
                    PUBLISHED.get(name, "") if tag == "default" else "",
                    short_count(spec.parameters),
                    short_count(spec.macs),
                    f"{minutes:.0f} min" if minutes >= 2 else f"{60 * minutes:.0f} s",
                )
            )
    header = "model,report,ours,six views,seeds,published by others,parameters,MACs,training"
    return table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4, 6, 7, 8)) + "\n"


def tuning_tables(measured: Path) -> str:
    """The trials of benchmarks/tune_zoo.py, a table for each model."""
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
        header = "trial,epochs,validation,with the mirror image,training,validation loss"
        parts += [f"### {model}", table(tuple(header.split(",")), rows, numbers=(1, 2, 3, 4, 5))]
    return "\n\n".join(parts) + "\n"


def why_71_table(measured: Path) -> str:
    """The runs of benchmarks/why_71.py, in percent of the held-out images."""
    runs = json.loads(measured.read_text(encoding="utf-8"))
    rows = []
    for name, run in runs.items():
        last = run["history"][-1]
        base = runs.get(name.split(",")[0])
        change = last["val_accuracy"] - base["history"][-1]["val_accuracy"] if base else 0
        rows.append(
            (
                name,
                f"`{run['model']}`",
                f"{run['images']:,}",
                str(run["recipe"]["epochs"]),
                f"{100 * last['train_accuracy']:.1f}",
                f"{100 * last['val_accuracy']:.1f}",
                f"{100 * change:+.1f}" if base and run is not base else "",
            )
        )
    header = "run,network,images,epochs,training,validation,change"
    return table(tuple(header.split(",")), rows, numbers=(2, 3, 4, 5, 6)) + "\n"


def plot_why_71(measured: Path, target: Path) -> None:
    """Validation accuracy after every epoch, a panel for each of the two networks."""
    from matplotlib.figure import Figure

    runs = json.loads(measured.read_text(encoding="utf-8"))
    titles = {
        "resnet18": "the report's network",
        "resnet18_cifar": "the same network with the CIFAR stem",
    }
    models = [model for model in titles if any(run["model"] == model for run in runs.values())]
    figure = Figure(figsize=(max(8, 6 * len(models)), 5), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        chosen = {name: run for name, run in runs.items() if run["model"] == model}
        for number, (name, run) in enumerate(chosen.items()):
            values = [100 * record["val_accuracy"] for record in run["history"]]
            is_base = "," not in name
            axes.plot(
                range(1, len(values) + 1),
                values,
                label=name,
                color="black" if is_base else f"C{number % 10}",
                linewidth=2.5 if is_base else 1.3,
                linestyle="-" if number < 10 else "--",
                zorder=3 if is_base else 2,
            )
        axes.set_title(titles[model])
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
    figure.axes[0].set_ylabel("validation accuracy, %")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)


def table(
    header: tuple[str, ...], rows: list[tuple[str, ...]], numbers: tuple[int, ...] = ()
) -> str:
    """A table in Markdown; the columns ``numbers`` are aligned to the right."""
    rule = ["--:" if column in numbers else ":--" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(shares: list[float]) -> str:
    """Mean in percent and, for several values, standard deviation."""
    percent = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{deviation}"
