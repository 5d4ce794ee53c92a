"""An optimizer of your own, by name in a recipe.

What is registered is an optimizer's class, or a function of the parameter groups. It is given the
recipe's learning rate; its other keywords are options.

Run: python examples/extend/optimizer.py [output folder]
"""

import sys
from pathlib import Path

import torch

import cifarzoo


@cifarzoo.register_optimizer("sign_sgd")
class SignSGD(torch.optim.Optimizer):
    """Each parameter moves by the sign of its averaged gradient (Bernstein et al. 2018)."""

    def __init__(self, groups: list[dict], lr: float, *, beta: float = 0.9) -> None:
        super().__init__(groups, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["beta"])
                parameter.sub_(average.sign(), alpha=group["lr"])


def main(output: Path) -> None:
    """Train by a recipe that names it."""
    recipe = cifarzoo.Recipe(
        epochs=4,
        batch_size=100,
        optimizer="sign_sgd",
        optimizer_options={"beta": 0.8},
        learning_rate=0.002,
    )
    model = cifarzoo.create_model("simple", seed=0)
    history = cifarzoo.Trainer(model, recipe).fit(cifarzoo.load_sample("train"))
    losses = ", ".join(f"{loss:.2f}" for loss in history.column("train_loss"))
    print(f"{recipe.optimizer}: loss {losses}")
    print(f"written: {recipe.save(output / 'recipe.toml')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/examples/extend/optimizer"))
