"""A training run that can be stopped and continued, with logs, a checkpoint and weights.

Trains on CIFAR-10 if its files are on this machine ($CIFARZOO_DATA or the cache folder), else
on the sample that comes with the package. Stop it with Ctrl-C and start it again: it continues
where it stopped.

Run: python examples/train.py [output folder]
"""

import sys
from pathlib import Path

import cifarzoo
from cifarzoo.errors import DataNotFoundError

MODEL = "simple"
RECIPE = "default"
EPOCHS_ON_SAMPLE = 10
SEED = 0


def load_data() -> tuple[cifarzoo.ImageSet, cifarzoo.ImageSet]:
    """Training and test images of CIFAR-10 if the files are here, else of the sample."""
    try:
        load = cifarzoo.load_cifar10
        return load("train", download=False), load("test", download=False)
    except DataNotFoundError:
        print("CIFAR-10 is not on this machine: training on the embedded sample")
        return cifarzoo.load_sample("train"), cifarzoo.load_sample("test")


def main(output: Path) -> None:
    """Train, or continue; then evaluate the last epoch on the test images."""
    train, test = load_data()
    recipe = cifarzoo.get_model_info(MODEL).get_recipe(RECIPE).replace(seed=SEED)
    if "sample" in train.name:
        recipe = recipe.replace(epochs=EPOCHS_ON_SAMPLE)
    folder = output / f"{MODEL} {train.name}".replace(" ", "-")
    # held-out training images show how the training goes; test images are used once, at the end
    train, val = train.split(len(train) // 10, seed=SEED)

    model = cifarzoo.create_model(MODEL, seed=SEED)
    trainer = cifarzoo.Trainer(
        model,
        recipe,
        loggers=[cifarzoo.ConsoleLogger(), cifarzoo.CSVLogger(folder / "history.csv")],
        output=folder,
    )
    history = trainer.fit(train, val, resume=(folder / "checkpoint.pt").exists())
    print(f"trained {len(history)} epochs in {history.seconds:.1f} s")

    report, mirrored = (cifarzoo.evaluate(model, test, tta=tta) for tta in ("none", "flip"))
    print(f"written: {report.save(folder / 'report.json')}")
    print(f"written: {mirrored.save(folder / 'report-flip.json')}")
    print(f"the weights and their recipe: {folder / 'weights.safetensors'}")
    print(f"{report.accuracy:.2%} on {report.data}, {mirrored.accuracy:.2%} with the mirror image")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/train"))
