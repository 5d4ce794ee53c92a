"""Networks that do more than compute: what they keep is theirs in a training, too."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from runs import PLAIN, same_state, weights
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.compute.cpu import cpu_kernels
from cifarzoo.errors import ArgumentError, InputError

SHORT = PLAIN.replace(epochs=1, batch_size=50, learning_rate=0.01)
CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def fit(model: nn.Module, data: ImageSet, **fields: Any) -> nn.Module:
    recipe = SHORT.replace(**fields)
    cifarzoo.Trainer(model, recipe, device="cpu", precision="float32").fit(data)
    return model


class Net(nn.Module):
    """A layer of its own before the last one."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.fc = part, nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.part(x).mean((2, 3)))
        return found


class Initialized(nn.Module):
    """Divides by the spread of the first images that it ever sees, in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("has_begun", torch.tensor(0))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.get_buffer("has_begun"):
            self.scale.data.copy_(1 / (x.std((0, 2, 3), keepdim=True)[0] + 1e-6))
            self.get_buffer("has_begun").fill_(1)
            self.seen = len(x)
        return x * self.scale


def test_a_layer_begins_with_the_first_batch_that_it_trains_on(few: ImageSet) -> None:
    model = fit(Net(Initialized()), few)
    part = model.get_submodule("part")
    assert isinstance(part, Initialized)
    assert part.seen == 50
    assert part.scale.abs().max() < 10  # of a picture without contrast it would be a million


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*")
def test_an_observer_sees_the_images_that_are_trained_on(few: ImageSet) -> None:
    """Its range is a slow average, which begins with what it sees first."""
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    ranges = []
    for _ in range(2):
        model = Net(nn.Conv2d(3, 3, 1)).train()
        model.get_submodule("part").qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare_qat(model, inplace=True)
        if ranges:
            fit(model, few)
        else:  # the same images, without a training
            model(cifarzoo.CIFAR10_PREPROCESSING.normalize(few.images[:50]))
        (found,) = (
            value
            for name, value in model.named_buffers()
            if name.startswith("part.activation") and name.endswith("max_val")
        )
        ranges.append(float(found))
    assert ranges[1] > 0.5 * ranges[0]


class Kept(nn.BatchNorm2d):
    """Never in training mode, as where statistics are to stay."""

    def train(self, mode: bool = True) -> Kept:
        super().train(False)
        return self


class Unused(nn.Sequential):
    """Its normalization is for evaluation alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else super().forward(x)


@pytest.mark.parametrize("part", [Kept(3), Unused(nn.BatchNorm2d(3))])
def test_averages_leave_statistics_alone_that_training_does_not_move(
    part: nn.Module, few: ImageSet
) -> None:
    part = copy.deepcopy(part)
    (norm,) = (each for each in part.modules() if isinstance(each, nn.BatchNorm2d))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(0.3)
    norm.running_var.fill_(2.0)
    fit(Net(part), few, ema_decay=0.9)
    assert norm.running_mean.tolist() == [torch.tensor(0.3).item()] * 3
    assert norm.running_var.tolist() == [2.0] * 3


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_tied_layers_are_averaged_once(is_wrapped: bool, few: ImageSet) -> None:
    finals = []
    for is_tied in (False, True):
        torch.manual_seed(0)
        model = Net(nn.Conv2d(3, 3, 1))
        if is_tied:
            model.also = model.part  # a second name of the layer
        fit(nn.DataParallel(model) if is_wrapped else model, few, ema_decay=0.9)
        finals.append(model.get_parameter("part.weight"))
    assert torch.equal(*finals)


class Tables(nn.Module):
    """Keeps what it has worked out for a size, in a dict that is not empty."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, Tensor] = {0: torch.zeros(1)}

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        if side not in self.known:
            self.known[side] = torch.linspace(0, 1, side)
        return x * self.known[side]


def test_what_a_network_has_worked_out_in_an_evaluation_serves_in_training(few: ImageSet) -> None:
    model = Net(nn.Sequential(nn.Conv2d(3, 3, 1), Tables()))
    cifarzoo.evaluate(model, few)
    fit(model, few)


class Flat(nn.Module):
    """Flattens a map by ``view``, which wants it contiguous; wide enough for Winograd's way."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 128, 3, stride=2, padding=1),
            nn.Conv2d(128, 128, 3, padding=1, bias=False),
            nn.MaxPool2d(4),
        )
        self.fc = nn.Linear(128 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.layers(x).view(len(x), -1))
        return found


def test_contiguous_maps_stay_contiguous(few: ImageSet) -> None:
    model = Flat()
    images = cifarzoo.CIFAR10_PREPROCESSING.normalize(few.images[:64])
    expected = model(images)
    with cpu_kernels(model):
        torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-3)
    fit(model, few)
    cifarzoo.evaluate(model, few)


class Remembers(nn.Sequential):
    """Has something to keep that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 3}


@pytest.mark.parametrize("average", ["ema_decay", "lookahead_decay"])
def test_a_state_may_hold_more_than_tensors(average: str, few: ImageSet) -> None:
    model, recipe = Net(Remembers(nn.Conv2d(3, 3, 1))), SHORT.replace(**{average: 0.9})
    trainer = cifarzoo.Trainer(model, recipe, device="cpu", precision="float32", keep="best")
    trainer.fit(few, few)


class Auxiliary(Net):
    def forward(self, x: Tensor) -> Any:
        found = super().forward(x)
        return (found, found) if self.training else found


def lazy() -> nn.Module:
    return Net(nn.LazyConv2d(3, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Auxiliary(nn.Identity()), InputError, r"return logits \(50, classes\).* tuple"),
        (lazy, ArgumentError, "lazy module .* pass it a batch of images once"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_trained_so_is_refused(
    make: Callable[[], nn.Module], error: type[Exception], message: str, few: ImageSet
) -> None:
    with pytest.raises(error, match=message):
        fit(make(), few)


class OwnMode(Net):
    """Its mode is more than a flag, as of a network that is fused for evaluations."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(3))
        self.is_deployed = False

    def train(self, mode: bool = True) -> OwnMode:
        self.is_deployed = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        assert self.is_deployed != self.training
        return super().forward(x)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_mode_that_is_more_than_a_flag_comes_back(
    mode: bool, ema_decay: float, few: ImageSet
) -> None:
    model = OwnMode().train(mode)
    trainer = cifarzoo.Trainer(model, SHORT.replace(ema_decay=ema_decay), **CPU)
    trainer.fit(few, few)
    assert (model.training, model.is_deployed) == (mode, not mode)
    assert all(module.training is mode for module in model.modules())


class Hidden(nn.Module):
    """Holds a normalization in a list, where neither train() nor eval() reaches it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = [nn.BatchNorm2d(3)]
        self.fc = nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.parts[0](x).square().mean((2, 3)))
        return found


class NeedsMode(Net):
    """Its part wants to be told the mode, as whoever holds it does."""

    def __init__(self) -> None:
        super().__init__(Told())


class Told(nn.BatchNorm2d):
    def __init__(self) -> None:
        super().__init__(3)

    def train(self, mode: bool) -> Told:  # type: ignore[override]  # no default
        return super().train(mode)


class Moving(OwnMode):
    """Puts another tensor in the place of a buffer, in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.get_buffer("count") + len(x)
        return super().forward(x)


def test_a_validation_leaves_the_buffers_that_were_there(few: ImageSet) -> None:
    counts = []
    for val in (None, few):
        model = Moving()
        cifarzoo.Trainer(model, SHORT, **CPU).fit(few, val)
        counts.append(float(model.get_buffer("count")))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("make", [OwnMode, Hidden, NeedsMode])
def test_a_validation_is_what_an_evaluation_is(
    make: Callable[[], nn.Module], few: ImageSet
) -> None:
    model = make()
    history = cifarzoo.Trainer(model, SHORT, **CPU).fit(few, few)
    report = cifarzoo.evaluate(model, few, **CPU)
    assert history[-1].val_accuracy == report.accuracy
    assert history[-1].val_loss == pytest.approx(report.loss, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*")
def test_an_observer_does_not_see_the_validation(few: ImageSet) -> None:
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    states = []
    bright = dataclasses.replace(few, images=few.images // 2 + 128)
    for val in (None, bright):
        torch.manual_seed(0)
        model = Net(nn.Conv2d(3, 3, 1)).train()
        model.get_submodule("part").qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare_qat(model, inplace=True)
        cifarzoo.Trainer(model, SHORT, **CPU).fit(few, val)
        states.append(weights(model))
    assert same_state(*states)


class Counting(nn.Sequential):
    """Counts the images that it is trained on, beside its tensors."""

    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x) * self.training
        return super().forward(x)

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


def test_an_average_has_no_part_in_what_is_no_tensor(few: ImageSet) -> None:
    model = fit(Net(Counting(nn.Conv2d(3, 3, 1))), few, ema_decay=0.9)
    assert model.get_submodule("part").count == len(few)


def test_gradients_of_others_are_not_clipped(few: ImageSet) -> None:
    """A frozen layer may still hold a gradient of an earlier training."""
    finals = []
    for stale in (0.0, 1e6):
        torch.manual_seed(0)
        model = Net(nn.Conv2d(3, 3, 1))
        frozen = model.get_parameter("part.weight").requires_grad_(False)
        frozen.grad = torch.full_like(frozen, stale)
        fit(model, few, clip_norm=1.0)
        assert frozen.grad.tolist() == torch.full_like(frozen, stale).tolist()
        finals.append(weights(model))
    assert same_state(*finals)


class Growing(Net):
    """Makes a part without tensors in its first pass."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "pool"):
            self.pool = nn.AvgPool2d(1)
        return super().forward(self.pool(x))


def test_a_network_may_grow_in_its_first_pass(few: ImageSet) -> None:
    fit(Growing(Counting(nn.Conv2d(3, 3, 1))), few, ema_decay=0.9)
