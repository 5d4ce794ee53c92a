"""Evaluate a trained network: report, confusion matrix, curves.

Shows `evaluate` with and without the mirror image, the contents of its report, and how to write
the report as text, JSON, Markdown and a picture.

Run: python examples/evaluate_and_plot.py [output folder]
"""

import sys
from pathlib import Path

import cifarzoo


def main(output: Path) -> None:
    """Train for a short time, evaluate, and write the report in all its forms."""
    train, test = cifarzoo.load_sample("train"), cifarzoo.load_sample("test")
    train, val = train.split(200, seed=0)
    model = cifarzoo.create_model("simple", seed=0)
    recipe = cifarzoo.get_model_info("simple").recipe.replace(epochs=10)
    history = cifarzoo.Trainer(model, recipe).fit(train, val)

    plain = cifarzoo.evaluate(model, test)
    mirrored = cifarzoo.evaluate(model, test, tta="flip")
    low, high = plain.accuracy_interval
    print(f"accuracy {plain.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    print(f"averaged with the mirror image {mirrored.accuracy:.1%}")
    print(f"calibration error {plain.expected_calibration_error:.3f}")

    worst = min(plain.classes, key=lambda score: score.recall)
    row = plain.confusion[test.classes.index(worst.name)]
    mistakes = dict(zip(test.classes, row, strict=True))
    del mistakes[worst.name]
    print(f"hardest class: {worst.name}, most often taken for {max(mistakes, key=mistakes.get)}")

    for name in ("report.txt", "report.json", "report.md", "confusion.png"):
        print(f"written: {plain.save(output / name)}")
    curves = output / "curves.png"
    cifarzoo.plot_history(history, title="simple on the sample").savefig(curves, dpi=150)
    print(f"written: {curves}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/evaluate_and_plot"))
