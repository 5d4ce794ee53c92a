"""Schedules: finite, non-negative, resumable, and equal to torch's where torch has them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import schedules
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from cifarzoo import list_schedulers, register_scheduler
from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.recipe.schedulers import build_scheduler, check_scheduler

PEAK = 0.5

TIMM = tuple(int(part) for part in timm.__version__.split(".")[:3] if part.isdigit())
new_in_timm = pytest.mark.skipif(TIMM < (1, 0, 31), reason="timm has had it since 1.0.31")
SCHEDULERS = [
    pytest.param(name, marks=new_in_timm) if name in ("timm.rsqrt", "timm.wsd") else name
    for name in list_schedulers()
]


def make_optimizer() -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)


def advance(optimizer: Optimizer, scheduler: LRScheduler, loss: float = 1.0) -> float:
    """Make one step and return the learning rate it was made with."""
    rate = float(optimizer.param_groups[0]["lr"])
    optimizer.step()
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)
    else:
        scheduler.step()
    return rate


def rates(name: str, epochs: int, steps_per_epoch: int, **options: Any) -> list[float]:
    """The learning rate of every step of a run."""
    optimizer = make_optimizer()
    scheduler = build_scheduler(
        name, optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch, options=options
    )
    return [advance(optimizer, scheduler) for _ in range(epochs * steps_per_epoch)]


@pytest.mark.parametrize("name", SCHEDULERS)
@given(data=st.data())
def test_rates_are_finite_non_negative_and_continue_from_a_saved_state(
    name: str, data: st.DataObject
) -> None:
    epochs, steps, options = data.draw(schedules(name))
    total = epochs * steps
    stop = data.draw(st.integers(0, total))
    build: dict[str, Any] = {"epochs": epochs, "steps_per_epoch": steps, "options": options}
    optimizer = make_optimizer()
    scheduler = build_scheduler(name, optimizer, **build)
    seen = []
    for step in range(total):
        if step == stop:
            saved = scheduler.state_dict(), optimizer.state_dict()
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        seen.append(advance(optimizer, scheduler))
    assert all(0 <= rate <= PEAK * (1 + 1e-9) for rate in seen)  # NaN and infinity fail too
    if stop == total:
        return
    resumed_optimizer = make_optimizer()
    resumed = build_scheduler(name, resumed_optimizer, **build)
    resumed_optimizer.load_state_dict(saved[1])
    resumed.load_state_dict(saved[0])
    assert [advance(resumed_optimizer, resumed) for _ in range(stop, total)] == seen[stop:]


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial"])
def test_fall_from_the_peak_to_the_final_factor(name: str) -> None:
    run = rates(name, 10, 20, final_factor=0.1)
    assert run[0] == PEAK
    assert run[-1] == pytest.approx(0.1 * PEAK, rel=0.06)
    assert run == sorted(run, reverse=True)


def test_cosine_and_linear_pass_half_the_peak_in_the_middle() -> None:
    assert rates("cosine", 4, 10)[20] == pytest.approx(PEAK / 2)
    assert rates("linear", 4, 10)[20] == pytest.approx(PEAK / 2)


def test_cosine_is_above_the_line_first_and_below_it_then() -> None:
    curve, line = rates("cosine", 4, 10), rates("linear", 4, 10)
    assert curve[10] > line[10]
    assert curve[30] < line[30]


def test_polynomial_is_a_power_of_the_time_left() -> None:
    assert rates("polynomial", 4, 10)[20] == pytest.approx(PEAK / 4)
    assert rates("polynomial", 4, 10, power=1.5)[20] == pytest.approx(PEAK * 0.5**1.5)
    assert rates("polynomial", 4, 10, power=1) == pytest.approx(rates("linear", 4, 10))


def test_constant_stays_at_the_peak() -> None:
    assert set(rates("constant", 3, 4)) == {PEAK}


@pytest.mark.parametrize(
    "name", ["constant", "step", "multistep", "cosine", "linear", "polynomial"]
)
def test_warm_up_rises_linearly_to_the_peak_without_wasting_a_step(name: str) -> None:
    run = rates(name, 8, 5, warmup_epochs=2)
    assert run[:10] == pytest.approx([PEAK * (i + 1) / 10 for i in range(10)])
    assert max(run) == pytest.approx(PEAK)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "polynomial"])
def test_negative_warm_up_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"warmup_epochs must be at least 0; got -1"):
        rates(name, 2, 2, warmup_epochs=-1)


def test_onecycle_starts_low_peaks_at_its_place_and_ends_at_almost_nothing() -> None:
    run = rates("onecycle", 10, 10)
    assert run[0] == pytest.approx(0.04 * PEAK)
    assert run.index(max(run)) == 29
    assert max(run) == pytest.approx(PEAK)
    assert run[-1] == pytest.approx(4e-6 * PEAK)


@given(
    epochs=st.integers(1, 12),
    steps=st.integers(1, 12),
    peak_at=st.floats(0.05, 0.95),
    anneal=st.sampled_from(["cos", "linear"]),
)
def test_onecycle_equals_torch(epochs: int, steps: int, peak_at: float, anneal: str) -> None:
    total = epochs * steps
    # torch divides by zero when the peak is the first or the last step itself
    assume(all(abs(peak_at * total - 1 - edge) > 1e-3 for edge in (0, total - 1)))
    optimizer = make_optimizer()
    reference = OneCycleLR(
        optimizer,
        max_lr=PEAK,
        total_steps=total,
        pct_start=peak_at,
        anneal_strategy=anneal,  # type: ignore[arg-type]  # drawn from its two values
        cycle_momentum=False,
        final_div_factor=1e4,
    )
    expected = []
    for _ in range(total):
        expected.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if len(expected) < total:  # torch counts one step more than it allows
            reference.step()
    run = rates("onecycle", epochs, steps, peak_at=peak_at, anneal=anneal)
    assert run == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak_at": 0}, "peak_at is a fraction of the run in 0..1; got 0"),
        ({"peak_at": 1.0}, "peak_at is a fraction of the run in 0..1; got 1.0"),
        ({"anneal": "sin"}, "anneal must be 'cos' or 'linear'; got 'sin'"),
    ],
)
def test_onecycle_refuses_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        rates("onecycle", 2, 2, **options)


@given(
    every=st.integers(1, 7),
    gamma=st.floats(0.05, 1),
    epochs=st.integers(1, 20),
    steps=st.integers(1, 13),
)
def test_step_equals_torch_at_epoch_boundaries(
    every: int, gamma: float, epochs: int, steps: int
) -> None:
    optimizer = make_optimizer()
    reference = StepLR(optimizer, step_size=every, gamma=gamma)
    expected = [advance(optimizer, reference) for _ in range(epochs)]
    run = rates("step", epochs, steps, every_epochs=every, gamma=gamma)
    assert run[::steps] == pytest.approx(expected, rel=1e-9)
    assert run[steps - 1 :: steps] == pytest.approx(expected, rel=1e-9)


@given(
    milestones=st.lists(st.integers(1, 20), max_size=4),
    gamma=st.floats(0.05, 1),
    epochs=st.integers(1, 20),
    steps=st.integers(1, 13),
)
def test_multistep_equals_torch_at_epoch_boundaries(
    milestones: list[int], gamma: float, epochs: int, steps: int
) -> None:
    optimizer = make_optimizer()
    reference = MultiStepLR(optimizer, milestones=milestones, gamma=gamma)
    expected = [advance(optimizer, reference) for _ in range(epochs)]
    run = rates("multistep", epochs, steps, milestones=milestones, gamma=gamma)
    assert run[::steps] == pytest.approx(expected, rel=1e-9)
    assert run[steps - 1 :: steps] == pytest.approx(expected, rel=1e-9)


def test_periods_that_are_no_binary_fractions_are_met_exactly() -> None:
    expected = pytest.approx([PEAK * 0.5**i for i in range(10)])
    assert rates("step", 1, 10, every_epochs=0.1, gamma=0.5) == expected
    tenths = [i * 0.1 for i in range(1, 10)]
    assert rates("multistep", 1, 10, milestones=tenths, gamma=0.5) == expected


def test_step_refuses_a_period_that_is_not_positive() -> None:
    with pytest.raises(ArgumentError, match="every_epochs must be positive; got 0"):
        rates("step", 2, 2, every_epochs=0)


def test_plateau_falls_once_the_loss_has_not_improved_for_its_patience() -> None:
    optimizer = make_optimizer()
    scheduler = build_scheduler(
        "plateau",
        optimizer,
        epochs=10,
        steps_per_epoch=1,
        options={"gamma": 0.5, "patience": 1, "min_learning_rate": 0.2},
    )
    losses = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    run = [advance(optimizer, scheduler, loss) for loss in losses]
    assert run == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2]


def test_names_are_sorted_and_hold_ours_and_timms() -> None:
    names = list_schedulers()
    assert names == sorted(names)
    assert {"constant", "cosine", "linear", "multistep", "onecycle", "plateau", "step"} <= {*names}
    assert "timm.cosine" in names


def test_timm_cosine_agrees_with_ours() -> None:
    assert rates("timm.cosine", 5, 7) == pytest.approx(rates("cosine", 5, 7), abs=1e-9)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'cosin'; did you mean 'cosine'\? See list_sched"):
        check_scheduler("cosin", {})
    with pytest.raises(UnknownNameError, match=r"did you mean 'timm\.tanh'"):
        rates("timm.tan", 1, 1)


def test_an_unknown_option_names_the_allowed() -> None:
    message = (
        "unknown option 'warmup' of scheduler 'cosine'; did you mean 'warmup_epochs'? "
        "allowed: final_factor, warmup_epochs"
    )
    with pytest.raises(ArgumentError) as caught:
        check_scheduler("cosine", {"warmup": 1})
    assert str(caught.value) == message


def test_an_unknown_option_of_timm_names_the_allowed_without_those_we_set() -> None:
    with pytest.raises(ArgumentError, match=r"'num_epochs' of scheduler 'timm\.cosine'.*warmup_lr"):
        check_scheduler("timm.cosine", {"num_epochs": 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cosine", {"warmup_epochs": "two"}),
        pytest.param("timm.rsqrt", {}, marks=new_in_timm),
    ],
)
def test_an_option_of_the_wrong_kind_names_the_scheduler(
    name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ArgumentError, match=f"scheduler '{name}' cannot be built: ."):
        rates(name, 2, 2, **options)


def test_a_schedule_that_an_older_timm_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.scheduler.create_scheduler_v2", lambda *args, **kwargs: (None, 1))
    with pytest.raises(ArgumentError, match=r"timm \d.* has no schedule 'wsd'; upgrade timm"):
        rates("timm.wsd", 1, 1)


@pytest.mark.usefixtures("own_registries")
def test_a_registered_factory_is_found_by_name_with_its_options() -> None:
    @register_scheduler("halving")
    def halving(
        optimizer: Optimizer, epochs: int, steps_per_epoch: int, *, every: int = 1
    ) -> LRScheduler:
        return StepLR(optimizer, step_size=every * steps_per_epoch, gamma=0.5)

    assert "halving" in list_schedulers()
    assert rates("halving", 4, 1, every=2) == [0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ArgumentError, match="allowed: every"):
        check_scheduler("halving", {"period": 1})


@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("name", ["cosine", "timm.mine"])
def test_a_taken_name_cannot_be_registered(name: str) -> None:
    with pytest.raises(DuplicateNameError, match=f"'{name}' is already registered"):
        register_scheduler(name)(StepLR)


def test_a_factory_may_stand_in_place_of_a_name() -> None:
    optimizer = make_optimizer()
    seen: list[tuple[int, int]] = []

    def factory(optimizer: Optimizer, epochs: int, steps_per_epoch: int) -> LRScheduler:
        seen.append((epochs, steps_per_epoch))
        return StepLR(optimizer, 1)

    assert isinstance(build_scheduler(factory, optimizer, epochs=3, steps_per_epoch=4), StepLR)
    assert seen == [(3, 4)]


def test_a_factory_that_returns_something_else_is_refused() -> None:
    with pytest.raises(ArgumentError, match="must return a torch LRScheduler; got str"):
        build_scheduler(lambda *_: "cosine", make_optimizer(), epochs=1, steps_per_epoch=1)
