"""Pretrained weights: load them, read how they were trained, verify them, see what they confuse.

Shows `list_models`, `create_model(pretrained=True)`, `read_metadata`, `verify_weights`, `evaluate`.
Nothing is downloaded: weights and sample come with the package.

Run: python examples/pretrained.py [output folder]
"""

import sys
from pathlib import Path

import cifarzoo


def main(output: Path) -> None:
    """Verify all weights on the sample, and write the report of the best to ``output``."""
    test = cifarzoo.load_sample("test")
    found = []
    shipped = [
        (name, tag, info.path)
        for name in cifarzoo.list_models(pretrained=True)
        for tag, info in cifarzoo.get_model_info(name).weights.items()
        # larger ones come in packages of their own, and the sample is of CIFAR-10
        if info.path.is_file() and info.facts["data"] == "cifar10"
    ]
    for name, tag, path in shipped:
        facts = cifarzoo.read_metadata(path)["metadata"]
        verified = cifarzoo.verify_weights(name, test, tag=tag)
        found.append(verified)
        print(
            f"{name} {tag}: {facts['recipe']['epochs']} epochs in {facts['train_seconds']:.0f} s, "
            f"{facts['test_accuracy']['none']:.2%} on CIFAR-10; {verified.stated:.1%} stated on "
            f"the sample, {verified.accuracy:.1%} measured: "
            f"{'passed' if verified.passed else verified.problems}"
        )

    best = max(found, key=lambda each: each.accuracy)
    model = cifarzoo.create_model(best.model, pretrained=best.tag)
    report = cifarzoo.evaluate(model, test, tta="flip")
    print(f"\n{best.model}, averaged with the mirror image: {report.accuracy:.1%}")
    for error in report.confident_errors(3):
        print(f"confident error: image {error.index} is a {error.label}, not a {error.predicted}")

    output.mkdir(parents=True, exist_ok=True)
    print(f"written: {report.save(output / 'report.md')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/pretrained"))
