"""Lookahead by hand."""

from __future__ import annotations

import torch
from runs import PLAIN, make_trainer
from torch import nn

from cifarzoo import ImageSet
from cifarzoo.training.averages import Lookahead


def test_slow_weights_follow_less_and_less() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    lookahead = Lookahead(model, 0.9)
    expected = 0.0
    for steps in range(1, 21):
        live = expected + steps  # the network has moved
        nn.init.constant_(model.weight, live)
        lookahead.update(steps, steps / 20)
        if steps % 5 == 0:
            decay = 0.9**5 * (steps / 20) ** 3
            expected = decay * expected + (1 - decay) * live
            torch.testing.assert_close(model.weight.detach(), torch.tensor([[expected]]))
        else:
            torch.testing.assert_close(model.weight.detach(), torch.tensor([[float(live)]]))


def test_running_statistics_are_averaged_too() -> None:
    model = nn.BatchNorm2d(2)
    lookahead = Lookahead(model, 0.5)
    assert model.running_mean is not None
    model.running_mean.fill_(2.0)
    lookahead.take()
    assert float(model.running_mean.sum()) == 0


def test_the_result_of_a_run_is_the_slow_weights(few: ImageSet) -> None:
    recipe = PLAIN.replace(epochs=1, batch_size=50, learning_rate=0.01)  # four steps: no update
    slow = make_trainer(recipe.replace(lookahead_decay=0.5))
    before = {k: v.clone() for k, v in slow.model.state_dict().items()}
    slow.fit(few)
    assert all(torch.equal(v, before[k]) for k, v in slow.model.state_dict().items())
