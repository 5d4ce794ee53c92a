"""A first result: build a network, train it for a short time, and see what it has learned.

Shows `get_model_info`, `create_model`, `Trainer`, `evaluate`, `predict` and the pictures. It runs
on the sample of CIFAR-10 that comes with the package, so its numbers are not CIFAR-10 results.

Run: python examples/quickstart.py [output folder]
"""

import sys
from pathlib import Path

import cifarzoo


def main(output: Path) -> None:
    """Train `simple` on the sample, and write the results to ``output``."""
    spec = cifarzoo.get_model_info("simple")
    print(f"{spec.name}: {spec.description} {spec.parameters:,} parameters")

    train, test = cifarzoo.load_sample("train"), cifarzoo.load_sample("test")
    train, val = train.split(200, seed=0)

    model = cifarzoo.create_model("simple", seed=0)
    recipe = spec.recipe.replace(epochs=12)
    trainer = cifarzoo.Trainer(model, recipe, loggers=[cifarzoo.ConsoleLogger()])
    history = trainer.fit(train, val)

    report = cifarzoo.evaluate(model, test)
    print(report)

    prediction = cifarzoo.predict(model, test.images[0])
    print(f"\nfirst test image: a {test.classes[test.labels[0]]}, taken for a {prediction.label}")

    output.mkdir(parents=True, exist_ok=True)
    written = [
        report.save(output / "report.txt"),
        report.save(output / "confusion.png"),
        cifarzoo.save_weights(model, output / "simple.safetensors"),
        output / "curves.png",
    ]
    figure = cifarzoo.plot_history(history, title="simple on the sample", columns=1)
    figure.savefig(output / "curves.png")
    for path in written:
        print(f"written: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/quickstart"))
